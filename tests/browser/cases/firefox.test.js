// The player page in Firefox. Debian's Firefox has no H.264 for WebRTC without a plug-in that is
// downloaded at run time; for HLS it uses ffmpeg's libraries.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { openFirefox } from "../lib/firefox.js";
import { Node, Publisher, waitFor } from "../lib/node.js";
import { ORIGIN, createNetwork } from "../lib/network.js";

let network, node, firefox, publisher;

before(async () => {
  network = await createNetwork();
  node = await new Node().start();
  publisher = await new Publisher("demo").start(node);
  firefox = await openFirefox();
});

after(async () => {
  await firefox?.close();
  await publisher?.close();
  await node?.close();
  network?.close();
});

test("Firefox plays, over LL-HLS with a notice if it has no H.264 for WebRTC", async (t) => {
  await firefox.goto(`${ORIGIN}/live/play.html?id=demo`);
  const script = `const video = document.querySelector("video");
    return { ...document.body.dataset, frames: video.getVideoPlaybackQuality().totalVideoFrames, notice: document.getElementById("notice-text").textContent };`;
  let last;
  await waitFor("50 frames", async () => {
    last = await firefox.run(script);
    return last.state === "live" && last.frames >= 50;
  }).catch((e) => assert.fail(`${e.message}; the page: ${JSON.stringify(last)}`));
  t.diagnostic(`${last.transport}; notice on the page: ${last.notice || "none"}`);
  if (last.transport !== "webrtc") assert.match(last.notice, /H\.264.*LL-HLS instead/);
  if (process.env.HEADWATER_SHOTS) writeFileSync(join(process.env.HEADWATER_SHOTS, "firefox.png"), await firefox.screenshot());
});
