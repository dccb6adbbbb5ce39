// Streams that not everybody may watch, in Chromium: the player page, and other players on another
// site, with every kind of token.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { Administrator } from "../lib/administrator.js";
import { openChromium, screenshot, waitFrames, waitState } from "../lib/browser.js";
import { DaemonNode } from "../lib/daemon-node.js";
import { FakeClock } from "../lib/fake-clock.js";
import { ORIGIN, createNetwork } from "../lib/network.js";
import { WAIT_TIMEOUT_MS, waitFor } from "../lib/node.js";
import { startSite } from "../lib/site.js";
import { TagPublisher, makeTags } from "../lib/tag-publisher.js";
import { playHash, signJwt } from "../lib/tokens.js";

const KEY = "0123456789abcdef0123456789abcdef";
const SECRET = "the secret of hashes";
const PLAYLIST = `${ORIGIN}/live/streams/demo.m3u8`;
/** From a revocation to the page that says so. The promise is five seconds; the machine may be busy. */
const MAX_END_MS = 10_000;
/** Of the signature of media URLs. */
const WINDOW_S = 60;
const TRANSPORTS = ["webrtc", "hls"];

let network, clock, node, administrator, publisher, browser, site, otherSite;
const pages = [];

before(async () => {
  network = await createNetwork();
  clock = new FakeClock();
  node = new DaemonNode({ environment: clock.environment });
  await node.start("i-0here");
  administrator = new Administrator(node);
  publisher = await new TagPublisher("demo", makeTags()).start(node);
  [site, otherSite] = [await startSite(8000), await startSite(8001)];
  browser = await openChromium(network, [ORIGIN, site.origin, otherSite.origin]);
});

after(async () => {
  await browser?.close();
  await publisher?.close();
  await node?.close();
  for (const each of [site, otherSite, clock, network]) each?.close();
});

afterEach(async () => {
  for (const page of pages.splice(0)) {
    assert.deepEqual(page.scriptErrors, []);
    await page.context().close();
  }
});

/** Opens an address, or the player page of the stream with these parameters. */
async function open(address) {
  const url = typeof address === "string" ? address : `/live/play.html?${new URLSearchParams({ id: "demo", ...address })}`;
  const page = await browser.open(url);
  pages.push(page);
  return page;
}

/** A token as another program makes it. */
const jwt = (claims = {}, key = KEY) => signJwt({ streamId: "demo", type: "play", exp: 4_000_000_000, ...claims }, key);

/** What the node answers to a viewer with this token: `{ error, message }`. */
async function refusal(token) {
  const answer = await fetch(`http://127.0.0.1:5080/live/streams/demo.m3u8?${new URLSearchParams({ token })}`);
  return answer.json();
}

/** Waits until the page shows why this token is refused: with the server's sentence. */
async function waitRefused(page, token, code, timeoutMs) {
  await waitState(page, "refused", undefined, timeoutMs);
  const { error, message } = await refusal(token);
  assert.equal(error, code);
  assert.match(message, /^[A-Z].*\.$/);
  assert.equal(await page.textContent("#message"), message);
  assert.equal(await page.textContent("#badge-text"), "Not allowed");
}

async function waitPlaying(page, transport) {
  await waitState(page, "live", transport);
  await waitFrames(page, 25);
}

