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
  await until("the sentence counts it", async () => /1 has ended/.test(await page.textContent("#answer")));
  await unmoved(page);
  return job;
}

async function jobPage(page, house, job) {
  begin("the page of a job has its answer first, its timeline and its evidence");
  await page.click(`tbody[data-job="${job}"] a[href="/jobs/${job}"]`);
  await page.waitForURL(`**/jobs/${job}`);
  assert.match(await page.textContent("h1"), /Launch server web-1/);
  assert.match(await page.innerText("#time"), /credential leased[\s\S]*complete/);
  assert.match(await page.innerText("#evidence"), /RUNNING/);
}

async function outputIsLive(page, house, server) {
  begin("a command's output comes in while it runs");
  const script = "i=1; while [ $i -le 12 ]; do echo line $i; sleep 0.5; i=$((i+1)); done; printf '\\033[31mred'";
  const job = await house.submit("run", String(server), "--", "/bin/sh", "-c", script);
  await page.goto(`${house.ready.consoleUrl}jobs/${job}`);
  await mark(page);
  const out = page.locator("pre[data-output*='stdout']");
  await until("the first lines", async () => (await out.innerText()).includes("line 2"), 30_000);
  assert.ok(!(await out.innerText()).includes("line 12"), "the output came all at once, at the end");
  await until("the last line", async () => (await out.innerText()).includes("line 12"), 30_000);
  await until("complete", async () => (await page.locator("#job .big .st").getAttribute("data-state")) === "complete");
  await until("the escape is shown", async () => (await out.innerText()).includes("␛[31mred"));
  await unmoved(page);
  return job;
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

async function fleet(eyes, page, house, server) {
  begin("servers, agents and actors: lists that stay fresh, and a command from a form");
  await page.goto(`${house.ready.consoleUrl}actors`);
  await mark(page);
  await until("live", async () => (await page.textContent("#live-word")) === "Live");
  assert.match(await page.textContent("#lead"), /^All actors run\./);
  assert.ok(await page.locator("table[data-refresh] tr[data-key]").count() > 4);
  await eyes.pictures(page, "actors");
  await eyes.accessible(page, "actors");
  await page.goto(`${house.ready.consoleUrl}agents`);
  assert.match(await page.innerText("main"), /accepted/);
  await eyes.pictures(page, "agents");
  await page.goto(`${house.ready.consoleUrl}servers`);
  assert.ok((await page.innerText("main")).includes(HOSTILE));
  await eyes.pictures(page, "servers");
  await eyes.accessible(page, "servers");
  await page.click(`a[href="/servers/${server}"]`);
  await page.waitForURL(`**/servers/${server}`);
  await eyes.pictures(page, "server");
  await eyes.accessible(page, "server");
  await page.fill("#command", "/bin/echo 'from  the form' <b>");
  await page.press("#command", "Enter");
  await page.waitForURL("**/jobs/*");
  const out = page.locator("pre[data-output*='stdout']");
  await until("its output", async () => (await out.innerText()).includes("from  the form <b>"), 30_000);
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
  assert.match(await page.innerText("#time"), /complete/);
  await page.close();
}

async function everything(eyes, house) {
  const page = eyes.context.pages()[0] ?? await eyes.context.newPage();
  await logIn(page, house);
  await eyes.pictures(page, "empty");
  const job = await launchIsSeen(page, house);
  await eyes.pictures(page, "overview");
  await eyes.accessible(page, "overview");
  await jobPage(page, house, job);
  await eyes.pictures(page, "job");
  await eyes.accessible(page, "job");
  const servers = JSON.parse(await house.jobs("show", String(job)));
  const ran = await outputIsLive(page, house, servers.server);
  await eyes.pictures(page, "run");
  await eyes.accessible(page, "run");
  await hostileStaysText(page, house);
  await eyes.pictures(page, "hostile");
  await newRowsWait(page, house);
  await eyes.pictures(page, "jobs");
  await eyes.accessible(page, "jobs");
  await jobsAreFoundAndPlanned(eyes, page, house);
  await nothingJumps(page, house);
  await fleet(eyes, page, house, servers.server);
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
