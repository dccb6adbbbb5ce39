// Streams with only audio or only video in Chromium over WebRTC: every section of an offer with
// `max-bundle` shares one transport, so an answer must keep also the section that sends nothing.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { openChromium, waitFrames, waitState } from "../lib/browser.js";
import { Node, Publisher, WAIT_TIMEOUT_MS, waitFor } from "../lib/node.js";
import { createNetwork } from "../lib/network.js";
import { rtc } from "../lib/probe.js";

let network, node, browser, page;
const publishers = [];

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

afterEach(async () => {
  await page?.context().close();
  page = undefined;
  for (const publisher of publishers.splice(0)) await publisher.close();
  assert.deepEqual(browser.foreignRequests, [], "requests to other origins");
});

async function publish(id, kind) {
  const publisher = new Publisher(id, { kinds: [kind] });
  publishers.push(publisher);
  return publisher.start(node);
}

test("a stream with only audio plays in the page over WebRTC", async () => {
  await publish("radio", "audio");
  page = await browser.open("/live/play.html?id=radio&mute=false&playOrder=webrtc");
  await waitState(page, "live", "webrtc");
  const energy = async () => (await page.evaluate(rtc)).audioEnergy;
  await page.waitForFunction(async () => {
    const stats = [...(await window.probe.pc.getStats()).values()];
    return stats.some((s) => s.type === "inbound-rtp" && s.kind === "audio" && s.totalAudioEnergy > 0);
  });
  const before_ = await energy();
  await waitFor("the sound to continue", async () => (await energy()) > before_);
  assert.deepEqual(page.scriptErrors, []);
});

test("a stream with only video plays in the page over WebRTC", async () => {
  await publish("silent", "video");
  page = await browser.open("/live/play.html?id=silent&playOrder=webrtc");
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 50);
  assert.deepEqual(page.scriptErrors, []);
});

/**
 * Runs in a page: offers sections of `kinds` in this order, and resolves to the kinds of which RTP
 * arrives and the answer.
 */
async function playWithMaxBundle({ url, kinds, timeoutMs }) {
  const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  for (const kind of kinds) pc.addTransceiver(kind, { direction: "recvonly" });
  await pc.setLocalDescription();
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/sdp" }, body: pc.localDescription.sdp });
  const answer = await response.text();
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  const end = performance.now() + timeoutMs;
  for (;;) {
    const stats = [...(await pc.getStats()).values()];
    const received = stats.filter((s) => s.type === "inbound-rtp" && s.packetsReceived > 10).map((s) => s.kind);
    const state = pc.connectionState;
    if ((received.length && state === "connected") || state === "failed" || performance.now() > end) {
      pc.close();
      return { received, state, answer };
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

for (const [kinds, sent] of [
  [["video", "audio"], "audio"],
  [["audio", "video"], "video"],
  [["audio", "video"], "audio"],
  [["video", "audio"], "video"],
]) {
  test(`Chromium with max-bundle and ${kinds[0]} first receives a stream with only ${sent}`, async () => {
    await publish("one", sent);
    page = await browser.open("/live/play.html?id=nobody");
    const { received, state, answer } = await page.evaluate(playWithMaxBundle, { url: "/live/whep/one", kinds, timeoutMs: WAIT_TIMEOUT_MS });
    assert.deepEqual([received, state], [[sent], "connected"], answer);
    const sections = answer.split(/^(?=m=)/m).slice(1);
    assert.deepEqual(sections.map((section) => section.match(/^a=(sendonly|inactive)/m)?.[1]), kinds.map((kind) => (kind === sent ? "sendonly" : "inactive")), answer);
  });
}
