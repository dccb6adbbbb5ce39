// The nodes on the dashboard, and what only the administrator sees: Chromium, and a node as its daemon runs it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openChromium, shot } from "../lib/browser.js";
import { until } from "../lib/node.js";
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