/** The requests of a page for media: `METHOD URL`. */
const mediaRequests = (page) => page.requestLog.filter((line) => /\/live\/(streams|whep)\//.test(line));

test("with a JSON web token the page plays, and from then on presents a session", async () => {
  await administrator.change({ play: "jwt", jwt_key: KEY });
  for (const transport of TRANSPORTS) {
    const page = await open({ token: jwt(), playOrder: transport });
    await waitPlaying(page, transport);
    const [first, ...requests] = mediaRequests(page);
    assert.ok(first.includes("token="), first);
    if (transport === "webrtc") continue;
    const later = requests.filter((line) => !line.includes("token="));
    assert.ok(later.length > 5 && later.every((line) => line.includes(".m3u8?session=") || line.includes("?sig=")), later.join("\n"));
  }
});

test("without the right token the page shows the server's sentence, and it plays with the right one", async () => {
  await administrator.change({ play: "jwt", jwt_key: KEY });
  for (const [token, code] of [
    ["", "token_missing"],
    ["wrong", "token_invalid"],
    [jwt({}, "another key, which has 32 bytes..."), "token_invalid"],
    [jwt({ exp: 1_700_000_000 }), "token_expired"],
    [jwt({ streamId: "another" }), "token_wrong_stream"],
  ]) {
    const page = await open(token ? { token } : {});
    await waitRefused(page, token, code);
    assert.equal(mediaRequests(page).filter((line) => line.includes("/streams/")).length, 0, "a refused viewer tried another transport");
    await screenshot(page, `player-refused-${code}`);
  }
  const page = pages.at(-1);
  await page.goto(`${ORIGIN}/live/play.html?id=demo&token=${jwt()}`);
  await waitPlaying(page, "webrtc");
});

test("a refused page plays when the administrator opens the app", async () => {
  await administrator.change({ play: "jwt", jwt_key: KEY });
  const page = await open({});
  await waitState(page, "refused");
  await administrator.change({ play: "open" });
  await waitPlaying(page, "webrtc");
});

test("a one-time token admits one page, which keeps playing", async () => {
  await administrator.change({ play: "one_time_token" });
  for (const transport of TRANSPORTS) {
    const token = await administrator.makeToken("one_time", "demo");
    const page = await open({ token, playOrder: transport });
    await waitPlaying(page, transport);
    await waitRefused(await open({ token, playOrder: transport }), token, "token_used");
    await waitFrames(page, 25);
  }
  await waitRefused(await open({}), "", "token_missing");
});

test("a page with a one-time token goes on over LL-HLS where UDP is blocked", async () => {
  await administrator.change({ play: "one_time_token" });
  network.blockUdp();
  try {
    const page = await open({ token: await administrator.makeToken("one_time", "demo") });
    await waitPlaying(page, "hls");
    assert.ok(mediaRequests(page)[0].startsWith("POST /live/whep/demo?token="), mediaRequests(page)[0]);
  } finally {
    network.unblockUdp();
  }
});

test("a page with a one-time token plays again after its node has restarted", async () => {
  await administrator.change({ play: "one_time_token" });
  const page = await open({ token: await administrator.makeToken("one_time", "demo") });
  await waitPlaying(page, "webrtc");
  await node.kill();
  await page.waitForSelector('body:not([data-state="live"])', { state: "attached" });
  await publisher.close();
  await node.start("i-0here");
  await publisher.start(node);
  await waitPlaying(page, "webrtc");
});

test("the hash of a stream's id admits, that of another one does not", async () => {
  await administrator.change({ play: "hash", hash_secret: SECRET });
  for (const transport of TRANSPORTS) await waitPlaying(await open({ token: playHash("demo", SECRET), playOrder: transport }), transport);
  const wrong = playHash("another", SECRET);
  await waitRefused(await open({ token: wrong }), wrong, "hash_invalid");
});

test("a revoked token ends playback, and the page says why", async (t) => {
  await administrator.change({ play: "jwt", jwt_key: KEY, allowed_origins: [site.origin] });
  const token = await administrator.makeToken("jwt", "demo");
  const viewers = {};
  for (const transport of TRANSPORTS) {
    viewers[transport] = await open({ token, playOrder: transport });
    await waitPlaying(viewers[transport], transport);
  }
  const plain = await open(site.url("hls.js", `${PLAYLIST}?token=${token}`));
  await waitFrames(plain, 25);
  const revokedAt = Date.now();
  await administrator.revoke(token);
  const remainingMs = () => Math.max(1, revokedAt + MAX_END_MS - Date.now());
  const wait = async (name, ended) => {
    await ended;
    t.diagnostic(`${name} ended ${Date.now() - revokedAt} ms after the revocation`);
  };
  await Promise.all([
    ...TRANSPORTS.map((transport) => wait(transport, waitRefused(viewers[transport], token, "token_revoked", remainingMs()))),
    wait("plain hls.js", plain.waitForFunction(() => failures.some((failure) => failure.endsWith(" 403")), null, { timeout: remainingMs() })),
  ]);
  await waitFor("the end of the session", async () => (await node.status("demo")).viewers.webrtc === 0, remainingMs());
  await screenshot(viewers.webrtc, "player-revoked");
});

/** Windows of the signatures of media that a page has received. */
const receivedWindows = (page) =>
  new Set(page.responseLog.filter(({ url, status }) => status === 200 && url.searchParams.has("sig")).map(({ url }) => url.searchParams.get("sig").split("~")[0]));

for (const player of ["hls.js", "video.js"]) {
  test(`${player} on an allowed site plays a signed stream, whose signatures change while it does`, async () => {
    await administrator.change({ play: "jwt", jwt_key: KEY, allowed_origins: [site.origin] });
    const page = await open(site.url(player, `${PLAYLIST}?token=${jwt()}`));
    await waitFrames(page, 25);
    for (let window = 1; window <= 3; window++) {
      const before = receivedWindows(page).size;
      clock.setOffset(clock.offsetS + WINDOW_S);
      await waitFor(`media signed in window ${window}`, () => receivedWindows(page).size > before);
      await waitFrames(page, 25);
    }
    const fromNode = page.responseLog.filter(({ url }) => url.origin === ORIGIN);
    const failed = fromNode.filter(({ status }) => status >= 400);
    assert.deepEqual(failed.map(({ url, status }) => `${status} ${url}`), []);
    for (const { headers, url } of fromNode) {
      assert.equal(headers["access-control-allow-origin"], site.origin, String(url));
      assert.equal(headers["access-control-allow-credentials"], "true", String(url));
      if (url.searchParams.has("sig")) assert.match(headers["cache-control"], /^public, max-age=\d+, immutable$/);
      else assert.equal(headers["cache-control"], "private, no-store");
    }
    assert.deepEqual(await page.evaluate(() => failures), []);
  });
}

test("a site that the app does not list can neither read its media nor embed its page", async () => {
  await administrator.change({ play: "jwt", jwt_key: KEY, allowed_origins: [site.origin] });
  const reading = await open(otherSite.url("hls.js", `${PLAYLIST}?token=${jwt()}`));
  await reading.waitForFunction(() => failures.length > 0);
  assert.equal(await reading.evaluate(() => window.probe.frames), 0);
  const address = `${ORIGIN}/live/play.html?id=demo&token=${jwt()}`;
  const embedding = await open(site.url("frame", address));
  const frame = await waitFor("the frame", () => embedding.frames().find((each) => each.url() === address));
  await frame.waitForSelector('body[data-state="live"]', { state: "attached", timeout: WAIT_TIMEOUT_MS });
  const refused = await open(otherSite.url("frame", address));
  await waitFor("the browser's refusal", () => refused.frames().some((each) => each.url().startsWith("chrome-error:")));
  assert.deepEqual(mediaRequests(refused), []);
});
