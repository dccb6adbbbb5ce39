// Debian's Chromium, at the far end of the veth pair or on the machine of a cluster.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { ORIGIN } from "./network.js";
import { probe } from "./probe.js";
import { BROWSERS } from "./programs.js";

const CHROMIUM_FLAGS = [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe",
  "--hide-scrollbars", "--window-size=1280,800",
];

/** Writes a script that runs `path` in the browser's namespace, and returns its path. */
function writeWrapper(folder, namespacePrefix, path) {
  const file = join(folder, "browser");
  writeFileSync(file, `#!/bin/sh\nexec ${namespacePrefix.join(" ")} ${path} "$@"\n`);
  chmodSync(file, 0o755);
  return file;
}

/**
 * Starts Chromium in the namespace of `network`. `open(path, options)` returns a page with the
 * probe installed; a path is relative to the first of `origins`. Self-signed certificates are
 * accepted. `foreignRequests` lists requests to origins other than these. A page has `requestLog`,
 * `responseLog` and `scriptErrors`.
 */
export async function openChromium(network, origins = [ORIGIN]) {
  const folder = mkdtempSync(join(tmpdir(), "headwater-chromium-"));
  const executablePath = writeWrapper(folder, network.namespacePrefix, BROWSERS.chromium);
  const browser = await chromium.launch({ executablePath, ignoreDefaultArgs: true, args: CHROMIUM_FLAGS });
  return instrument(browser, folder, origins);
}

function instrument(browser, folder, origins) {
  const foreignRequests = [];
  return {
    foreignRequests,
    async open(path, options = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 720 }, ignoreHTTPSErrors: true, ...options });
      const page = await context.newPage();
      page.requestLog = [];
      page.responseLog = [];
      page.scriptErrors = [];
      page.on("request", (request) => {
        const url = new URL(request.url());
        page.requestLog.push(`${request.method()} ${url.pathname}${url.search}`);
        if (!origins.includes(url.origin) && !["blob:", "data:"].includes(url.protocol)) foreignRequests.push(request.url());
      });
      page.on("response", (response) => page.responseLog.push({ url: new URL(response.url()), status: response.status(), headers: response.headers() }));
      page.on("pageerror", (error) => page.scriptErrors.push(String(error)));
      await page.addInitScript(probe);
      await page.goto(String(new URL(path, origins[0])));
      return page;
    },
    async close() {
      await browser.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Waits until the player page reports `state`, over `transport` if given. */
export async function waitState(page, state, transport, timeout = 30_000) {
  const selector = `body[data-state="${state}"]${transport ? `[data-transport="${transport}"]` : ""}`;
  await page.waitForSelector(selector, { timeout, state: "attached" });
}

/** Waits until `more` further frames have been shown. */
export async function waitFrames(page, more, timeout = 30_000) {
  const begin = await page.evaluate(() => window.probe.frames);
  await page.waitForFunction((wanted) => window.probe.frames >= wanted, begin + more, { timeout });
}

/** Saves a screenshot to the folder in HEADWATER_SHOTS, if it is set. */
export async function screenshot(page, name) {
  if (process.env.HEADWATER_SHOTS) await page.screenshot({ path: join(process.env.HEADWATER_SHOTS, `${name}.png`) });
}

/** The median of `values`. */
export const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
