// The private dispatcher under test, and the browser that looks at it.
import { spawn, execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/** Waits until `look` gives something true; `what` says in words what was waited for. */
export async function until(what, look, ms = 60_000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    try {
      const found = await look();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    await new Promise((then) => setTimeout(then, 50));
  }
  throw new Error(`not within ${ms} ms: ${what}${last ? ` (${last.message})` : ""}`);
}

/** `dispatcher dev` on a folder of its own. */
export class House {
  static async open(program) {
    const house = new House();
    house.program = path.resolve(program);
    house.folder = await mkdtemp(path.join(tmpdir(), "dispatcher-browser-"));
    const ready = path.join(house.folder, "ready.json");
    house.readyFile = ready;
    house.log = "";
    house.child = spawn(house.program, [
      "dev", "--listen", "127.0.0.1:0", "--data", path.join(house.folder, "data"), "--ready-file", ready,
    ], { stdio: ["ignore", "pipe", "pipe"] });
    for (const pipe of [house.child.stdout, house.child.stderr]) {
      pipe.on("data", (text) => { house.log = (house.log + text).slice(-200_000); });
    }
    house.gone = new Promise((then) => house.child.once("exit", then));
    try {
      house.ready = await until("the dispatcher is ready", async () => {
        if (house.child.exitCode !== null) throw new Error(`it ended: ${house.log}`);
        return JSON.parse(await readFile(ready, "utf8"));
      });
    } catch (error) {
      await house.close();
      throw error;
    }
    return house;
  }

  /** `dispatcher jobs …` as JSON. */
  async jobs(...args) {
    const flags = ["--ready-file", this.readyFile, "--json"];
    const { stdout } = await run(this.program, ["jobs", args[0], ...flags, ...args.slice(1)]);
    return stdout;
  }

  /** Submits a job with the command line; gives the number of the job. */
  async submit(kind, ...args) {
    const flags = ["--ready-file", this.readyFile, "--json"];
    const { stdout } = await run(this.program, ["jobs", "submit", kind, ...flags, ...args]);
    return JSON.parse(stdout).id;
  }

  launch(name) {
    const where = ["--region", "Simulated East", "--data-center", "2000", "--product", "m1.small"];
    return this.submit("launch", ...where, "--image", "Debian 64 bit", "--", name);
  }

  /** Ends it as an operator would, by its own number only; then its folder goes. */
  async close() {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill("SIGINT");
      const late = setTimeout(() => this.child.kill("SIGKILL"), 20_000);
      await this.gone;
      clearTimeout(late);
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A browser with an empty profile, and everything that went wrong on any of its pages. */
export class Eyes {
  static async open(work, chromium, profile) {
    const eyes = new Eyes();
    const require = createRequire(path.join(work, "package.json"));
    eyes.axe = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");
    eyes.wrong = [];
    // What a step provokes on purpose, while it does.
    eyes.expected = null;
    eyes.work = work;
    eyes.context = await require("playwright-core").chromium.launchPersistentContext(profile, {
      executablePath: chromium, headless: true, args: FLAGS, viewport: { width: 1280, height: 900 },
    });
    await eyes.watch(eyes.context);
    eyes.browser = eyes.context.browser();
    return eyes;
  }

  /** Every message of error, exception, dialog, failed request and breach of the policy is written down. */
  async watch(context) {
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => {
        console.error(`policy: ${event.violatedDirective} blocked ${event.blockedURI} ${event.sample}`);
      });
    });
    context.on("page", (page) => this.watchPage(page));
    context.pages().forEach((page) => this.watchPage(page));
  }

  watchPage(page) {
    const note = (text) => {
      if (this.expected?.test(text)) return;
      this.wrong.push(`${new URL(page.url() || "about:blank").pathname}: ${text}`);
    };
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) note(`console ${message.type()}: ${message.text()}`);
    });
    page.on("pageerror", (error) => note(`page error: ${error.stack}`));
    page.on("dialog", (dialog) => { note(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("requestfailed", (request) => {
      const why = request.failure()?.errorText;
      if (why !== "net::ERR_ABORTED") note(`request failed: ${request.url()} ${why}`);
    });
    page.on("response", (answer) => {
      if (answer.status() >= 400) note(`status ${answer.status()}: ${answer.url()}`);
    });
  }

  /** Pictures in both themes and two widths; a page that is wider than its window is a fault. */
  async pictures(page, name) {
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [1280, 360]) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: 900 });
        await page.evaluate(() => window.scrollTo(0, 0));
        const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        if (over > 0) this.wrong.push(`${name}: ${over} px wider than a window of ${width} px`);
        await page.screenshot({
          path: path.join(this.work, `${name}-${colorScheme}-${width}.png`), fullPage: true, animations: "disabled",
        });
      }
    }
    await page.emulateMedia({ colorScheme: null });
    await page.setViewportSize({ width: 1280, height: 900 });
  }

  /** No serious finding of the accessibility rules. */
  async accessible(page, name) {
    const found = await page.evaluate(async (source) => {
      // The page's policy forbids injected script elements; evaluating in the debugger's world is allowed.
      if (!window.axe) (0, eval)(source);
      const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
      return violations.filter((v) => ["serious", "critical"].includes(v.impact))
        .map((v) => `${v.id}: ${v.help} at ${v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join(", ")}`);
    }, this.axe).catch((error) => [`axe could not run: ${error.message}`]);
    this.wrong.push(...found.map((text) => `${name}: ${text}`));
  }

  async close() {
    await this.context.close();
  }
}
