// The player page in Chromium: playback, fallbacks and recovery.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { median, openChromium, screenshot, waitFrames, waitState } from "../lib/browser.js";
import { Node, Publisher, waitFor } from "../lib/node.js";
import { createNetwork } from "../lib/network.js";
import { rtc } from "../lib/probe.js";

/** From the kill of the engine to the end of the first second of video, on a busy machine. */
const RECOVERY_TIMEOUT_MS = 20_000;

let network, node, browser, page;
const publishers = [];

before(async () => {
  network = await createNetwork();
  node = await new Node({ supervised: true }).start();
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

async function publish(id, options) {
  const publisher = new Publisher(id, options);
  publishers.push(publisher);
  return publisher.start(node);
}

test("video and audio play over WebRTC, and the latency is shown", async (t) => {
  await publish("demo", { clock: true });
  const first = [];
  for (let round = 0; round < 5; round++) {
    await page?.context().close();
    page = await browser.open("/live/play.html?id=demo&mute=false");
    await waitState(page, "live", "webrtc");
    await waitFrames(page, 1);
    first.push(await page.evaluate(() => window.probe.firstFrameAt - window.probe.offerAt));
  }
  await waitFrames(page, 75);
  const stats = await page.evaluate(rtc);
  assert.ok(stats.decoded >= 75, JSON.stringify(stats));
  assert.ok(stats.audioLevel > 0.01 && stats.audioEnergy > 0, JSON.stringify(stats));
  assert.equal(stats.lost, 0);
  const shown = await page.textContent("#latency");
  assert.match(shown, /^\d+ ms$/);
  const delay = median(await page.evaluate(() => window.probe.delays.slice(-10)));
  t.diagnostic(`offer to first displayed frame: ${first.map((ms) => `${Math.round(ms)} ms`).join(", ")}`);
  t.diagnostic(`WebRTC delay against the publisher's clock: ${delay} s; the page shows ${shown}; ${stats.srtp}`);
  assert.ok(delay < 1, `${delay} s delay`);
  assert.equal((await node.status("demo")).viewers.webrtc, 1);
  assert.deepEqual(page.scriptErrors, []);
  await page.context().close();
  page = undefined;
  await waitFor("the viewer to be removed", async () => (await node.status("demo")).viewers.webrtc === 0);
});

test("the page falls back to LL-HLS, less than 2 s behind live, where UDP is blocked", async (t) => {
  await publish("walled", { clock: true });
  network.blockUdp();
  try {
    page = await browser.open("/live/play.html?id=walled");
    await waitState(page, "live", "hls");
    assert.match(await page.textContent("#notice-text"), /blocks WebRTC.*LL-HLS instead/);
    await waitFrames(page, 150);
    await page.evaluate(() => (window.probe.delays = []));
    await waitFrames(page, 100);
    const delays = await page.evaluate(() => window.probe.delays);
    const delay = median(delays);
    const shown = await page.textContent("#latency");
    t.diagnostic(`LL-HLS delay against the publisher's clock: median ${delay} s, maximum ${Math.max(...delays)} s; hls.js reports ${shown}`);
    assert.ok(delay < 2, `${delay} s delay`);
    assert.match(shown, /s$/);
  } finally {
    network.unblockUdp();
  }
});

test("a stream with B-frames plays over LL-HLS and names the setting to change", async () => {
  await publish("bframes", { bFrames: 2 });
  page = await browser.open("/live/play.html?id=bframes");
  await waitState(page, "live", "hls");
  await waitFrames(page, 25);
  const sentence = await page.textContent("#notice-text");
  assert.match(sentence, /B-frames.*OBS.*zerolatency/);
  await screenshot(page, "player-bframes");
});

test("the address selects stream, transport, autoplay and mute, and passes the token on", async () => {
  await publish("demo");
  page = await browser.open("/live/player.html?name=live/demo&playOrder=hls&token=abc%26d&mute=false");
  await waitState(page, "live", "hls");
  assert.ok(!page.requestLog.some((r) => r.includes("/whep/")), "WebRTC was tried although only HLS was requested");
  assert.equal(await page.evaluate(() => document.querySelector("video").muted), false);
  const playlists = page.requestLog.filter((r) => r.includes(".m3u8"));
  assert.ok(playlists.length > 1 && playlists.every((r) => r.includes("token=abc%26d")), playlists.join("\n"));
  await page.context().close();
  page = await browser.open("/live/play.html?id=demo&playOrder=webrtc&token=abc&autoplay=false");
  await page.waitForSelector("#start:visible");
  assert.ok(!page.requestLog.some((r) => r.includes("/whep/")), "playback started without a click");
  assert.equal(await page.evaluate(() => document.querySelector("video").muted), true);
  await screenshot(page, "player-start");
  await page.click("#start");
  await waitState(page, "live", "webrtc");
  assert.ok(page.requestLog.includes("POST /live/whep/demo?token=abc"));
});

test("a waiting page starts with the stream and resumes when the stream returns", async (t) => {
  page = await browser.open("/live/play.html?id=later");
  await waitState(page, "waiting");
  await screenshot(page, "player-waiting");
  const first = await publish("later");
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 10);
  await first.close();
  await waitState(page, "waiting");
  await publish("later");
  const back = Date.now();
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 25);
  t.diagnostic(`25 frames played ${Date.now() - back} ms after the stream was back`);
});

