// The apps on the dashboard in Chromium: policies, the publish key, and links for viewers.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openChromium, screenshot } from "../lib/browser.js";
import { DaemonNode } from "../lib/daemon-node.js";
import { createNetwork } from "../lib/network.js";

let network, node, browser;

before(async () => {
  network = await createNetwork();
  node = new DaemonNode();
  await node.start("i-0here");
  browser = await openChromium(network);
});

after(async () => {
  await browser?.close();
  await node?.close();
  network?.close();
});

const card = '#apps [data-app="live"]';

async function openLoggedIn() {
  const page = await browser.open("/");
  await page.waitForSelector("#session:visible");
  if ((await page.textContent("#session")) === "Log in") {
    await page.click("#session");
    await page.fill("#login [type=password]", node.password);
    await page.click("#login [type=submit]");
  }
  await page.waitForSelector(card);
  return page;
}

/** The settings that the server has. */
const settings = (page) => page.evaluate(() => fetch("/rest/v2/apps/live").then((r) => r.json()));

const inForce = (page, field, value) =>
  page.waitForFunction(([name, wanted]) => fetch("/rest/v2/apps/live").then((r) => r.json()).then((app) => app[name] === wanted), [field, value]);

test("only the administrator sees the apps", async () => {
  const page = await browser.open("/");
  await page.waitForSelector("#session:visible");
  assert.ok(await page.locator("#apps-section").isHidden());
  assert.equal(await page.locator(card).count(), 0);
  assert.deepEqual(page.scriptErrors, []);
});

test("the publish key is made, shown in the settings of OBS, and replaced", async () => {
  const page = await openLoggedIn();
  await page.selectOption(`${card} select[name=publish]`, "key");
  await inForce(page, "publish", "key");
  const first = (await settings(page)).publish_key;
  assert.match(first, /^[A-Za-z0-9_-]{32}$/);
  await page.waitForFunction((key) => document.querySelector("#publish-panel").textContent.includes(`demo?key=${key}`), first);
  assert.ok((await page.textContent(card)).includes(first));
  await screenshot(page, "dashboard-apps");
  await page.click(`${card} button:text-is("New publish key")`);
  await page.click("#rotate [type=submit]");
  await page.waitForSelector("#rotate:not([open])", { state: "attached" });
  const second = (await settings(page)).publish_key;
  assert.notEqual(second, first);
  await page.waitForFunction((key) => document.querySelector("#publish-panel").textContent.includes(`demo?key=${key}`), second);
  assert.ok(!(await page.textContent("body")).includes(first));
  assert.deepEqual(page.scriptErrors, []);
});

test("a link for viewers has a token of the kind that the policy asks for", async () => {
  const page = await openLoggedIn();
  for (const [policy, kind] of [["one_time_token", "one_time"], ["jwt", "jwt"]]) {
    await page.selectOption(`${card} select[name=play]`, policy);
    await inForce(page, "play", policy);
    await page.click(`${card} button:text-is("Link for viewers")`);
    await page.fill("#link [name=stream]", "show-1");
    await page.click("#link [type=submit]");
    await page.waitForSelector("#link:not([open])", { state: "attached" });
    const link = new URL(await page.locator(`${card} a:text-is("Open")`).getAttribute("href"));
    assert.equal(`${link.pathname}?id=${link.searchParams.get("id")}`, "/live/play.html?id=show-1");
    assert.equal(link.searchParams.get("token").split(".").length, kind === "jwt" ? 3 : 1);
    const tokens = await page.evaluate(() => fetch("/rest/v2/apps/live/tokens/0/10").then((r) => r.json()));
    assert.deepEqual([tokens[0].kind, tokens[0].stream, tokens[0].type], [kind, "show-1", "play"]);
  }
  assert.deepEqual(page.scriptErrors, []);
});

test("a change that another administrator has overtaken shows the current settings", async () => {
  const page = await openLoggedIn();
  const answer = page.waitForResponse((response) => response.request().method() === "PUT");
  // Between the page's last request and its change.
  await page.route("**/rest/v2/apps/live", async (route) => {
    if (route.request().method() === "PUT") {
      await page.unroute("**/rest/v2/apps/live");
      const url = new URL("/rest/v2/apps/live", page.url()).href;
      const current = await (await page.request.get(url)).json();
      const headers = { origin: new URL(page.url()).origin };
      assert.ok((await page.request.put(url, { data: { ...current, publish: "closed" }, headers })).ok());
    }
    await route.continue();
  });
  await page.selectOption(`${card} select[name=play]`, "closed");
  assert.equal((await answer).status(), 409);
  await page.waitForFunction(() => !document.querySelector("#apps-notice").hidden);
  assert.match(await page.textContent("#apps-notice"), /Somebody else/);
  assert.equal(await page.inputValue(`${card} select[name=publish]`), "closed");
  assert.equal(await page.inputValue(`${card} select[name=play]`), (await settings(page)).play);
  await page.setViewportSize({ width: 360, height: 740 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "the page scrolls sideways on a phone");
  assert.deepEqual(page.scriptErrors, []);
});
