// The node list of the dashboard, and the parts only the administrator sees, in Chromium, with a
// node run by its daemon. For a cluster of several nodes see cluster-hosts.test.js.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openChromium, screenshot } from "../lib/browser.js";
import { Publisher } from "../lib/node.js";
import { DaemonNode } from "../lib/daemon-node.js";
import { HTTPS_ORIGIN, ORIGIN, createNetwork } from "../lib/network.js";

let network, node, browser;

before(async () => {
  network = await createNetwork();
  node = new DaemonNode();
  // An earlier run under another id: its entry stays in the registry and counts as dead after 15
  // seconds.
  await node.start("i-0gone");
  await node.kill();
  await node.start("i-0here");
  browser = await openChromium(network, [ORIGIN, HTTPS_ORIGIN]);
});

after(async () => {
  await browser?.close();
  await node?.close();
  network?.close();
});

const row = (id) => `#nodes tr[data-node="${id}"]`;

test("a visitor sees live nodes but neither addresses nor buttons", async () => {
  const page = await browser.open("/");
  await page.waitForSelector(`${row("i-0here")} .state[data-state="ready"]`);
  await page.waitForSelector(`${row("i-0gone")} .state[data-state="dead"]`, { timeout: 30_000 });
  assert.ok((await page.textContent(row("i-0here"))).includes("this node"));
  assert.ok(!(await page.textContent("#nodes")).includes("10.99.0.1"), "an address is visible");
  assert.equal(await page.locator("#nodes button:visible").count(), 0);
  await screenshot(page, "nodes-visitor");
  const refused = await page.evaluate(() => fetch("/rest/v2/cluster/node/i-0gone", { method: "DELETE" }).then((r) => r.status));
  assert.equal(refused, 401);
  assert.deepEqual(page.scriptErrors, []);
});

test("over plain HTTP from another machine, a link to HTTPS takes the place of the login form", async () => {
  const page = await browser.open("/");
  await page.waitForSelector("#session:visible");
  await page.click("#session");
  await page.waitForSelector("#https[open]");
  assert.equal(await page.locator("#login").evaluate((dialog) => dialog.open), false);
  assert.equal(await page.getAttribute("#https-link", "href"), `${HTTPS_ORIGIN}/`);
  await screenshot(page, "login-plain");
  await page.click("#https-link");
  await page.waitForURL(`${HTTPS_ORIGIN}/`);
  await page.waitForSelector("#session:visible");
  await page.click("#session");
  await page.waitForSelector("#login[open]");
  await screenshot(page, "login-https");
  assert.deepEqual(page.scriptErrors, []);
});

