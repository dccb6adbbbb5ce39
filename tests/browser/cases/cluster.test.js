// The node list of the dashboard, and the parts only the administrator sees, in Chromium, with a
// node run by its daemon.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openChromium, screenshot, waitState } from "../lib/browser.js";
import { Publisher, waitFor } from "../lib/node.js";
import { DaemonNode } from "../lib/daemon-node.js";
import { createNetwork } from "../lib/network.js";

let network, node, browser;

before(async () => {
  network = await createNetwork();
  node = new DaemonNode();
  // An earlier run under another id: its entry stays in the registry and counts as dead after 15
  // seconds.
  await node.start("i-0gone");
  await node.kill();
  await node.start("i-0here");
  browser = await openChromium(network);
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

test("the administrator logs in, sees addresses, removes a dead node, and logs out", async () => {
  const [page, visitor] = [await browser.open("/"), await browser.open("/")];
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

test("each property of a node has a column, and the administrator drains a node", async () => {
  const page = await browser.open("/");
  await page.waitForSelector(row("i-0here"));
  const real = await (await page.request.get(`${new URL(page.url()).origin}/rest/v2/cluster/nodes/0/50`)).json();
  const edge = {
    ...real[0], id: "i-0edge", answering: false, inTheCluster: true, ready: true, draining: false, role: "edge", group: "east",
    zone: "eu-central-1a", cpu: "37%", streams: 2, viewers: 1234, egressBps: 3_000_000, egressCapacityBps: 10_000_000, version: "9.8.7",
    image: "ami-0abc", instanceType: "c7g.large", ageMs: 3 * 3_600_000,
  };
  await page.route("**/rest/v2/cluster/nodes/**", (route) => route.fulfill({ json: [...real, edge], headers: { age: "0" } }));
  const requests = [];
  await page.route("**/rest/v2/cluster/node/*/drain", (route) => {
    requests.push(`${route.request().method()} ${new URL(route.request().url()).pathname}`);
    edge.drainAsked = true;
    return route.fulfill({ json: { success: true } });
  });
  await page.waitForSelector(`${row("i-0edge")} .state[data-state="ready"]`);
  const cells = await page.locator(`${row("i-0edge")} td`).evaluateAll((all) => Object.fromEntries(all.map((td) => [td.dataset.label, td.textContent])));
  const expected = { Role: "edge, east", Zone: "eu-central-1a", CPU: "37%", Streams: "2", Viewers: "1234", Version: "9.8.7", Image: "ami-0abc", Up: "3 h" };
  for (const [label, text] of Object.entries(expected)) assert.ok(cells[label]?.startsWith(text), `${label}: ${JSON.stringify(cells)}`);

  const drain = page.locator(`${row("i-0edge")} button`, { hasText: "Drain" });
  assert.ok(await drain.isHidden(), "a visitor sees the button");
  await page.click("#session");
  await page.fill("#login [type=password]", node.password);
  await page.click("#login [type=submit]");
  await drain.click();
  await page.waitForSelector("#drain[open]");
  assert.ok((await page.textContent("#drain .hint")).includes("i-0edge"));
  await screenshot(page, "nodes-drain");
  assert.deepEqual(requests, []);
  await page.click("#drain .danger");
  await page.waitForSelector(`${row("i-0edge")} .state[data-state="draining"]`);
  assert.ok(await drain.isHidden(), "the button is still visible");
  assert.deepEqual(requests, ["POST /rest/v2/cluster/node/i-0edge/drain"]);
  // A node that is alone has no other node that could take over its streams.
  assert.equal(await page.locator(`${row("i-0here")} button:visible`).count(), 0);
  const refused = await page.evaluate((url) => fetch(url, { method: "POST" }).then((r) => r.status), "/rest/v2/cluster/node/i-0here/drain?real");
  assert.equal(refused, 409);
  await page.click("#session");
  await page.waitForFunction(() => document.querySelector("#session").textContent === "Log in");
  assert.deepEqual(page.scriptErrors, []);
});

test("a stale node disappears, and an unreachable registry is reported with the data's age", async () => {
  const page = await browser.open("/");
  await page.waitForSelector(row("i-0here"));
  const real = await (await page.request.get(`${new URL(page.url()).origin}/rest/v2/cluster/nodes/0/50`)).json();
  const others = ["i-1", "i-2"].map((id, n) => ({ ...real[0], id, answering: false, inTheCluster: n === 0, silentMs: 40_000 * n, role: "edge", zone: "eu-central-1a" }));
  let answer = { nodes: [...real, ...others], age: "0" };
  await page.route("**/rest/v2/cluster/nodes/**", (route) => route.fulfill({ json: answer.nodes, headers: { age: answer.age } }));
  await page.waitForSelector(`${row("i-2")} .state[data-state="dead"]`);
  await screenshot(page, "nodes-several");
  answer = { nodes: [...real, others[0]], age: "30" };
  await page.waitForSelector(row("i-2"), { state: "detached" });
  await page.waitForFunction(() => document.querySelector("#nodes-notice").textContent.includes("30 s ago"));
  await screenshot(page, "nodes-away");
  answer = { nodes: real, age: "0" };
  await waitFor("the notice to disappear", () => page.locator("#nodes-notice").isHidden());
  assert.deepEqual(page.scriptErrors, []);
});

test("in a cluster, a stream shows its origin and its viewers by node", async () => {
  const publisher = new Publisher("demo");
  publisher.run();
  const page = await browser.open("/");
  const part = (stream, label) => page.locator(`[data-stream="${stream}"] div:has(> dt:text-is("${label}"))`);
  const waitForValue = (stream, label, text) =>
    waitFor(`${label} of ${stream} to be ${text}`, async () => (await part(stream, label).locator("dd").textContent()) === text);
  await page.waitForSelector('[data-stream="live/demo"]');
  for (const label of ["Origin", "Viewers by node"]) assert.ok(await part("live/demo", label).isHidden(), `${label} is shown by a standalone node`);

  // Another node appears. The values of this node are its real ones.
  const get = async (path) => (await page.request.get(`${new URL(page.url()).origin}${path}`)).json();
  const nodes = await get("/rest/v2/cluster/nodes/0/50");
  const edge = { ...nodes[0], id: "i-0edge", answering: false, inTheCluster: true, role: "edge" };
  await page.route("**/rest/v2/cluster/nodes/**", (route) => route.fulfill({ json: [...nodes, edge], headers: { age: "0" } }));
  await part("live/demo", "Origin").waitFor();
  await waitForValue("live/demo", "Origin", "i-0here");
  await waitForValue("live/demo", "Viewers by node", "–");
  const viewer = await browser.open("/live/play.html?id=demo");
  await waitState(viewer, "live");
  await waitForValue("live/demo", "Viewers by node", "i-0here: 1");
  await waitForValue("live/demo", "Viewers", "1");

  // Viewers on the other node, and a stream that is published there.
  const [demo] = await get("/rest/v2/cluster/streams/0/50");
  const several = { ...demo, viewers: 4, viewersByNode: [{ node: "i-0edge", viewers: 3 }, { node: "i-0here", viewers: 1 }] };
  const far = { ...demo, name: "live/far", origin: "i-0edge", viewers: 0, viewersByNode: [] };
  await page.route("**/rest/v2/cluster/streams/**", (route) => route.fulfill({ json: [several, far], headers: { age: "0" } }));
  await waitForValue("live/demo", "Viewers by node", "i-0edge: 3, i-0here: 1");
  await waitForValue("live/demo", "Viewers", "4");
  await waitForValue("live/demo", "Origin", "i-0here");
  await waitForValue("live/far", "Origin", "i-0edge");
  await waitForValue("live/far", "Viewers by node", "–");
  // This node does not carry the stream and has no video properties of it.
  assert.ok((await part("live/far", "Video").isHidden()) && (await part("live/demo", "Video").isVisible()));
  assert.equal(await page.textContent("#sum"), "2 streams, 4 viewers");
  await screenshot(page, "streams-several");
  await viewer.close();
  await publisher.close();
  assert.deepEqual(page.scriptErrors, []);
});
