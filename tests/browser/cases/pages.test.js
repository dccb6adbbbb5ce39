// The dashboard and the publish page in Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openChromium, shot } from "../lib/browser.js";
import { Node, Publisher } from "../lib/node.js";
import { ORIGIN, SERVER, place } from "../lib/place.js";

let net, node, browser;

before(async () => {
  net = await place();
  node = await new Node().start();
  browser = await openChromium(net);
});

after(async () => {
  await browser?.close();
  await node?.close();
  net?.close();
});

test("the dashboard says when nothing is live, lists what is with links, and shows the settings for OBS", async () => {
  const page = await browser.open("/");
  await page.waitForSelector("#empty:visible");
  await shot(page, "dashboard-empty");
  const settings = await page.textContent("#publish");
  assert.ok(settings.includes(`rtmp://${SERVER}/live`) && settings.includes("demo") && settings.includes("zerolatency"), settings);
  const publishers = [new Publisher("demo"), new Publisher("second", { bFrames: 2 })];
  for (const publisher of publishers) await publisher.start(node);
  await page.waitForSelector('[data-stream="live/demo"]');
  await page.waitForSelector('[data-stream="live/second"] .notice');
  const links = await page.$$eval('[data-stream="live/demo"] a', (all) => all.map((a) => a.href));
  for (const wanted of ["/live/play.html?id=demo", "/live/play.html?id=demo&playOrder=hls", "/live/streams/demo.m3u8"]) {
    assert.ok(links.includes(`${ORIGIN}${wanted}`), links.join(" "));
  }
  await shot(page, "dashboard-live");
  await page.setViewportSize({ width: 360, height: 740 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "it scrolls sideways on a phone");
  await shot(page, "dashboard-phone");
  await page.setViewportSize({ width: 1280, height: 720 });
  await page.click('[data-stream="live/demo"] .button.first');
  await page.waitForSelector('body[data-state="live"]', { state: "attached" });
  for (const publisher of publishers) await publisher.close();
  assert.deepEqual(browser.foreign, []);
  assert.deepEqual(page.problems, []);
});

test("the publish page of an app gives its address for each program, by keyboard too", async () => {
  const page = await browser.open("/LiveApp/");
  await page.waitForSelector("#publish-panel");
  await shot(page, "publish");
  await page.fill("#stream-id", "show-1");
  assert.ok((await page.textContent("#publish-panel")).includes(`rtmp://${SERVER}/LiveApp`));
  await page.focus('[role="tab"]');
  await page.keyboard.press("ArrowRight");
  assert.ok((await page.textContent("#publish-panel")).includes(`rtmp://${SERVER}/LiveApp/show-1`));
  await page.setViewportSize({ width: 360, height: 740 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "it scrolls sideways on a phone");
  await shot(page, "publish-phone");
  assert.deepEqual(page.problems, []);
});