test("the administrator logs in, sees addresses, removes a dead node, and logs out", async () => {
  const [page, visitor] = [await browser.open(HTTPS_ORIGIN), await browser.open("/")];
  await visitor.waitForSelector(row("i-0gone"));
  // With the keyboard only.
  await page.waitForSelector("#session:visible");
  await page.focus("#session");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#login[open]");
  await page.keyboard.type("not the password");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#login .problem").textContent.includes("wrong"));
  await screenshot(page, "login-wrong");
  await page.keyboard.type(node.password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#login:not([open])", { state: "attached" });
  assert.equal(await page.textContent("#session"), "Log out");
  await page.waitForFunction(() => document.querySelector("#nodes").textContent.includes("10.99.0.1"));
  assert.equal(await page.evaluate(() => document.cookie), "", "the session cookie is readable by scripts");
  assert.equal(await page.locator(`${row("i-0here")} button:visible`).count(), 0, "a live node can be removed");
  await screenshot(page, "nodes-administrator");
  await page.setViewportSize({ width: 360, height: 740 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "the page scrolls sideways on a phone");
  await page.locator("#cluster").scrollIntoViewIfNeeded();
  await screenshot(page, "nodes-phone");
  await page.locator(row("i-0gone")).scrollIntoViewIfNeeded();
  await screenshot(page, "nodes-phone-dead");
  await page.setViewportSize({ width: 1280, height: 720 });

  const remove = `${row("i-0gone")} button`;
  await page.click(remove);
  await page.waitForSelector("#remove[open]");
  await screenshot(page, "nodes-remove");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#remove:not([open])", { state: "attached" });
  assert.equal(await page.locator(row("i-0gone")).count(), 1, "the node was removed although the dialog was cancelled");
  await page.click(remove);
  await page.click("#remove .danger");
  await page.waitForSelector(row("i-0gone"), { state: "detached" });
  await visitor.waitForSelector(row("i-0gone"), { state: "detached" });

  // The session survives a reload and ends with a click.
  await page.reload();
  await page.waitForFunction(() => document.querySelector("#session").textContent === "Log out");
  await page.click("#session");
  await page.waitForFunction(() => document.querySelector("#session").textContent === "Log in");
  await page.waitForFunction(() => !document.querySelector("#nodes").textContent.includes("10.99.0.1"));
  for (const each of [page, visitor]) assert.deepEqual(each.scriptErrors, []);
  assert.deepEqual(browser.foreignRequests, []);
});

// A cluster on one machine (cluster-hosts.test.js) has no node groups, no known capacity, and nodes
// that are minutes old; its nodes are not ready only for moments. So this node list is invented.
test("a node shows its group, its capacity, its days of service, and that it is not ready", async () => {
  const page = await browser.open("/");
  await page.waitForSelector(row("i-0here"));
  const real = await (await page.request.get(`${new URL(page.url()).origin}/rest/v2/cluster/nodes/0/50`)).json();
  const edge = {
    ...real[0], id: "i-0edge", answering: false, inTheCluster: true, ready: false, draining: false, role: "edge", group: "east",
    egressBps: 3_000_000, egressCapacityBps: 10_000_000, image: "ami-0abc", instanceType: "c7g.large", ageMs: 51 * 3_600_000,
  };
  await page.route("**/rest/v2/cluster/nodes/**", (route) => route.fulfill({ json: [...real, edge], headers: { age: "0" } }));
  const cell = (label) => page.locator(`${row("i-0edge")} td[data-label="${label}"]`);
  await cell("Node").waitFor();
  assert.equal(await cell("State").locator(".state").textContent(), "not ready");
  for (const [label, text] of Object.entries({ Role: "edge, east", Sends: "3.0 Mbit/s", Image: "ami-0abc", Up: "2 d 3 h" })) {
    assert.equal(await cell(label).textContent(), text);
  }
  assert.equal(await cell("Sends").getAttribute("title"), "of 10.0 Mbit/s");
  assert.equal(await cell("Image").getAttribute("title"), "ami-0abc, c7g.large");
  assert.deepEqual(page.scriptErrors, []);
});

test("a node without a cluster shows nothing of one, and cannot be drained", async () => {
  const publisher = new Publisher("demo");
  publisher.run();
  const page = await browser.open(HTTPS_ORIGIN);
  await page.waitForSelector('[data-stream="live/demo"]');
  for (const label of ["Origin", "Viewers by node"]) {
    assert.ok(await page.locator(`[data-stream="live/demo"] div:has(> dt:text-is("${label}"))`).isHidden(), `${label} is shown by a standalone node`);
  }
  await page.click("#session");
  await page.fill("#login [type=password]", node.password);
  await page.click("#login [type=submit]");
  await page.waitForFunction(() => document.querySelector("#nodes").textContent.includes("10.99.0.1"));
  // It has no other node that could take over its streams.
  assert.equal(await page.locator(`${row("i-0here")} button:visible`).count(), 0);
  const refused = await page.evaluate((url) => fetch(url, { method: "POST" }).then((r) => r.status), "/rest/v2/cluster/node/i-0here/drain");
  assert.equal(refused, 409);
  await publisher.close();
  assert.deepEqual(page.scriptErrors, []);
});
