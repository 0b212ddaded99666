// Makes pages live. Everything works without it; it adds news, ticking times, timelines in place and following output.
// Parts come rendered and escaped from the server; text from elsewhere is only ever set as text.
"use strict";
(() => {
  const live = document.getElementById("live");
  const word = document.getElementById("live-word");
  const clock = document.getElementById("clock");
  const target = document.querySelector("[data-live]");
  let skew = 0; // server time minus ours, in milliseconds
  let stream = null;
  let hidden = null;
  let ended = Boolean(target && "ended" in target.dataset);
  let paused = false;

  const pad = (n) => String(n).padStart(2, "0");
  const took = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + " m" + (s % 60 ? " " + (s % 60) + " s" : "");
    if (s < 86400) return Math.floor(s / 3600) + " h" + (Math.floor((s % 3600) / 60) ? " " + Math.floor((s % 3600) / 60) + " m" : "");
    return Math.floor(s / 86400) + " d";
  };

  const say = (state, text) => {
    if (!live) return;
    live.dataset.state = state;
    if (word.textContent !== text) word.textContent = text;
  };

  setInterval(() => {
    if (document.hidden) return;
    const now = Date.now() + skew;
    for (const el of document.querySelectorAll("[data-since]")) {
      if (el.dataset.since) el.textContent = took(now - Number(el.dataset.since));
    }
    if (clock) {
      const at = new Date(now);
      clock.textContent = pad(at.getUTCHours()) + ":" + pad(at.getUTCMinutes()) + ":" + pad(at.getUTCSeconds());
      clock.dateTime = at.toISOString();
    }
  }, 1000);

  const parse = (html) => {
    // A table part only keeps its shape inside a table.
    const box = document.createElement("template");
    box.innerHTML = html;
    return box.content;
  };

  const focusKey = (root) => {
    const at = document.activeElement;
    return at && root.contains(at) && at.getAttribute("href");
  };
  const focusAgain = (root, href) => {
    if (!href) return;
    for (const a of root.querySelectorAll("a[href]")) if (a.getAttribute("href") === href) return a.focus({ preventScroll: true });
  };

  // --- timelines in a list
  const filling = new WeakMap();
  const fill = async (details) => {
    if (filling.get(details)) { filling.set(details, 2); return; }
    filling.set(details, 1);
    try {
      const answer = await fetch("/console/jobs/" + encodeURIComponent(details.dataset.timeline) + "/timeline", { credentials: "same-origin" });
      if (answer.ok && !answer.redirected) details.querySelector(".fill").replaceChildren(parse(await answer.text()));
    } catch { /* the link inside still leads to the job */ }
    const again = filling.get(details) === 2;
    filling.delete(details);
    if (again) setTimeout(() => details.open && fill(details), 300);
  };
  document.addEventListener("toggle", (event) => {
    const details = event.target;
    if (details.open && details.dataset && details.dataset.timeline) fill(details);
  }, true);

  // --- lists: what stands there stands still; new rows come when asked for, or while nobody is in the list
  const list = document.getElementById("list");
  const waiting = new Map();
  let many = false;
  const touched = () => list.matches(":hover") || list.contains(document.activeElement) || window.scrollY > 200;
  const most = () => Number(document.getElementById("jobs").dataset.most) || 300;
  const insert = (row) => {
    const table = document.getElementById("jobs");
    const fresh = parse(row.html).querySelector("tbody");
    if (!fresh) return;
    const after = [...table.tBodies].find((body) => Number(body.dataset.job) < row.id);
    table.insertBefore(fresh, after || null);
    table.dataset.newest = Math.max(row.id, Number(table.dataset.newest));
    table.closest(".scroll").hidden = false;
    document.getElementById("empty").hidden = true;
    fresh.classList.add("fresh");
    if (table.tBodies.length > most()) table.tBodies[table.tBodies.length - 1].remove();
    return fresh;
  };
  const letIn = () => {
    const bodies = [...waiting.values()].sort((a, b) => a.id - b.id).map(insert);
    waiting.clear();
    // One timeline follows by itself: that of the newest job.
    const newest = bodies.at(-1);
    if ("feed" in list.dataset && newest && !list.querySelector("details[open]:not([data-auto])")) {
      for (const old of list.querySelectorAll("details[data-auto]")) { old.open = false; delete old.dataset.auto; }
      const details = newest.querySelector("details");
      details.dataset.auto = "";
      details.open = true;
    }
  };
  const tell = () => {
    const link = document.querySelector("#news a");
    if (!link) return;
    const n = waiting.size;
    link.hidden = !n && !many;
    link.textContent = many ? "Show the list as it is now" : "Show " + n + " newer job" + (n === 1 ? "" : "s");
  };
  const rows = (data) => {
    many = many || data.many;
    for (const row of data.rows) {
      const old = document.querySelector('tbody[data-job="' + Number(row.id) + '"]');
      if (!old) {
        const newest = Number(document.getElementById("jobs").dataset.newest);
        if ((row.fits && row.id > newest) || waiting.has(row.id)) waiting.set(row.id, row);
        if (waiting.size > 200) many = true;
        continue;
      }
      if (Number(old.dataset.version) >= row.version) continue;
      const fresh = parse(row.html).querySelector("tbody");
      if (!fresh) continue;
      const href = focusKey(old);
      old.rows[0].replaceWith(fresh.rows[0]);
      old.dataset.version = row.version;
      old.dataset.state = fresh.dataset.state;
      focusAgain(old, href);
      const details = old.querySelector("details[data-timeline]");
      if (details && details.open) fill(details);
    }
    if (waiting.size && !many && (("feed" in list.dataset && !touched()) || document.getElementById("jobs").tBodies.length === 0)) letIn();
    tell();
  };
  const news = document.querySelector("#news a");
  if (news) news.addEventListener("click", (event) => {
    if (many || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    letIn();
    tell();
  });
  const counts = (data) => {
    soon();
    for (const [id, html] of [["facets", data.html], ["answer", data.answer]]) {
      const box = document.getElementById(id);
      if (box && html && !focusKey(box)) box.replaceChildren(parse(html));
    }
  };

  // --- tables that are read again: cells change in place, rows keep their place; what is marked fresh is replaced
  const fresh = [...document.querySelectorAll("[data-fresh]")];
  const refreshed = [...document.querySelectorAll("table[data-refresh]")];
  const merge = (old, fresh) => {
    const body = old.tBodies[0];
    const next = new Map([...fresh.tBodies[0].rows].map((row) => [row.dataset.key, row]));
    for (const row of body.rows) {
      const now = next.get(row.dataset.key);
      next.delete(row.dataset.key);
      row.classList.toggle("gone", !now);
      if (!now || row.contains(document.activeElement)) continue;
      [...row.cells].forEach((cell, i) => {
        if (now.cells[i] && cell.innerHTML !== now.cells[i].innerHTML) cell.replaceChildren(...now.cells[i].cloneNode(true).childNodes);
      });
    }
    if (old.dataset.refresh !== "held") {
      for (const row of next.values()) body.append(document.importNode(row, true));
      return;
    }
    // The newest stand first here: more of them would push what is read, so they wait until somebody asks.
    const head = old.closest(".panel").querySelector("header");
    let link = head.querySelector("a[data-newer]");
    if (!next.size) { if (link) link.remove(); return; }
    if (!link) {
      link = document.createElement("a");
      link.dataset.newer = "";
      link.className = "push small";
      link.href = location.href;
      head.append(link);
    }
    link.textContent = "Show " + next.size + " newer";
  };
  const renew = (page) => {
    for (const el of fresh) {
      const now = page.getElementById(el.id);
      if (!now || el.contains(document.activeElement) || el.matches(":hover")) continue;
      if (el.dataset.fresh !== "html") { if (now.textContent !== el.textContent) el.textContent = now.textContent; continue; }
      if (now.innerHTML !== el.innerHTML) el.replaceChildren(...document.importNode(now, true).childNodes);
    }
  };
  let asking = false;
  const again = async () => {
    if (document.hidden || paused || asking) return;
    asking = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (!answer.ok || answer.redirected) throw new Error("not answered");
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const tables = page.querySelectorAll("table[data-refresh]");
      refreshed.forEach((old, i) => tables[i] && merge(old, tables[i]));
      renew(page);
      skew = Date.parse(page.getElementById("clock").dateTime) - Date.now();
      say("on", "Live");
    } catch {
      if (live.dataset.state !== "lost") say("lost", "Not live since " + clock.textContent + ", trying again");
    }
    asking = false;
  };
  if (refreshed.length) { say("on", "Live"); setInterval(again, 2000); }
  // Figures follow the news, not faster than every three seconds; and slowly without any.
  let due = null;
  const soon = () => { if (fresh.length && !refreshed.length && !due) due = setTimeout(() => { due = null; again(); }, 3000); };
  if (fresh.length && !refreshed.length) setInterval(again, 15000);

  // --- one job
  let outputs = [];
  let timer = null;
  const job = (data) => {
    const root = document.getElementById("job");
    if (!root || Number(root.dataset.version) > data.version || !data.html) return;
    const details = () => [...root.querySelectorAll("details:not([data-act])")];
    const open = details().map((d) => d.open);
    const href = focusKey(root);
    const part = parse(data.html);
    // Forms stay what they are, with what was typed into them.
    const at = document.activeElement;
    for (const kept of root.querySelectorAll("[data-keep]")) {
      const place = part.querySelector('[data-keep="' + kept.dataset.keep + '"]');
      if (place) place.replaceWith(kept);
    }
    root.replaceChildren(part);
    if (at && at !== document.activeElement && root.contains(at)) at.focus({ preventScroll: true });
    root.dataset.version = data.version;
    details().forEach((d, i) => { d.open = Boolean(open[i]); });
    focusAgain(root, href);
    for (const act of document.querySelectorAll("[data-act]")) act.hidden = !(data.legal || []).includes(act.dataset.act);
    if (outputs.length) readOutputs();
    if (data.ended) ended = true;
  };

  // --- output, by byte offset
  const decoders = new WeakMap();
  const shown = (text) => text.replace(/\u001b/g, "␛").replace(/[\u202a-\u202e\u2066-\u2069\u200e\u200f]/g, (c) => "⟨U+" + c.charCodeAt(0).toString(16).toUpperCase() + "⟩").replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g, "\ufffd");
  // The page keeps the last 5,000 lines; the raw output has all.
  const cut = (pre) => {
    const lines = pre.textContent.split("\n");
    if (lines.length > 5500) pre.textContent = "… " + (lines.length - 5000) + " lines before this are in the raw output\n" + lines.slice(-5000).join("\n");
  };
  const behind = (pre, lines) => {
    let button = pre.nextElementSibling;
    if (!button || !button.matches(".more-out")) {
      button = document.createElement("button");
      button.type = "button";
      button.className = "more-out";
      const hide = () => { button.remove(); };
      button.addEventListener("click", () => { pre.scrollTop = pre.scrollHeight; hide(); });
      pre.addEventListener("scroll", () => { if (pre.scrollHeight - pre.scrollTop - pre.clientHeight < 24) hide(); });
      button.dataset.lines = "0";
      pre.after(button);
    }
    button.dataset.lines = Number(button.dataset.lines) + lines;
    button.textContent = button.dataset.lines + (button.dataset.lines === "1" ? " new line" : " new lines");
  };
  const follow = async (pre) => {
    for (let rounds = 0; rounds < 16; rounds += 1) {
      const answer = await fetch(pre.dataset.output + "&limit=65536&from=" + pre.dataset.from, { credentials: "same-origin" });
      if (!answer.ok || answer.redirected) return;
      const bytes = new Uint8Array(await answer.arrayBuffer());
      if (!bytes.length) return;
      if (!decoders.has(pre)) decoders.set(pre, new TextDecoder());
      const atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 24;
      const text = shown(decoders.get(pre).decode(bytes, { stream: true }));
      pre.append(text);
      pre.dataset.from = Number(pre.dataset.from) + bytes.length;
      if (atEnd) { cut(pre); pre.scrollTop = pre.scrollHeight; } else behind(pre, text.split("\n").length - 1);
    }
  };
  outputs = [...document.querySelectorAll("[data-output]")];
  // What is still being written is read from its end.
  if (!ended) for (const pre of outputs) pre.scrollTop = pre.scrollHeight;
  let reading = false;
  const readOutputs = async () => {
    if (reading || document.hidden || paused) return;
    reading = true;
    const last = ended;
    try { for (const pre of outputs) await follow(pre); } catch { /* the next round reads on */ }
    reading = false;
    if (last && timer) { clearInterval(timer); timer = null; }
  };
  timer = outputs.length ? setInterval(readOutputs, 1000) : null;

  // --- the stream
  const open = () => {
    if (!target || stream || ended || paused) return;
    stream = new EventSource(target.dataset.live);
    const on = (name, then) => stream.addEventListener(name, (event) => {
      const data = JSON.parse(event.data);
      if (data.now) skew = data.now - Date.now();
      say("on", "Live");
      then(data);
      if (ended) {
        close();
        if (!refreshed.length) { say("off", "Ended"); document.getElementById("pause").hidden = true; }
      }
    });
    on("hello", () => {});
    on("rows", rows);
    on("counts", counts);
    on("job", job);
    on("mode", () => again());
    stream.onerror = () => {
      say("lost", "Not live since " + (clock ? clock.textContent : "now") + ", trying again");
      // A refused stream (session over, too many) is not tried again by the browser itself.
      if (stream && stream.readyState === EventSource.CLOSED) { stream = null; setTimeout(open, 4000); }
    };
  };
  const close = () => { if (stream) { stream.close(); stream = null; } };
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(() => { close(); say("off", "Not live"); }, 60000);
    else open();
  });
  open();

  // --- forms: a second click sends nothing; a choice that changes others shows them
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!("once" in form.dataset)) return;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "1";
    // A page that comes back from the browser's memory may send again; its key makes that the same request.
    window.addEventListener("pageshow", () => { delete form.dataset.sent; }, { once: true });
  });
  for (const select of document.querySelectorAll("[data-choose]")) {
    const button = select.form.querySelector('button[name="act"][value="' + select.dataset.choose + '"]');
    button.hidden = true;
    select.addEventListener("change", () => select.form.requestSubmit(button));
  }
  for (const here of document.querySelectorAll("[data-here]")) here.value = location.pathname + location.search;

  // --- copy, pause, keys
  const copy = async (button) => {
    const source = button.dataset.copy ? document.querySelector(button.dataset.copy) : button.parentElement.querySelector("code");
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest ? event.target.closest("[data-copy]") : null;
    if (button) copy(button);
    for (const pop of document.querySelectorAll("details.pop[open], details.menu[open]")) if (!pop.contains(event.target)) pop.open = false;
  });
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
  const pause = document.getElementById("pause");
  const turn = () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) { close(); say("off", "Paused since " + clock.textContent); return; }
    say(target || refreshed.length ? "on" : "off", target || refreshed.length ? "Live" : "Not live");
    open();
    again();
    readOutputs();
  };
  if (!target && !refreshed.length) say("none", "");
  if (pause && ((target && !ended) || refreshed.length)) { pause.hidden = false; pause.addEventListener("click", turn); }
  const keys = document.getElementById("keys");
  const showKeys = () => { if (keys && !keys.open) keys.showModal(); };
  for (const button of document.querySelectorAll("[data-keys-list]")) {
    button.hidden = false;
    button.addEventListener("click", showKeys);
  }
  const rowsHere = () => [...document.querySelectorAll("main tbody.job, main tr[data-key]")].filter((row) => row.querySelector("a[href]"));
  const step = (by) => {
    const all = rowsHere();
    const at = all.findIndex((row) => row.contains(document.activeElement));
    const next = all[Math.min(all.length - 1, Math.max(0, at + (at < 0 && by < 0 ? 0 : by)))];
    if (next) { const link = next.querySelector("a[href]"); link.focus(); next.scrollIntoView({ block: "nearest" }); }
  };
  const click = (selector) => { const el = document.querySelector(selector); if (el && !el.hidden) el.click(); };
  const PLACES = { o: "/", j: "/jobs", a: "/agents", s: "/servers", c: "/actors", n: "/jobs/new" };
  const DO = {
    "/": () => document.getElementById("jump").focus(),
    f: () => { const el = document.getElementById("q") || document.querySelector("main input:not([type=hidden]), main select, main textarea"); if (el) el.focus(); },
    j: () => step(1),
    k: () => step(-1),
    r: () => click("#news a, a[data-newer]"),
    p: () => { if (pause && !pause.hidden) turn(); },
    y: () => click("[data-copy]"),
    "[": () => click('a[rel="prev"]'),
    "]": () => click('a[rel="next"]'),
    "?": showKeys,
  };
  let after = 0; // until when the letter behind "g" counts
  document.addEventListener("keydown", (event) => {
    const el = event.target;
    const typing = el.isContentEditable || /^(input|select|textarea)$/i.test(el.tagName);
    if (document.documentElement.dataset.keys === "off" || typing || event.ctrlKey || event.metaKey || event.altKey || (keys && keys.open)) return;
    if (Date.now() < after && PLACES[event.key]) { after = 0; event.preventDefault(); location.assign(PLACES[event.key]); return; }
    after = event.key === "g" ? Date.now() + 1500 : 0;
    if (Object.hasOwn(DO, event.key)) { event.preventDefault(); DO[event.key](); }
  });
})();
