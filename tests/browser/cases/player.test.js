// The player page in Chromium: what plays, what it falls back to, and how it comes back.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { median, openChromium, shot, waitFrames, waitState } from "../lib/browser.js";
import { Node, Publisher, until } from "../lib/node.js";
import { place } from "../lib/place.js";
import { rtc } from "../lib/probe.js";

let net, node, browser, page;
const publishers = [];

before(async () => {
  net = await place();
  node = await new Node({ supervised: true }).start();
  browser = await openChromium(net);
});

after(async () => {
  await browser?.close();
  await node?.close();
  net?.close();
});

afterEach(async () => {
  await page?.context().close();
  page = undefined;
  for (const publisher of publishers.splice(0)) await publisher.close();
  assert.deepEqual(browser.foreign, [], "requests to other origins");
});

async function publish(id, options) {
  const publisher = new Publisher(id, options);
  publishers.push(publisher);
  return publisher.start(node);
}

test("pictures and sound play over WebRTC, and the latency is shown", async (t) => {
  await publish("demo", { clock: true });
  const first = [];
  for (let round = 0; round < 5; round++) {
    await page?.context().close();
    page = await browser.open("/live/play.html?id=demo&mute=false");
    await waitState(page, "live", "webrtc");
    await waitFrames(page, 1);
    first.push(await page.evaluate(() => window.seen.firstFrameAt - window.seen.offerAt));
  }
  await waitFrames(page, 75);
  const stats = await page.evaluate(rtc);
  assert.ok(stats.decoded >= 75, JSON.stringify(stats));
  assert.ok(stats.audioLevel > 0.01 && stats.audioEnergy > 0, JSON.stringify(stats));
  assert.equal(stats.lost, 0);
  const shown = await page.textContent("#latency");
  assert.match(shown, /^\d+ ms$/);
  const behind = median(await page.evaluate(() => window.seen.delays.slice(-10)));
  t.diagnostic(`offer to first shown picture: ${first.map((ms) => `${Math.round(ms)} ms`).join(", ")}`);
  t.diagnostic(`WebRTC behind the publisher's clock: ${behind} s; the page shows ${shown}; ${stats.srtp}`);
  assert.ok(behind < 1, `${behind} s behind`);
  assert.equal((await node.status("demo")).viewers.webrtc, 1);
  assert.deepEqual(page.problems, []);
  await page.context().close();
  page = undefined;
  await until("the viewer to be gone", async () => (await node.status("demo")).viewers.webrtc === 0);
});

test("where UDP is blocked the page plays LL-HLS by itself, less than 2 s behind live", async (t) => {
  await publish("walled", { clock: true });
  net.blockUdp();
  try {
    page = await browser.open("/live/play.html?id=walled");
    await waitState(page, "live", "hls");
    assert.match(await page.textContent("#notice-text"), /no WebRTC.*LL-HLS instead/);
    await waitFrames(page, 150);
    await page.evaluate(() => (window.seen.delays = []));
    await waitFrames(page, 100);
    const delays = await page.evaluate(() => window.seen.delays);
    const behind = median(delays);
    const shown = await page.textContent("#latency");
    t.diagnostic(`LL-HLS behind the publisher's clock: median ${behind} s, worst ${Math.max(...delays)} s; hls.js says ${shown}`);
    assert.ok(behind < 2, `${behind} s behind`);
    assert.match(shown, /s$/);
  } finally {
    net.openUdp();
  }
});

test("a stream with B-frames says which setting to change and plays over LL-HLS", async () => {
  await publish("bframes", { bFrames: 2 });
  page = await browser.open("/live/play.html?id=bframes");
  await waitState(page, "live", "hls");
  await waitFrames(page, 25);
  const sentence = await page.textContent("#notice-text");
  assert.match(sentence, /B-frames.*OBS.*zerolatency/);
  await shot(page, "player-bframes");
});

test("the address says which stream, over what, whether at once, whether muted, and the token goes along", async () => {
  await publish("demo");
  page = await browser.open("/live/player.html?name=live/demo&playOrder=hls&token=abc%26d&mute=false");
  await waitState(page, "live", "hls");
  assert.ok(!page.requested.some((r) => r.includes("/whep/")), "WebRTC was tried although only HLS was asked for");
  assert.equal(await page.evaluate(() => document.querySelector("video").muted), false);
  const media = page.requested.filter((r) => r.includes("/live/streams/"));
  assert.ok(media.length > 3 && media.every((r) => r.includes("token=abc%26d")), media.join("\n"));
  await page.context().close();
  page = await browser.open("/live/play.html?id=demo&playOrder=webrtc&token=abc&autoplay=false");
  await page.waitForSelector("#start:visible");
  assert.ok(!page.requested.some((r) => r.includes("/whep/")), "it began without a click");
  assert.equal(await page.evaluate(() => document.querySelector("video").muted), true);
  await shot(page, "player-start");
  await page.click("#start");
  await waitState(page, "live", "webrtc");
  assert.ok(page.requested.includes("POST /live/whep/demo?token=abc"));
});

