// The list of jobs: completion in the query box, and what is marked. Both work without this: a list of data for the
// box, and plain boxes in a form.
"use strict";
(() => {
  // --- the query box: Tab or Enter takes what is chosen, arrows choose, Esc leaves the text as it is
  const box = document.getElementById("q");
  const list = document.getElementById("q-options");
  if (box && list) {
    box.removeAttribute("list");
    box.setAttribute("role", "combobox");
    box.setAttribute("aria-autocomplete", "list");
    box.setAttribute("aria-controls", list.id);
    let chosen = -1;
    let asked = 0;
    const show = (on) => {
      list.hidden = !on;
      box.setAttribute("aria-expanded", String(on));
      if (!on) { chosen = -1; box.removeAttribute("aria-activedescendant"); }
    };
    const choose = (n) => {
      const options = list.children;
      if (!options.length) return;
      chosen = (n + options.length) % options.length;
      [...options].forEach((option, i) => option.setAttribute("aria-selected", String(i === chosen)));
      box.setAttribute("aria-activedescendant", options[chosen].id);
      options[chosen].scrollIntoView({ block: "nearest" });
    };
    const take = (option) => {
      const rest = box.value.slice(box.selectionStart);
      const text = option.dataset.text;
      box.value = text + rest;
      box.setSelectionRange(text.length, text.length);
      box.focus();
      ask();
    };
    const fill = (found) => {
      list.replaceChildren(...found.map((one, i) => {
        const option = document.createElement("li");
        const code = document.createElement("code");
        const hint = document.createElement("span");
        option.id = "q-option-" + i;
        option.setAttribute("role", "option");
        option.setAttribute("aria-selected", "false");
        option.dataset.text = one.text;
        code.textContent = one.shown;
        hint.textContent = one.hint;
        option.append(code, hint);
        return option;
      }));
      chosen = -1;
      box.removeAttribute("aria-activedescendant");
      show(found.length > 0 && document.activeElement === box);
    };
    const ask = async () => {
      const turn = asked += 1;
      const text = box.value.slice(0, box.selectionStart);
      try {
        const answer = await fetch("/console/suggest?q=" + encodeURIComponent(text), { credentials: "same-origin" });
        if (answer.ok && !answer.redirected && turn === asked) fill(await answer.json());
      } catch { show(false); }
    };
    box.setAttribute("aria-expanded", "false");
    box.addEventListener("input", ask);
    box.addEventListener("blur", () => show(false));
    list.addEventListener("mousedown", (event) => {
      const option = event.target.closest("[role=option]");
      event.preventDefault();
      if (option) take(option);
    });
    box.addEventListener("keydown", (event) => {
      const open = !list.hidden;
      if (event.key === "ArrowDown") { if (open) choose(chosen + 1); else ask(); event.preventDefault(); }
      else if (event.key === "ArrowUp" && open) { choose(chosen < 0 ? -1 : chosen - 1); event.preventDefault(); }
      else if (event.key === "Escape" && open) { show(false); event.preventDefault(); event.stopPropagation(); }
      else if (event.key === "Tab" && open && !event.shiftKey && /\S$/.test(box.value.slice(0, box.selectionStart))) { take(list.children[Math.max(chosen, 0)]); event.preventDefault(); }
      else if (event.key === "Enter" && open && chosen >= 0) { take(list.children[chosen]); event.preventDefault(); }
    });
  }

  // --- marks: they outlive rows that are drawn anew
  const form = document.getElementById("pick");
  if (!form) return;
  const told = document.getElementById("picked");
  const all = form.querySelector('input[name="all"]');
  const marked = new Set();
  let last = null;
  const boxes = () => [...document.querySelectorAll('table.pick input[name="id"]')];
  const tell = () => {
    const n = marked.size;
    const everything = all && all.checked;
    const text = everything ? "All that match are selected" : n ? n + " selected" : "Mark jobs to act on them";
    if (told.textContent !== text) told.textContent = text;
    form.classList.toggle("on", Boolean(n || everything));
  };
  const clear = document.createElement("button");
  clear.type = "button";
  clear.className = "btn btn-s";
  clear.textContent = "Clear selection";
  clear.addEventListener("click", () => {
    marked.clear();
    for (const one of boxes()) one.checked = false;
    if (all) all.checked = false;
    tell();
  });
  const page = document.createElement("button");
  page.type = "button";
  page.className = "btn btn-s";
  page.textContent = "Select this page";
  page.addEventListener("click", () => {
    for (const one of boxes()) { one.checked = true; marked.add(one.value); }
    tell();
  });
  form.querySelector(".push").prepend(page, clear);
  document.addEventListener("click", (event) => {
    const one = event.target;
    if (!one.matches || !one.matches('table.pick input[name="id"]')) return;
    const there = boxes();
    const [from, to] = [there.indexOf(last), there.indexOf(one)].sort((a, b) => a - b);
    if (event.shiftKey && from >= 0) for (const between of there.slice(from, to + 1)) between.checked = one.checked;
    last = one;
    for (const found of there) if (found.checked) marked.add(found.value); else marked.delete(found.value);
    tell();
  });
  if (all) all.addEventListener("change", tell);
  const again = () => { for (const one of boxes()) if (marked.has(one.value)) one.checked = true; };
  for (const table of document.querySelectorAll("table.pick")) new MutationObserver(again).observe(table, { childList: true, subtree: true });
  // A browser that goes back keeps marks by itself.
  for (const one of boxes()) if (one.checked) marked.add(one.value);
  tell();
})();
