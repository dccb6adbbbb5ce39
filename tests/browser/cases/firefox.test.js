// The player page in Firefox. Debian's has no H.264 for WebRTC without a plug-in that is downloaded; for HLS it takes ffmpeg's.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { openFirefox } from "../lib/firefox.js";
import { Node, Publisher, until } from "../lib/node.js";
import { ORIGIN, place } from "../lib/place.js";

let net, node, firefox, publisher;

before(async () => {
  net = await place();
  node = await new Node().start();
  publisher = await new Publisher("demo").start(node);
  firefox = await openFirefox();
});

after(async () => {
  await firefox?.close();
  await publisher?.close();
  await node?.close();
  net?.close();
});

test("Firefox plays, over LL-HLS with a sentence if it has no H.264 for WebRTC", async (t) => {
  await firefox.goto(`${ORIGIN}/live/play.html?id=demo`);
  const look = `const video = document.querySelector("video");
    return { ...document.body.dataset, frames: video.getVideoPlaybackQuality().totalVideoFrames, notice: document.getElementById("notice-text").textContent };`;
  let last;
  await until("50 pictures", async () => {
    last = await firefox.run(look);
    return last.state === "live" && last.frames >= 50;
  }).catch((e) => assert.fail(`${e.message}; the page: ${JSON.stringify(last)}`));
  t.diagnostic(`${last.transport}; the page says: ${last.notice || "nothing"}`);
  if (last.transport !== "webrtc") assert.match(last.notice, /H\.264.*LL-HLS instead/);
  if (process.env.HEADWATER_SHOTS) writeFileSync(join(process.env.HEADWATER_SHOTS, "firefox.png"), await firefox.screenshot());
});