for (const transport of ["webrtc", "hls"]) {
  test(`the page resumes over ${transport} within 20 s of the engine's kill`, async (t) => {
    await publish("demo", { reconnect: true });
    page = await browser.open(`/live/play.html?id=demo&playOrder=${transport}`);
    await waitState(page, "live", transport);
    await waitFrames(page, 25);
    // The loss may last only a moment, too short for polling.
    await page.evaluate(() => {
      const note = () => document.body.dataset.state !== "live" && (document.documentElement.dataset.lost = "once");
      new MutationObserver(note).observe(document.body, { attributes: true, attributeFilter: ["data-state"] });
    });
    const [killed, pid] = [Date.now(), await node.killEngine()];
    await page.waitForSelector("html[data-lost]", { state: "attached", timeout: 20_000 });
    const noticed = Date.now() - killed;
    await screenshot(page, `player-reconnecting-${transport}`);
    await node.ready(pid);
    const back = Date.now();
    await waitState(page, "live", transport);
    await waitFrames(page, 25);
    const sum = `loss noticed after ${noticed} ms, another engine ready after ${back - killed} ms`;
    const recovered = Date.now() - killed;
    t.diagnostic(`${sum}, one second of frames ${recovered} ms after the kill`);
    assert.ok(recovered < RECOVERY_TIMEOUT_MS, `${recovered} ms from the kill of the engine to one second of frames`);
    assert.match(node.log, /engine exited unexpectedly/);
  });
}

test("keys play, pause and mute, focus is visible, and a phone shows all controls", async () => {
  await publish("demo");
  page = await browser.open("/live/play.html?id=demo");
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 25);
  await screenshot(page, "player-live");
  await page.keyboard.press("m");
  assert.equal(await page.evaluate(() => document.querySelector("video").muted), false);
  await page.keyboard.press("k");
  await page.waitForSelector('body[data-paused="true"]', { state: "attached" });
  await screenshot(page, "player-paused");
  await page.keyboard.press("k");
  await waitFrames(page, 10);
  const stops = [];
  for (let n = 0; n < 8; n++) {
    await page.keyboard.press("Tab");
    const focus = await page.evaluate(() => {
      const at = document.activeElement;
      return { id: at.id, outline: getComputedStyle(at).outlineStyle };
    });
    if (focus.id) assert.equal(focus.outline, "solid", `focus on ${focus.id} is not visible`);
    stops.push(focus.id);
  }
  // There is no volume slider where a pointer cannot hover, as in this headless browser.
  for (const id of ["play", "mute", "fullscreen"]) assert.ok(stops.includes(id), `${id} cannot be reached: ${stops}`);
  await page.context().close();
  page = await browser.open("/live/play.html?id=demo", { viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true });
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 10);
  await screenshot(page, "player-phone");
  const boxes = await page.$$eval("#bar button", (all) => all.map((b) => b.getBoundingClientRect()).map((r) => [r.left, r.right, r.width, r.height]));
  for (const [left, right, width, height] of boxes) assert.ok(left >= 0 && right <= 360 && width >= 44 && height >= 44, JSON.stringify(boxes));
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
});

test("an address without a stream shows an error", async () => {
  page = await browser.open("/live/play.html");
  await waitState(page, "wrong");
  assert.match(await page.textContent("#message"), /names no stream/);
  await page.context().close();
  page = await browser.open("/live/play.html?id=..%2Fetc");
  await waitState(page, "wrong");
  await screenshot(page, "player-wrong");
});

test("a page that moves to another node gets a frame before it ends the old session", async (t) => {
  await publish("moving");
  page = await browser.open("/live/play.html?id=moving");
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 25);
  await page.evaluate(() => {
    const video = document.querySelector("video");
    window.probe.longestMs = 0;
    let last = performance.now();
    const each = () => {
      const now = performance.now();
      window.probe.longestMs = Math.max(window.probe.longestMs, now - last);
      last = now;
      video.requestVideoFrameCallback(each);
    };
    video.requestVideoFrameCallback(each);
  });
  // The answer of a node that is about to end. The next session may be on any node, including this
  // one.
  let moved = false;
  await page.route(/\/whep\/moving\/[0-9a-f]{32}/, (route) => {
    if (moved || route.request().method() !== "GET") return route.continue();
    moved = true;
    return route.fulfill({ json: { stay: false } });
  });
  const requests = (method) => page.requestLog.filter((line) => line.startsWith(`${method} `) && line.includes("/whep/moving"));
  await waitFor("the end of the old session", () => requests("DELETE").length === 1);
  assert.equal(requests("POST").length, 2);
  await page.evaluate(() => (window.probe.frames = 0));
  await waitFrames(page, 50);
  // A paused element shows frames, too, but without sound.
  assert.equal(await page.evaluate(() => document.querySelector("video").paused), false);
  const longest = await page.evaluate(() => window.probe.longestMs);
  t.diagnostic(`longest time between two frames while moving: ${Math.round(longest)} ms`);
  assert.ok(longest < 1000, `${longest} ms`);
  assert.equal(await page.evaluate(() => document.body.dataset.state), "live");
  await waitFor("exactly one viewer", async () => (await node.status("moving")).viewers.webrtc === 1);
  assert.deepEqual(page.scriptErrors, []);
});
