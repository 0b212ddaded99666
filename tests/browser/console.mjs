// What a person sees of a job, in a real browser: node console.mjs PROGRAM WORK-FOLDER CHROMIUM
import assert from "node:assert/strict";
import path from "node:path";
import { Eyes, House, until } from "./house.mjs";

const [program, work, chromium] = process.argv.slice(2);
const HOSTILE = "<img src=x onerror=\"alert(1)\"><script>alert(2)</script>'&amp;";
let step = "";
const begin = (text) => { step = text; console.log(`- ${text}`); };

async function logIn(page, house) {
  begin("the door sends a visitor to the login form and back");
  await page.goto(house.ready.consoleUrl);
  assert.match(page.url(), /\/login\?next=\//);
  await page.fill("#login", house.ready.consoleUser);
  await page.fill("#password", house.ready.consolePassword);
  await page.press("#password", "Enter");
  await page.waitForURL((url) => url.pathname === "/");
  await until("the page is live", async () => (await page.textContent("#live-word")) === "Live");
}

/** Marks the page, so that a reload shows. */
const mark = (page) => page.evaluate(() => { window.never = "reloaded"; });
const unmoved = async (page) => assert.equal(await page.evaluate(() => window.never), "reloaded", "the page was loaded anew");

/** Fails when the page has not this text after a while; what is there is told. */
async function says(page, selector, pattern, ms = 60_000) {
  let text = "";
  await until(`${selector} says ${pattern}`, async () => pattern.test(text = await page.innerText(selector)), ms)
    .catch((error) => { throw new Error(`${error.message}; it says: ${text.slice(0, 600)}`); });
}

async function launchIsSeen(page, house) {
  begin("a launch from outside comes in and its timeline reaches the end, without a reload");
  await mark(page);
  const job = await house.launch("web-1");
  const row = page.locator(`tbody[data-job="${job}"]`);
  await row.waitFor({ state: "visible", timeout: 15_000 });
  const story = row.locator("details[data-timeline]");
  if (!(await story.evaluate((details) => details.open))) await story.locator("summary").click();
  for (const text of ["credential leased", "verdict", "complete"]) {
    await until(`the timeline says "${text}"`, async () => (await story.innerText()).includes(text));
  }
  await until("the row is complete", async () => (await row.getAttribute("data-state")) === "complete");
  await page.mouse.move(5, 5);
  await says(page, "#figures", /1 jobs|p95 \d/);
  await unmoved(page);
  return job;
}

async function overviewTells(page) {
  begin("the overview has its figures, and says what it does not know");
  for (const text of [/Oldest waiting job/, /Submit to claimed/, /Last recovery/, /Jobs taken over/, /not known/]) {
    await says(page, "#figures", text);
  }
  await says(page, "#need", /Nothing waits for a person/);
  await says(page, "#nodes", /up/);
}

async function badLaunch(eyes, page, house) {
  begin("a launch that is wrong says so at its field and keeps what was typed");
  await page.goto(`${house.ready.consoleUrl}servers`);
  await page.click("a:has-text('Launch a server')");
  await page.waitForURL("**/jobs/new/launch");
  await eyes.pictures(page, "launch");
  await eyes.accessible(page, "launch");
  const region = await page.locator("#region option").last().getAttribute("value");
  const before = await page.locator("#dataCenter").innerText();
  await page.fill("#description", HOSTILE);
  await page.selectOption("#region", region);
  await until("the choices are those of the other region", async () => (await page.locator("#dataCenter").innerText()) !== before);
  assert.equal(await page.inputValue("#description"), HOSTILE);
  eyes.expected = /status (of )?400/;
  await page.fill("#userData", "#!/bin/sh\necho first boot");
  await page.click("button:has-text('Launch 1 server')");
  await says(page, "main", /1 field needs another look/);
  assert.equal(await page.getAttribute("#name", "aria-invalid"), "true");
  assert.match(await page.innerText("#name-hint"), /missing or empty/);
  assert.equal(await page.inputValue("#description"), HOSTILE);
  assert.match(await page.inputValue("#userData"), /echo first boot/);
  assert.equal(await page.inputValue("#region"), region);
  await eyes.pictures(page, "launch-bad");
  await eyes.accessible(page, "launch-bad");
  eyes.expected = null;
}

async function launchByForm(eyes, page) {
  begin("a launch from the form: one job, and its page reaches the end without a reload");
  await page.fill("#name", "by-form");
  // Two clicks in one go are one request.
  await page.evaluate(() => { const b = [...document.querySelectorAll("button")].find((x) => x.textContent.includes("Launch 1 server")); b.click(); b.click(); });
  await page.waitForURL(/\/jobs\/\d+$/);
  await mark(page);
  const job = Number(new URL(page.url()).pathname.split("/").pop());
  await says(page, "#events", /credential leased/);
  await says(page, "#time", /create/);
  await until("complete", async () => (await page.locator("#job .big .st").getAttribute("data-state")) === "complete");
  await says(page, "#evidence", /RUNNING/);
  await says(page, "#time", /seen/);
  assert.ok(await page.locator("#time svg rect").count() > 5, "no bars");
  assert.ok(await page.locator('[data-act="retry"]').isVisible(), "an ended job cannot be retried");
  assert.ok(!(await page.locator('[data-act="cancel"]').isVisible()), "an ended job can be cancelled");
  assert.match(await page.innerText("#same"), /dispatcher jobs submit launch .*by-form/);
  await unmoved(page);
  await eyes.pictures(page, "job-launch");
  await page.click("summary:has-text('Retry')");
  await page.locator('[data-act="retry"] button').waitFor({ state: "visible" });
  await eyes.accessible(page, "job-retry");
  return job;
}

async function rawJson(page) {
  begin("the raw JSON of a page is that of the API");
  const answer = await page.request.get(`${page.url()}.json`);
  assert.equal(answer.status(), 200);
  assert.match(answer.url(), /\/api\/v1\/jobs\/\d+$/);
  const job = await answer.json();
  assert.equal(job.state, "complete");
}

async function jobPage(page, house, job) {
  begin("the page of a job has its answer first, its timeline and its evidence");
  await page.goto(`${house.ready.consoleUrl}jobs/${job}`);
  assert.match(await page.textContent("h1"), /Launch server web-1/);
  assert.match(await page.innerText("#events"), /credential leased[\s\S]*complete/);
  assert.match(await page.innerText("#evidence"), /RUNNING/);
}

/** Waits until the guest of a server is connected; its page is open then. */
async function agentOf(page, house, server) {
  await page.goto(`${house.ready.consoleUrl}servers/${server}`);
  await until("the guest has joined", async () => {
    await page.reload();
    return await page.locator("a:has-text('Run a command')").count() === 1;
  });
  await page.click("a:has-text('Run a command')");
  await page.waitForURL(/\/agents\/\d+#run$/);
  await says(page, "#now-or-later", /connected now/);
}

async function commandByForm(eyes, page, house, server) {
  begin("a command from the agent's page: its output comes in there while it runs");
  await agentOf(page, house, server);
  await says(page, "#witnesses", /Session\s+yes[\s\S]*Cloud\s+yes[\s\S]*Neighbours\s+not asked/i);
  await says(page, "#identity", /SHA256:[0-9a-f]{8}…/);
  eyes.expected = /status (of )?400/;
  await page.fill("#argv", "/bin/echo 'not closed");
  await page.click("button:has-text('Run 1 command')");
  await says(page, "#run", /quote in the command is not closed/);
  assert.equal(await page.inputValue("#argv"), "/bin/echo 'not closed");
  eyes.expected = null;
  const script = "i=1; while [ $i -le 12 ]; do echo line $i '<b>'; sleep 0.5; i=$((i+1)); done; printf \"\\033[31mred\"";
  await page.fill("#argv", `/bin/sh -c '${script.replaceAll("'", "\"")}'`);
  await page.click("button:has-text('Run 1 command')");
  await page.waitForURL(/\/agents\/\d+\?job=\d+#output$/);
  await mark(page);
  const out = page.locator("pre[data-output*='stdout']");
  await until("the first lines", async () => (await out.innerText()).includes("line 2"));
  assert.ok(!(await out.innerText()).includes("line 12"), "the output came all at once, at the end");
  await says(page, "#queue", /sent/);
  await eyes.pictures(page, "agent-running");
  await until("the last line", async () => (await out.innerText()).includes("line 12 <b>"));
  await until("complete", async () => (await page.locator("#job .big .st").getAttribute("data-state")) === "complete");
  await until("the escape is shown", async () => (await out.innerText()).includes("␛[31mred"));
  await says(page, "#queue", /No command waits/);
  await unmoved(page);
  await eyes.pictures(page, "agent");
  await eyes.accessible(page, "agent");
  return Number(new URL(page.url()).searchParams.get("job"));
}

async function outputStaysWhereItIsRead(page) {
  begin("output follows only while the reader is at its end");
  const script = "i=1; while [ $i -le 80 ]; do echo pad $i; i=$((i+1)); done; while [ $i -le 100 ]; do echo late $i; sleep 1; i=$((i+1)); done";
  await page.fill("#argv", `/bin/sh -c '${script}'`);
  await page.click("button:has-text('Run 1 command')");
  await page.waitForURL(/\?job=\d+#output$/);
  const out = page.locator("pre[data-output*='stdout']");
  await until("a first late line", async () => (await out.innerText()).includes("late"));
  const atEnd = () => out.evaluate((pre) => pre.scrollHeight - pre.scrollTop - pre.clientHeight < 24);
  await until("it follows", atEnd);
  await out.evaluate((pre) => { pre.scrollTop = 0; });
  const more = page.locator(".more-out");
  await more.waitFor({ state: "visible" });
  assert.match(await more.innerText(), /\d+ new lines?/);
  assert.equal(await out.evaluate((pre) => pre.scrollTop), 0);
  await more.click();
  await until("it is at its end again", atEnd);
}

async function movesAsk(eyes, page, house, server) {
  begin("a move that is not legal says why; one that destroys asks first");
  await page.goto(`${house.ready.consoleUrl}servers/${server}`);
  await says(page, "#moves", /Not start: it is running; only a stopped or paused server can be started/);
  await eyes.pictures(page, "server");
  await eyes.accessible(page, "server");
  await page.click("#moves a:has-text('Terminate')");
  await page.waitForURL(`**/servers/${server}/terminate`);
  await says(page, "main", /nobody can bring them back/);
  await eyes.pictures(page, "move");
  await eyes.accessible(page, "move");
  await page.click("a:has-text('Discard')");
  await page.waitForURL(`**/servers/${server}`);
}

async function taste(page, house) {
  begin("the theme is chosen, and the server remembers it; keys can be switched off");
  await page.goto(`${house.ready.consoleUrl}jobs`);
  const dark = () => page.evaluate(() => getComputedStyle(document.documentElement).colorScheme);
  await page.emulateMedia({ colorScheme: "light" });
  await page.selectOption("nav.side[aria-label='Main'] select[name='theme']", "dark");
  await page.click("nav.side[aria-label='Main'] button:has-text('Keep')");
  await until("the page is dark", async () => (await dark()) === "dark");
  assert.match(page.url(), /\/jobs$/);
  await page.goto(`${house.ready.consoleUrl}servers`);
  assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  await page.uncheck("nav.side[aria-label='Main'] input[name='keys']");
  await page.selectOption("nav.side[aria-label='Main'] select[name='theme']", "");
  await page.click("nav.side[aria-label='Main'] button:has-text('Keep')");
  await until("keys are off", async () => (await page.getAttribute("html", "data-keys")) === "off");
  assert.equal(await page.getAttribute("html", "data-theme"), null);
  await page.keyboard.press("/");
  assert.notEqual(await page.evaluate(() => document.activeElement.id), "jump");
  await page.check("nav.side[aria-label='Main'] input[name='keys']");
  await page.click("nav.side[aria-label='Main'] button:has-text('Keep')");
  await until("keys are on", async () => (await page.getAttribute("html", "data-keys")) === null);
  await page.emulateMedia({ colorScheme: null });
}

async function keys(eyes, page, house, job) {
  begin("keys go to places and rows, and never fire in a field");
  await page.goto(house.ready.consoleUrl);
  await page.keyboard.press("g");
  await page.keyboard.press("j");
  await page.waitForURL("**/jobs");
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("k");
  const first = await page.locator("tbody.job a[href]").first().getAttribute("href");
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("href")), first);
  await page.keyboard.press("Enter");
  await page.waitForURL(`**${first}`);
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "jump");
  await page.keyboard.type("?gj");
  assert.equal(await page.inputValue("#jump"), "?gj");
  assert.ok(!(await page.locator("#keys").isVisible()), "a key fired in a field");
  await page.fill("#jump", String(job));
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/jobs/${job}`);
  await page.keyboard.press("?");
  await page.locator("#keys").waitFor({ state: "visible" });
  await eyes.accessible(page, "keys");
  await page.keyboard.press("Escape");
  await page.goto(house.ready.consoleUrl);
  await until("live", async () => (await page.textContent("#live-word")) === "Live");
  await page.keyboard.press("p");
  await says(page, "#live", /Paused since/);
  await page.keyboard.press("p");
  await until("live again", async () => (await page.textContent("#live-word")) === "Live");
}

async function hostileStaysText(page, house) {
  begin("hostile names are shown as text, in new rows and on their page");
  await page.goto(house.ready.consoleUrl);
  await until("live", async () => (await page.textContent("#live-word")) === "Live");
  const job = await house.launch(HOSTILE);
  const row = page.locator(`tbody[data-job="${job}"]`);
  await row.waitFor({ state: "visible", timeout: 15_000 });
  assert.ok((await row.innerText()).includes(HOSTILE), await row.innerText());
  await until("the launch ended", async () => (await row.getAttribute("data-state")) === "complete");
  await page.goto(`${house.ready.consoleUrl}jobs/${job}`);
  assert.ok((await page.textContent("h1")).includes(HOSTILE));
  assert.equal(await page.locator("main img, main script, main iframe").count(), 0);
}

async function newRowsWait(page, house) {
  begin("on the list of jobs new rows wait until somebody asks, and then come in place");
  await page.goto(`${house.ready.consoleUrl}jobs`);
  await until("live", async () => (await page.textContent("#live-word")) === "Live");
  await mark(page);
  const before = await page.locator("#jobs tbody").count();
  const job = await house.submit("noop");
  await page.locator("#news a").waitFor({ state: "visible" });
  assert.equal(await page.locator("#jobs tbody").count(), before);
  await page.click("#news a");
  await page.locator(`tbody[data-job="${job}"]`).waitFor({ state: "visible" });
  await unmoved(page);
}

async function jobsAreFoundAndPlanned(eyes, page, house) {
  begin("the query box completes, what is marked becomes a plan, and the plan is carried out");
  await page.goto(`${house.ready.consoleUrl}jobs`);
  await page.fill("#q", "ki");
  await page.locator("#q-options [role=option]").first().waitFor({ state: "visible" });
  await eyes.accessible(page, "query");
  await page.press("#q", "Tab");
  assert.equal(await page.inputValue("#q"), "kind:");
  await page.keyboard.type("noo");
  await until("the word is offered", async () => (await page.textContent("#q-options")) === "noop");
  await page.press("#q", "ArrowDown");
  await page.press("#q", "Enter");
  assert.equal(await page.inputValue("#q"), "kind:noop");
  await page.press("#q", "Escape");
  await page.press("#q", "Enter");
  await page.waitForURL(/q=kind/);
  const box = page.locator("#jobs input[name=id]").first();
  const id = await box.getAttribute("value");
  await box.check();
  assert.equal(await page.textContent("#picked"), "1 selected");
  await page.click("button:has-text('Cancel…')");
  await page.waitForURL("**/plans/*");
  assert.match(await page.innerText("main"), new RegExp(`${id}[\\s\\S]*skipped: has ended`));
  await eyes.pictures(page, "plan");
  await eyes.accessible(page, "plan");
  await page.goto(`${house.ready.consoleUrl}jobs?q=stat:failed`);
  assert.match(await page.innerText("[role=alert]"), /did you mean state\?/);
  assert.equal(await page.inputValue("#q"), "stat:failed");
  await page.goto(`${house.ready.consoleUrl}actors?kind=registry`);
  await page.click("section[aria-label='Actor list'] a.mono");
  await page.waitForURL("**/actors/registry/*");
  await until("live", async () => (await page.textContent("#live-word")) === "Live");
  await eyes.pictures(page, "actor");
  await eyes.accessible(page, "actor");
}

async function nothingJumps(page, house) {
  begin("on the overview rows wait while the pointer is in the list, and what is read stays where it is");
  await page.goto(house.ready.consoleUrl);
  await until("live", async () => (await page.textContent("#live-word")) === "Live");
  const first = page.locator("#jobs tbody").first();
  await first.hover();
  const before = await first.boundingBox();
  const job = await house.submit("noop");
  await page.locator("#news a").waitFor({ state: "visible" });
  assert.deepEqual(await first.boundingBox(), before);
  assert.equal(await page.locator(`tbody[data-job="${job}"]`).count(), 0);
  await page.mouse.move(5, 5);
  await page.click("#news a");
  await page.locator(`tbody[data-job="${job}"]`).waitFor({ state: "visible" });
}

async function fleet(eyes, page, house) {
  begin("servers, agents and actors: lists that stay fresh");
  await page.goto(`${house.ready.consoleUrl}actors`);
  await mark(page);
  await until("live", async () => (await page.textContent("#live-word")) === "Live");
  assert.match(await page.textContent("#lead"), /^All actors run\./);
  assert.ok(await page.locator("table[data-refresh] tr[data-key]").count() > 4);
  await eyes.pictures(page, "actors");
  await eyes.accessible(page, "actors");
  await page.goto(`${house.ready.consoleUrl}agents`);
  assert.match(await page.innerText("main"), /accepted[\s\S]*connected/);
  await eyes.pictures(page, "agents");
  await eyes.accessible(page, "agents");
  await page.goto(`${house.ready.consoleUrl}servers`);
  assert.ok((await page.innerText("main")).includes(HOSTILE));
  await eyes.pictures(page, "servers");
  await eyes.accessible(page, "servers");
  await page.goto(`${house.ready.consoleUrl}jobs/new`);
  await eyes.pictures(page, "new");
  await eyes.accessible(page, "new");
  await page.click("a:has-text('Choose a guest')");
  await says(page, "main", /on which guest/);
  await eyes.pictures(page, "guests");
}

async function withoutScript(eyes, house, job) {
  begin("it works without script");
  const page = await eyes.context.newPage();
  await page.route("**/*.js", (route) => route.fulfill({ contentType: "text/javascript", body: "" }));
  await page.goto(`${house.ready.consoleUrl}jobs`);
  await page.fill("#q", "kind:launch-server");
  await page.click("button:has-text('Search')");
  await page.waitForURL(/q=kind/);
  assert.ok(await page.locator("#jobs tbody").count() > 0);
  await page.fill("#jump", String(job));
  await page.press("#jump", "Enter");
  await page.waitForURL(`**/jobs/${job}`);
  assert.match(await page.innerText("#events"), /complete/);
  await page.goto(`${house.ready.consoleUrl}jobs/new/launch`);
  await page.fill("#name", "without-script");
  await page.click("button:has-text('Show what is there')");
  await page.click("button:has-text('Launch 1 server')");
  await page.waitForURL(/\/jobs\/\d+$/);
  assert.match(await page.textContent("h1"), /without-script/);
  await page.close();
}

async function everything(eyes, house) {
  const page = eyes.context.pages()[0] ?? await eyes.context.newPage();
  await logIn(page, house);
  await eyes.pictures(page, "empty");
  const job = await launchIsSeen(page, house);
  await overviewTells(page);
  await eyes.pictures(page, "overview");
  await eyes.accessible(page, "overview");
  await jobPage(page, house, job);
  await eyes.pictures(page, "job");
  await eyes.accessible(page, "job");
  await badLaunch(eyes, page, house);
  await launchByForm(eyes, page);
  await rawJson(page);
  const { server } = JSON.parse(await house.jobs("show", String(job)));
  const ran = await commandByForm(eyes, page, house, server);
  await outputStaysWhereItIsRead(page);
  await page.goto(`${house.ready.consoleUrl}jobs/${ran}`);
  await eyes.pictures(page, "run");
  await eyes.accessible(page, "run");
  await movesAsk(eyes, page, house, server);
  await hostileStaysText(page, house);
  await eyes.pictures(page, "hostile");
  await newRowsWait(page, house);
  await eyes.pictures(page, "jobs");
  await eyes.accessible(page, "jobs");
  await jobsAreFoundAndPlanned(eyes, page, house);
  await nothingJumps(page, house);
  await fleet(eyes, page, house);
  await taste(page, house);
  await keys(eyes, page, house, job);
  await withoutScript(eyes, house, ran);
}

const house = await House.open(program);
let eyes;
try {
  eyes = await Eyes.open(work, chromium, path.join(house.folder, "profile"));
  await everything(eyes, house);
  if (eyes.wrong.length) throw new Error(`the browser complained:\n  ${eyes.wrong.join("\n  ")}`);
  console.log(`tests/browser: all well; pictures are in ${work}`);
} catch (error) {
  console.error(`tests/browser: FAILED while "${step}":\n${error.stack}`);
  for (const text of eyes?.wrong ?? []) console.error(`  seen: ${text}`);
  const page = eyes?.context.pages().at(-1);
  await page?.screenshot({ path: path.join(work, "failed.png"), fullPage: true }).catch(() => {});
  console.error(`the end of its log:\n${house.log.split("\n").slice(-12).join("\n")}`);
  process.exitCode = 1;
} finally {
  await eyes?.close().catch(() => {});
  await house.close();
}
