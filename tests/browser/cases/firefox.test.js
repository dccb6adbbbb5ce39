// The player page in Firefox. Debian's has no H.264 for WebRTC without a plug-in that is downloaded; for HLS it takes ffmpeg's.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openFirefox, shot, waitFrames } from "../lib/browser.js";
import { Node, Publisher } from "../lib/node.js";
import { place } from "../lib/place.js";

let net, node, browser, publisher;

before(async () => {
  net = await place();
  node = await new Node().start();
  publisher = await new Publisher("demo").start(node);
  browser = await openFirefox();
});

after(async () => {
  await browser?.close();
  await publisher?.close();
  await node?.close();
  net?.close();
});

test("Firefox plays, over LL-HLS with a sentence if it has no H.264 for WebRTC", async (t) => {
  const page = await browser.open("/live/play.html?id=demo");
  await page.waitForSelector('body[data-state="live"]', { state: "attached" });
  await waitFrames(page, 25);
  const transport = await page.evaluate(() => document.body.dataset.transport);
  const sentence = await page.textContent("#notice-text");
  t.diagnostic(`${transport}; the page says: ${sentence}`);
  if (transport !== "webrtc") assert.match(sentence, /H\.264.*LL-HLS instead/);
  await shot(page, "firefox");
  assert.deepEqual(browser.foreign, []);
});
