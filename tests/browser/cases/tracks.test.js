// Streams whose audio or video begins late or pauses, in the player page that was open before.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { openChromium, waitFrames, waitState } from "../lib/browser.js";
import { Node, waitFor } from "../lib/node.js";
import { createNetwork } from "../lib/network.js";
import { watchPlayback } from "../lib/probe.js";
import { makeTags, TagPublisher } from "../lib/tag-publisher.js";

/** The server allows silence of ten seconds. */
const GAP_MS = 5_000;
/** Duration of the segments: the publisher sends a key frame every second. */
const SEGMENT_MS = 2_000;
/** The longest time without a frame, or without audio, while tracks change. */
const MAX_PAUSE_MS = 3_000;

let network, node, browser, page, publisher, tags;

before(async () => {
  network = await createNetwork();
  node = await new Node().start();
  browser = await openChromium(network);
  tags = makeTags();
});

after(async () => {
  await browser?.close();
  await node?.close();
  network?.close();
});

afterEach(async () => {
  await page?.context().close();
  page = undefined;
  await publisher?.close();
});

/** Publishes, and opens the page over one transport. */
async function watch(id, transport, kinds) {
  publisher = await new TagPublisher(id, tags, kinds).start(node);
  page = await browser.open(`/live/play.html?id=${id}&playOrder=${transport}&mute=false`);
  await waitState(page, "live", transport);
}

/** Waits until this much more media has been published, or would have been. */
function published(ms) {
  const end = publisher.ms + ms;
  return waitFor(`${ms} ms of media`, () => publisher.ms >= end);
}

/** Bytes of audio and video that the element has decoded since it got its source. */
const decoded = () =>
  page.evaluate(() => {
    const { webkitAudioDecodedByteCount: audio, webkitVideoDecodedByteCount: video, currentTime, paused } = document.querySelector("video");
    return { audio, video, currentTime, paused, pausedByViewer: document.body.dataset.paused };
  });

const playback = () => page.evaluate(() => window.playback);

const initSegments = () => new Set(page.requestLog.filter((line) => /init/.test(line))).size;

for (const offset of [0, 700]) {
  test(`a gap in audio that begins ${offset} ms into a segment leaves the tracks alone`, async (t) => {
    await watch("gap", "hls");
    await waitFrames(page, 30);
    await page.evaluate(watchPlayback);
    await waitFor("the right time", () => publisher.ms % SEGMENT_MS >= offset && publisher.ms % SEGMENT_MS < offset + 200);
    publisher.kinds.delete("audio");
    await published(GAP_MS / 2);
    const late = await browser.open("/live/play.html?id=gap&playOrder=hls");
    const opened = Date.now();
    await waitFrames(late, 30);
    t.diagnostic(`a viewer who joins in the gap sees 30 frames after ${Date.now() - opened} ms`);
    await late.context().close();
    await published(GAP_MS / 2);
    publisher.kinds.add("audio");
    const before_ = await decoded();
    await waitFrames(page, 60);
    await waitFor("audio after the gap", async () => (await decoded()).audio > before_.audio + 5_000);
    const { longestMs, states } = await playback();
    t.diagnostic(`longest time between two frames: ${Math.round(longestMs)} ms; states ${states}`);
    assert.ok(longestMs < MAX_PAUSE_MS, `${longestMs} ms between two frames`);
    assert.equal(initSegments(), 1, "the tracks changed");
    assert.equal((await decoded()).paused, false);
    assert.deepEqual(page.scriptErrors, []);
  });
}

for (const late of ["audio", "video"]) {
  test(`when ${late} begins late, the page plays it without a click`, async (t) => {
    await watch(`late-${late}`, "hls", ["audio", "video"].filter((kind) => kind !== late));
    await published(SEGMENT_MS);
    assert.equal((await decoded())[late], 0);
    await page.evaluate(watchPlayback);
    publisher.kinds.add(late);
    const begun = Date.now();
    // The new tracks begin with the next segment, at the latest after two seconds.
    await waitFor(`${late} to play`, async () => (await decoded())[late] > 0);
    t.diagnostic(`${late} plays ${Date.now() - begun} ms after its first frame was sent`);
    await waitFrames(page, 60);
    const { longestMs, longestStopMs } = await playback();
    t.diagnostic(`longest time between two frames ${Math.round(longestMs)} ms, without progress ${Math.round(longestStopMs)} ms`);
    assert.ok(longestStopMs < MAX_PAUSE_MS, `${longestStopMs} ms without progress`);
    if (late === "audio") assert.ok(longestMs < MAX_PAUSE_MS, `${longestMs} ms between two frames`);
    const state = await decoded();
    assert.deepEqual([state.paused, state.pausedByViewer], [false, "false"]);
    assert.equal(await page.evaluate(() => document.body.dataset.state), "live");
    assert.deepEqual(page.scriptErrors, []);
  });
}

for (const transport of ["webrtc", "hls"]) {
  test(`while the publisher pauses, a page stays where it is over ${transport}`, async () => {
    await watch("pausing", transport);
    await waitFrames(page, 30);
    const source = () => page.evaluate(() => document.querySelector("video").srcObject?.id);
    const before_ = await source();
    publisher.kinds.clear();
    await waitState(page, "waiting");
    assert.match(await page.textContent("#message"), /No media is arriving/);
    await published(GAP_MS / 2);
    publisher.kinds.add("audio").add("video");
    await waitState(page, "live", transport);
    await waitFrames(page, 30);
    assert.equal(await source(), before_, "the page plays another session");
    if (transport === "hls") assert.equal(initSegments(), 1, "the tracks changed");
    assert.deepEqual(page.scriptErrors, []);
  });
}

test("a pause by a media key is the viewer's, and playback that follows is, too", async () => {
  await watch("paused", "hls");
  await waitFrames(page, 30);
  await page.evaluate(() => document.querySelector("video").pause());
  await page.waitForSelector('body[data-paused="true"]', { state: "attached" });
  await page.evaluate(() => document.querySelector("video").play());
  await page.waitForSelector('body[data-paused="false"]', { state: "attached" });
  await waitFrames(page, 30);
});
