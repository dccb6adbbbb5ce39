// The nodes on the dashboard, and what only the administrator sees: Chromium, and a node as its daemon runs it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openChromium, shot, waitState } from "../lib/browser.js";
import { Publisher, until } from "../lib/node.js";
import { WholeNode } from "../lib/whole-node.js";
import { place } from "../lib/place.js";

let net, node, browser;

before(async () => {
  net = await place();
  node = new WholeNode();
  // An earlier life under another name: its entry stays in the registry, and is dead 15 seconds later.
  await node.start("i-0gone");
  await node.kill();
  await node.start("i-0here");
  browser = await openChromium(net);
});

after(async () => {
  await browser?.close();
  await node?.close();
  net?.close();
});

const row = (id) => `#nodes tr[data-node="${id}"]`;

test("a stranger sees the nodes live, but neither an address nor a button", async () => {
  const page = await browser.open("/");
  await page.waitForSelector(`${row("i-0here")} .state[data-state="ready"]`);
  await page.waitForSelector(`${row("i-0gone")} .state[data-state="dead"]`, { timeout: 30_000 });
  assert.ok((await page.textContent(row("i-0here"))).includes("this node"));
  assert.ok(!(await page.textContent("#nodes")).includes("10.99.0.1"), "an address is shown");
  assert.equal(await page.locator("#nodes button:visible").count(), 0);
  await shot(page, "nodes-stranger");
  const refused = await page.evaluate(() => fetch("/rest/v2/cluster/node/i-0gone", { method: "DELETE" }).then((r) => r.status));
  assert.equal(refused, 401);
  assert.deepEqual(page.problems, []);
});

