// The apps on the dashboard in Chromium: policies, the publish key, and links for viewers.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { logIn } from "../lib/administrator.js";
import { openChromium, screenshot, waitFrames, waitState } from "../lib/browser.js";
import { DaemonNode } from "../lib/daemon-node.js";
import { HTTPS_ORIGIN, ORIGIN, createNetwork } from "../lib/network.js";
import { Publisher } from "../lib/node.js";

let network, node, browser;

before(async () => {
  network = await createNetwork();
  node = new DaemonNode();
  await node.start("i-0here");
  browser = await openChromium(network, [ORIGIN, HTTPS_ORIGIN]);
});

after(async () => {
  await browser?.close();
  await node?.close();
  network?.close();
});

const card = '#apps [data-app="live"]';

async function openLoggedIn() {
  const page = await browser.open(HTTPS_ORIGIN);
  await logIn(page, node.password);
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

test("the administrator sees each app with its policies", async () => {
  const page = await openLoggedIn();
  assert.deepEqual(await page.locator("#apps h3").allTextContents(), ["LiveApp", "live"]);
  for (const action of ["publish", "play"]) assert.equal(await page.inputValue(`${card} select[name=${action}]`), "open");
  await screenshot(page, "dashboard-apps-open");
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

/** Makes a link for viewers of `live/ID` with the dashboard, and returns its URL. */
async function makeLink(page, id) {
  await page.click(`${card} button:text-is("Link for viewers")`);
  await page.fill("#link [name=stream]", id);
  await screenshot(page, "dashboard-link");
  await page.click("#link [type=submit]");
  await page.waitForSelector("#link:not([open])", { state: "attached" });
  return page.locator(`${card} a:text-is("Open")`).getAttribute("href");
}

test("a link for viewers has a token of the kind that the policy asks for, and plays", async () => {
  const page = await openLoggedIn();
  await page.selectOption(`${card} select[name=publish]`, "key");
  await inForce(page, "publish", "key");
  const query = `?key=${(await settings(page)).publish_key}`;
  const publisher = await new Publisher("show-1", { query }).start(node);
  for (const [policy, kind] of [["one_time_token", "one_time"], ["jwt", "jwt"]]) {
    await page.selectOption(`${card} select[name=play]`, policy);
    await inForce(page, "play", policy);
    const link = await makeLink(page, "show-1");
    const { origin, pathname, searchParams } = new URL(link);
    assert.equal(`${origin}${pathname}?id=${searchParams.get("id")}`, `${HTTPS_ORIGIN}/live/play.html?id=show-1`);
    assert.equal(searchParams.get("token").split(".").length, kind === "jwt" ? 3 : 1);
    const tokens = await page.evaluate(() => fetch("/rest/v2/apps/live/tokens/0/10").then((r) => r.json()));
    assert.deepEqual([tokens[0].kind, tokens[0].stream, tokens[0].type], [kind, "show-1", "play"]);
    await screenshot(page, `dashboard-link-${kind}`);
    const [viewer, second] = [await browser.open(link), await browser.open(`${HTTPS_ORIGIN}/live/play.html?id=show-1`)];
    await waitState(viewer, "live");
    await waitFrames(viewer, 25);
    await waitState(second, "refused");
    await second.goto(link);
    await waitState(second, kind === "jwt" ? "live" : "refused");
    for (const each of [viewer, second]) await each.context().close();
  }
  await publisher.close();
  assert.deepEqual(page.scriptErrors, []);
});

test("a change that another administrator has overtaken shows the current settings", async () => {
  const page = await openLoggedIn();
  const answer = page.waitForResponse((response) => response.request().method() === "PUT");
  let isOvertaken = false;
  // Between the page's last request and its change.
  await page.route("**/rest/v2/apps/live", async (route) => {
    if (route.request().method() === "PUT" && !isOvertaken) {
      isOvertaken = true;
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
