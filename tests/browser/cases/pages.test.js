// The dashboard and the publish page in Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openChromium, screenshot } from "../lib/browser.js";
import { Node, Publisher, waitFor } from "../lib/node.js";
import { ORIGIN, SERVER_ADDRESS, createNetwork } from "../lib/network.js";

let network, node, browser;

before(async () => {
  network = await createNetwork();
  node = await new Node().start();
  browser = await openChromium(network);
});

after(async () => {
  await browser?.close();
  await node?.close();
  network?.close();
});

test("the dashboard lists live streams with links and shows the settings for OBS", async () => {
  const page = await browser.open("/");
  await page.waitForSelector("#empty:visible");
  await screenshot(page, "dashboard-empty");
  const settings = await page.textContent("#publish");
  assert.ok(settings.includes(`rtmp://${SERVER_ADDRESS}/live`) && settings.includes("demo") && settings.includes("zerolatency"), settings);
  // As in the documentation: one second, which is 30 frames of a common camera.
  assert.ok(settings.includes("Keyframe interval: 1 s"), settings);
  for (const [tab, numbers] of [["ffmpeg", ["-g 30", "-g 30"]], ["GStreamer", ["framerate=30", "key-int-max=30"]]]) {
    await page.click(`#publish [role="tab"]:text-is("${tab}")`);
    const panel = await page.textContent("#publish-panel");
    assert.deepEqual(panel.match(/(-g |framerate=|key-int-max=)\d+/g), numbers, panel);
  }
  await page.click('#publish [role="tab"]:text-is("OBS Studio")');
  const publishers = [new Publisher("demo"), new Publisher("second", { bFrames: 2 })];
  for (const publisher of publishers) await publisher.start(node);
  await page.waitForSelector('[data-stream="live/demo"]');
  await page.waitForSelector('[data-stream="live/second"] .notice');
  const links = await page.$$eval('[data-stream="live/demo"] a', (all) => all.map((a) => a.href));
  for (const wanted of ["/live/play.html?id=demo", "/live/play.html?id=demo&playOrder=hls", "/live/streams/demo.m3u8"]) {
    assert.ok(links.includes(`${ORIGIN}${wanted}`), links.join(" "));
  }
  await screenshot(page, "dashboard-live");
  await page.setViewportSize({ width: 360, height: 740 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "the page scrolls sideways on a phone");
  await screenshot(page, "dashboard-phone");
  await page.setViewportSize({ width: 1280, height: 720 });
  await page.click('[data-stream="live/demo"] .button.first');
  await page.waitForSelector('body[data-state="live"]', { state: "attached" });
  for (const publisher of publishers) await publisher.close();
  assert.deepEqual(browser.foreignRequests, []);
  assert.deepEqual(page.scriptErrors, []);
});

test("every link of every page resolves", async () => {
  const publisher = await new Publisher("linked").start(node);
  for (const [path, drawn] of [["/", '[data-stream="live/linked"]'], ["/live/play.html?id=linked", 'body[data-state="live"]'], ["/live/", "#publish-panel"]]) {
    const page = await browser.open(path);
    await page.waitForSelector(drawn, { state: "attached" });
    // Links inside <noscript> are plain text in a browser with JavaScript, so the source is parsed
    // as well.
    const links = await page.evaluate(async () => {
      const source = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
      const all = [document, source].flatMap((from) => [...from.querySelectorAll("[href]")]);
      return [...new Set(all.map((at) => new URL(at.getAttribute("href"), location.href)).filter((url) => url.origin === location.origin).map(String))];
    });
    assert.ok(links.length > 2, `${path}: ${links}`);
    // A playlist appears with the first segment, a moment after the stream.
    const answers = (url) => page.evaluate((at) => fetch(at).then((r) => r.status), url);
    for (const url of links) {
      await waitFor(`200 from ${url}, which ${path} links to`, async () => (await answers(url)) === 200, url.endsWith(".m3u8") ? undefined : 0);
    }
    assert.deepEqual(page.scriptErrors, []);
  }
  await publisher.close();
});

test("the publish page of an app shows its address for each program, also by keyboard", async () => {
  const page = await browser.open("/LiveApp/");
  await page.waitForSelector("#publish-panel");
  await screenshot(page, "publish");
  await page.fill("#stream-id", "show-1");
  assert.ok((await page.textContent("#publish-panel")).includes(`rtmp://${SERVER_ADDRESS}/LiveApp`));
  await page.focus('[role="tab"]');
  await page.keyboard.press("ArrowRight");
  assert.ok((await page.textContent("#publish-panel")).includes(`rtmp://${SERVER_ADDRESS}/LiveApp/show-1`));
  await page.setViewportSize({ width: 360, height: 740 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "the page scrolls sideways on a phone");
  await screenshot(page, "publish-phone");
  assert.deepEqual(page.scriptErrors, []);
});