test("a page that waits begins when the stream does, and comes back when it does, without a click", async (t) => {
  page = await browser.open("/live/play.html?id=later");
  await waitState(page, "waiting");
  await shot(page, "player-waiting");
  const first = await publish("later");
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 10);
  await first.close();
  await waitState(page, "waiting");
  await publish("later");
  const back = Date.now();
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 25);
  t.diagnostic(`playing again ${Date.now() - back} ms after the stream was back, 25 pictures included`);
});

for (const transport of ["webrtc", "hls"]) {
  test(`a killed engine: the daemon starts another, the page comes back over ${transport} without a click`, async (t) => {
    await publish("demo", { again: true });
    page = await browser.open(`/live/play.html?id=demo&playOrder=${transport}`);
    await waitState(page, "live", transport);
    await waitFrames(page, 25);
    // The loss may be over within a moment: whoever looks now and then would miss it.
    await page.evaluate(() => {
      const note = () => document.body.dataset.state !== "live" && (document.documentElement.dataset.lost = "once");
      new MutationObserver(note).observe(document.body, { attributes: true, attributeFilter: ["data-state"] });
    });
    const [killed, pid] = [Date.now(), await node.killEngine()];
    await page.waitForSelector("html[data-lost]", { state: "attached", timeout: 20_000 });
    const noticed = Date.now() - killed;
    await shot(page, `player-reconnecting-${transport}`);
    await node.ready(pid);
    const back = Date.now();
    await waitState(page, "live", transport);
    await waitFrames(page, 25);
    const sum = `loss noticed after ${noticed} ms, another engine ready after ${back - killed} ms`;
    t.diagnostic(`${sum}, a second of pictures ${Date.now() - killed} ms after the kill`);
    assert.match(node.log, /engine ended by itself/);
  });
}

test("keys play, pause and mute; focus is visible; a phone shows all controls", async () => {
  await publish("demo");
  page = await browser.open("/live/play.html?id=demo");
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 25);
  await shot(page, "player-live");
  await page.keyboard.press("m");
  assert.equal(await page.evaluate(() => document.querySelector("video").muted), false);
  await page.keyboard.press("k");
  await page.waitForSelector('body[data-paused="true"]', { state: "attached" });
  await shot(page, "player-paused");
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
  // Where a pointer cannot hover, as in this browser without a screen, there is no volume slider.
  for (const id of ["play", "mute", "fullscreen"]) assert.ok(stops.includes(id), `${id} cannot be reached: ${stops}`);
  await page.context().close();
  page = await browser.open("/live/play.html?id=demo", { viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true });
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 10);
  await shot(page, "player-phone");
  const boxes = await page.$$eval("#bar button", (all) => all.map((b) => b.getBoundingClientRect()).map((r) => [r.left, r.right, r.width, r.height]));
  for (const [left, right, width, height] of boxes) assert.ok(left >= 0 && right <= 360 && width >= 44 && height >= 44, JSON.stringify(boxes));
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
});

test("an address that names nothing says what is wrong", async () => {
  page = await browser.open("/live/play.html");
  await waitState(page, "wrong");
  assert.match(await page.textContent("#message"), /names no stream/);
  await page.context().close();
  page = await browser.open("/live/play.html?id=..%2Fetc");
  await waitState(page, "wrong");
  await shot(page, "player-wrong");
});

test("a page that is told to move has its next picture before it leaves the old session", async (t) => {
  await publish("moving");
  page = await browser.open("/live/play.html?id=moving");
  await waitState(page, "live", "webrtc");
  await waitFrames(page, 25);
  await page.evaluate(() => {
    const video = document.querySelector("video");
    window.seen.longestMs = 0;
    let last = performance.now();
    const each = () => {
      const now = performance.now();
      window.seen.longestMs = Math.max(window.seen.longestMs, now - last);
      last = now;
      video.requestVideoFrameCallback(each);
    };
    video.requestVideoFrameCallback(each);
  });
  // What a node says that is about to end; the next session may be on any node, so this one will do.
  let told = false;
  await page.route(/\/whep\/moving\/[0-9a-f]{32}/, (route) => {
    if (told || route.request().method() !== "GET") return route.continue();
    told = true;
    return route.fulfill({ json: { stay: false } });
  });
  const asked = (method) => page.requested.filter((line) => line.startsWith(`${method} `) && line.includes("/whep/moving"));
  await until("the old session to be left", () => asked("DELETE").length === 1);
  assert.equal(asked("POST").length, 2);
  await page.evaluate(() => (window.seen.frames = 0));
  await waitFrames(page, 50);
  const longest = await page.evaluate(() => window.seen.longestMs);
  t.diagnostic(`longest time between two pictures while moving: ${Math.round(longest)} ms`);
  assert.ok(longest < 1000, `${longest} ms`);
  assert.equal(await page.evaluate(() => document.body.dataset.state), "live");
  await until("the one viewer", async () => (await node.status("moving")).viewers.webrtc === 1);
  assert.deepEqual(page.problems, []);
});