test("the administrator logs in, sees addresses, removes a dead node after a question, and logs out", async () => {
  const [page, stranger] = [await browser.open("/"), await browser.open("/")];
  await stranger.waitForSelector(row("i-0gone"));
  // By keyboard alone.
  await page.waitForSelector("#session:visible");
  await page.focus("#session");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#login[open]");
  await page.keyboard.type("not the password");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#login .problem").textContent.includes("wrong"));
  await shot(page, "login-wrong");
  await page.keyboard.type(node.password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#login:not([open])", { state: "attached" });
  assert.equal(await page.textContent("#session"), "Log out");
  await page.waitForFunction(() => document.querySelector("#nodes").textContent.includes("10.99.0.1"));
  assert.equal(await page.evaluate(() => document.cookie), "", "a script can read the session");
  assert.equal(await page.locator(`${row("i-0here")} button:visible`).count(), 0, "a living node can be removed");
  await shot(page, "nodes-administrator");
  await page.setViewportSize({ width: 360, height: 740 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "it scrolls sideways on a phone");
  await page.locator("#cluster").scrollIntoViewIfNeeded();
  await shot(page, "nodes-phone");
  await page.locator(row("i-0gone")).scrollIntoViewIfNeeded();
  await shot(page, "nodes-phone-dead");
  await page.setViewportSize({ width: 1280, height: 720 });

  const remove = `${row("i-0gone")} button`;
  await page.click(remove);
  await page.waitForSelector("#remove[open]");
  await shot(page, "nodes-remove");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#remove:not([open])", { state: "attached" });
  assert.equal(await page.locator(row("i-0gone")).count(), 1, "called off, and gone all the same");
  await page.click(remove);
  await page.click("#remove .danger");
  await page.waitForSelector(row("i-0gone"), { state: "detached" });
  await stranger.waitForSelector(row("i-0gone"), { state: "detached" });

  // The session outlives the page, and ends with a click.
  await page.reload();
  await page.waitForFunction(() => document.querySelector("#session").textContent === "Log out");
  await page.click("#session");
  await page.waitForFunction(() => document.querySelector("#session").textContent === "Log in");
  await page.waitForFunction(() => !document.querySelector("#nodes").textContent.includes("10.99.0.1"));
  for (const each of [page, stranger]) assert.deepEqual(each.problems, []);
  assert.deepEqual(browser.foreign, []);
});

test("what is known of a node has a column each, and the administrator asks one to drain after a question", async () => {
  const page = await browser.open("/");
  await page.waitForSelector(row("i-0here"));
  const real = await (await page.request.get(`${new URL(page.url()).origin}/rest/v2/cluster/nodes/0/50`)).json();
  const edge = {
    ...real[0], id: "i-0edge", answering: false, inTheCluster: true, ready: true, draining: false, role: "edge", group: "east",
    zone: "eu-central-1a", cpu: "37%", streams: 2, viewers: 1234, egressBps: 3_000_000, egressCapacityBps: 10_000_000, version: "9.8.7",
    image: "ami-0abc", instanceType: "c7g.large", ageMs: 3 * 3_600_000,
  };
  await page.route("**/rest/v2/cluster/nodes/**", (route) => route.fulfill({ json: [...real, edge], headers: { age: "0" } }));
  const asked = [];
  await page.route("**/rest/v2/cluster/node/*/drain", (route) => {
    asked.push(`${route.request().method()} ${new URL(route.request().url()).pathname}`);
    edge.drainAsked = true;
    return route.fulfill({ json: { success: true } });
  });
  await page.waitForSelector(`${row("i-0edge")} .state[data-state="ready"]`);
  const cells = await page.locator(`${row("i-0edge")} td`).evaluateAll((all) => Object.fromEntries(all.map((td) => [td.dataset.label, td.textContent])));
  const expected = { Role: "edge, east", Zone: "eu-central-1a", CPU: "37%", Streams: "2", Viewers: "1234", Version: "9.8.7", Image: "ami-0abc", Up: "3 h" };
  for (const [label, text] of Object.entries(expected)) assert.ok(cells[label]?.startsWith(text), `${label}: ${JSON.stringify(cells)}`);

  const drain = page.locator(`${row("i-0edge")} button`, { hasText: "Drain" });
  assert.ok(await drain.isHidden(), "a stranger sees the button");
  await page.click("#session");
  await page.fill("#login [type=password]", node.password);
  await page.click("#login [type=submit]");
  await drain.click();
  await page.waitForSelector("#drain[open]");
  assert.ok((await page.textContent("#drain .hint")).includes("i-0edge"));
  await shot(page, "nodes-drain");
  assert.deepEqual(asked, []);
  await page.click("#drain .danger");
  await page.waitForSelector(`${row("i-0edge")} .state[data-state="draining"]`);
  assert.ok(await drain.isHidden(), "asked twice");
  assert.deepEqual(asked, ["POST /rest/v2/cluster/node/i-0edge/drain"]);
  // A node that is alone has nobody to hand over to.
  assert.equal(await page.locator(`${row("i-0here")} button:visible`).count(), 0);
  const refused = await page.evaluate((url) => fetch(url, { method: "POST" }).then((r) => r.status), "/rest/v2/cluster/node/i-0here/drain?real");
  assert.equal(refused, 409);
  await page.click("#session");
  await page.waitForFunction(() => document.querySelector("#session").textContent === "Log in");
  assert.deepEqual(page.problems, []);
});

test("a stale node vanishes by itself, and a registry that is away is said with the age of what is shown", async () => {
  const page = await browser.open("/");
  await page.waitForSelector(row("i-0here"));
  const real = await (await page.request.get(`${new URL(page.url()).origin}/rest/v2/cluster/nodes/0/50`)).json();
  const others = ["i-1", "i-2"].map((id, n) => ({ ...real[0], id, answering: false, inTheCluster: n === 0, silentMs: 40_000 * n, role: "edge", zone: "eu-central-1a" }));
  let answer = { nodes: [...real, ...others], age: "0" };
  await page.route("**/rest/v2/cluster/nodes/**", (route) => route.fulfill({ json: answer.nodes, headers: { age: answer.age } }));
  await page.waitForSelector(`${row("i-2")} .state[data-state="dead"]`);
  await shot(page, "nodes-several");
  answer = { nodes: [...real, others[0]], age: "30" };
  await page.waitForSelector(row("i-2"), { state: "detached" });
  await page.waitForFunction(() => document.querySelector("#nodes-notice").textContent.includes("30 s ago"));
  await shot(page, "nodes-away");
  answer = { nodes: real, age: "0" };
  await until("the notice to go", () => page.locator("#nodes-notice").isHidden());
  assert.deepEqual(page.problems, []);
});

test("a stream says on which node it is published and how many watch it where, if there is more than one node", async () => {
  const publisher = new Publisher("demo");
  publisher.run();
  const page = await browser.open("/");
  const part = (stream, label) => page.locator(`[data-stream="${stream}"] div:has(> dt:text-is("${label}"))`);
  const said = (stream, label, text) =>
    until(`${label} of ${stream} to be ${text}`, async () => (await part(stream, label).locator("dd").textContent()) === text);
  await page.waitForSelector('[data-stream="live/demo"]');
  for (const label of ["Origin", "Viewers by node"]) assert.ok(await part("live/demo", label).isHidden(), `${label} of a node that is alone`);

  // Another node appears: what this one says of itself is what it really counts.
  const get = async (path) => (await page.request.get(`${new URL(page.url()).origin}${path}`)).json();
  const nodes = await get("/rest/v2/cluster/nodes/0/50");
  const edge = { ...nodes[0], id: "i-0edge", answering: false, inTheCluster: true, role: "edge" };
  await page.route("**/rest/v2/cluster/nodes/**", (route) => route.fulfill({ json: [...nodes, edge], headers: { age: "0" } }));
  await part("live/demo", "Origin").waitFor();
  await said("live/demo", "Origin", "i-0here");
  await said("live/demo", "Viewers by node", "–");
  const viewer = await browser.open("/live/play.html?id=demo");
  await waitState(viewer, "live");
  await said("live/demo", "Viewers by node", "i-0here: 1");
  await said("live/demo", "Viewers", "1");

  // Viewers of the other node, and a stream that is published there.
  const [demo] = await get("/rest/v2/cluster/streams/0/50");
  const several = { ...demo, viewers: 4, viewersByNode: [{ node: "i-0edge", viewers: 3 }, { node: "i-0here", viewers: 1 }] };
  const far = { ...demo, name: "live/far", origin: "i-0edge", viewers: 0, viewersByNode: [] };
  await page.route("**/rest/v2/cluster/streams/**", (route) => route.fulfill({ json: [several, far], headers: { age: "0" } }));
  await said("live/demo", "Viewers by node", "i-0edge: 3, i-0here: 1");
  await said("live/demo", "Viewers", "4");
  await said("live/demo", "Origin", "i-0here");
  await said("live/far", "Origin", "i-0edge");
  await said("live/far", "Viewers by node", "–");
  // This node does not carry it, and knows no picture of it.
  assert.ok((await part("live/far", "Video").isHidden()) && (await part("live/demo", "Video").isVisible()));
  assert.equal(await page.textContent("#sum"), "2 streams, 4 viewers");
  await shot(page, "streams-several");
  await viewer.close();
  await publisher.close();
  assert.deepEqual(page.problems, []);
});
