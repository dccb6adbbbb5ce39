// Debian's Chromium at the far end of the veth pair.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { ORIGIN } from "./place.js";
import { probe } from "./probe.js";
import { BROWSERS } from "./programs.js";

const CHROMIUM_FLAGS = [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe",
  "--hide-scrollbars", "--window-size=1280,800",
];

/** A program that runs `path` inside the browser's namespace. */
function wrapper(folder, inside, path) {
  const file = join(folder, "browser");
  writeFileSync(file, `#!/bin/sh\nexec ${inside.join(" ")} ${path} "$@"\n`);
  chmodSync(file, 0o755);
  return file;
}

/** Starts Chromium. `open(path, options)` gives a page with the probe in it; `foreign` are requests that went elsewhere. */
export async function openChromium(place) {
  const folder = mkdtempSync(join(tmpdir(), "headwater-chromium-"));
  const executablePath = wrapper(folder, place.inside, BROWSERS.chromium);
  const browser = await chromium.launch({ executablePath, ignoreDefaultArgs: true, args: CHROMIUM_FLAGS });
  return dressed(browser, folder);
}

function dressed(browser, folder) {
  const foreign = [];
  return {
    foreign,
    async open(path, options = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 720 }, ...options });
      const page = await context.newPage();
      page.requested = [];
      page.problems = [];
      page.on("request", (request) => {
        const url = new URL(request.url());
        page.requested.push(`${request.method()} ${url.pathname}${url.search}`);
        if (url.origin !== ORIGIN && !["blob:", "data:"].includes(url.protocol)) foreign.push(request.url());
      });
      page.on("pageerror", (error) => page.problems.push(String(error)));
      await page.addInitScript(probe);
      await page.goto(`${ORIGIN}${path}`);
      return page;
    },
    async close() {
      await browser.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Waits until the player page says it is in `state`, over `transport` if given. */
export async function waitState(page, state, transport, timeout = 30_000) {
  const selector = `body[data-state="${state}"]${transport ? `[data-transport="${transport}"]` : ""}`;
  await page.waitForSelector(selector, { timeout, state: "attached" });
}

/** Waits until `more` further pictures were shown. */
export async function waitFrames(page, more, timeout = 30_000) {
  const begin = await page.evaluate(() => window.seen.frames);
  await page.waitForFunction((wanted) => window.seen.frames >= wanted, begin + more, { timeout });
}

/** Keeps a picture of the page where HEADWATER_SHOTS says, if it does. */
export async function shot(page, name) {
  if (process.env.HEADWATER_SHOTS) await page.screenshot({ path: join(process.env.HEADWATER_SHOTS, `${name}.png`) });
}

/** The middle one. */
export const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
