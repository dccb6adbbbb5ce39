// nginx as a cache in front of a node whose stream not everybody may watch. Two viewers in Chromium
// share what it stores; nobody gets from it what the node would refuse.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Administrator } from "../lib/administrator.js";
import { openChromium, waitFrames } from "../lib/browser.js";
import { DaemonNode } from "../lib/daemon-node.js";
import { FakeClock } from "../lib/fake-clock.js";
import { createNetwork } from "../lib/network.js";
import { startNginx } from "../lib/nginx.js";
import { Publisher, waitFor } from "../lib/node.js";
import { startSite } from "../lib/site.js";

const WINDOW_MS = 60_000;

let network, clock, node, publisher, nginx, site, browser, playlist, token;

before(async () => {
  network = await createNetwork();
  clock = new FakeClock();
  node = new DaemonNode({ environment: clock.environment });
  await node.start("i-0here");
  publisher = await new Publisher("demo").start(node);
  nginx = await startNginx({ environment: clock.environment });
  site = await startSite(8000);
  browser = await openChromium(network, [nginx.origin, site.origin]);
  const administrator = new Administrator(node);
  await administrator.change({ play: "jwt", jwt_key: "0123456789abcdef0123456789abcdef", allowed_origins: [site.origin] });
  token = await administrator.makeToken("jwt", "demo");
  playlist = `${nginx.origin}/live/streams/demo.m3u8?token=${token}`;
});

after(async () => {
  await browser?.close();
  await nginx?.close();
  await publisher?.close();
  await node?.close();
  for (const each of [site, clock, network]) each?.close();
});

/** How nginx answers a request: status, what its cache did, and the answer. */
async function get(url, headers = {}) {
  const answer = await fetch(url, { headers });
  const body = Buffer.from(await answer.arrayBuffer());
  return { url: answer.url, status: answer.status, cache: answer.headers.get("x-cache-status"), headers: answer.headers, body };
}

const firstUri = (text) => text.split("\n").find((line) => line && !line.startsWith("#"));

/** The signed URL of a segment, which is then in the cache. */
async function cachedSegment() {
  const entry = await waitFor("the playlist", async () => {
    const answer = await get(playlist);
    return answer.status === 200 && answer;
  });
  const media = await get(new URL(firstUri(String(entry.body)), entry.url));
  const url = new URL(firstUri(String(media.body)), media.url);
  assert.equal((await get(url)).status, 200);
  return url;
}

const isMedia = ({ url }) => url.searchParams.has("sig");
const cacheStatus = ({ headers }) => headers["x-cache-status"];

test("two viewers share the media in the cache, and playlists are never in it", async () => {
  const viewers = [];
  for (let count = 0; count < 2; count++) {
    const page = await browser.open(site.url("hls.js", playlist));
    viewers.push(page);
    await waitFrames(page, 25);
  }
  await waitFor("media from the cache for the second viewer", () => viewers[1].responseLog.filter((each) => isMedia(each) && cacheStatus(each) === "HIT").length >= 10);
  const all = viewers.flatMap((page) => page.responseLog).filter(({ url }) => url.origin === nginx.origin);
  assert.deepEqual(all.filter(({ status }) => status !== 200).map(({ status, url }) => `${status} ${url}`), []);
  const playlists = all.filter(({ url }) => url.pathname.endsWith(".m3u8"));
  assert.ok(playlists.length > 10);
  for (const each of playlists) assert.equal(cacheStatus(each), "MISS", String(each.url));
  // The node has sent each URL once, however many viewers have asked for it.
  const misses = all.filter((each) => isMedia(each) && cacheStatus(each) === "MISS").map(({ url }) => String(url));
  assert.deepEqual(misses.filter((url, index) => misses.indexOf(url) !== index), []);
  for (const page of viewers) {
    assert.deepEqual(await page.evaluate(() => failures), []);
    await page.context().close();
  }
});

test("what is in the cache is refused without the right signature", async () => {
  const url = await cachedSegment();
  const signature = url.searchParams.get("sig");
  const other = `${signature.slice(0, -1)}${signature.endsWith("A") ? "B" : "A"}`;
  for (const query of ["", `?token=${token}`, `?sig=${other}`, `?sig=${Number(signature.split("~")[0]) + 1}~${signature.split("~")[1]}`]) {
    const answer = await get(new URL(query || url.pathname, url));
    assert.deepEqual([answer.status, JSON.parse(String(answer.body)).error], [403, "signature_invalid"], query);
  }
  assert.equal((await get(url)).cache, "HIT");
});

test("each site gets the header fields that are meant for it from the cache", async () => {
  const url = await cachedSegment();
  const allowed = async (headers) => (await get(url, headers)).headers.get("access-control-allow-origin");
  for (let round = 0; round < 2; round++) {
    assert.equal(await allowed({ origin: site.origin }), site.origin);
    assert.equal(await allowed({ origin: "https://other.example" }), null);
    assert.equal(await allowed({}), null);
  }
  assert.equal((await get(url, { origin: site.origin })).cache, "HIT");
});

test("the cache serves a segment until its signature expires, and not longer", async () => {
  const url = await cachedSegment();
  const endMs = (Number(url.searchParams.get("sig").split("~")[0]) + 2) * WINDOW_MS;
  const setTime = (ms) => clock.setOffset(Math.round((ms - Date.now()) / 1000));
  // The time by the clock of nginx.
  const ask = async () => {
    const answer = await get(url);
    return { ...answer, atMs: Date.parse(answer.headers.get("date")) };
  };
  setTime(endMs - 20_000);
  const last = await waitFor("the end of the last window", async () => {
    const answer = await ask();
    assert.deepEqual([answer.status, answer.cache], [200, "HIT"]);
    return answer.atMs >= endMs - 25_000 && answer;
  });
  assert.ok(last.atMs < endMs);
  setTime(endMs + 1000);
  const refused = await waitFor("the refusal", async () => {
    const answer = await ask();
    assert.ok(answer.cache !== "HIT" || answer.atMs < endMs, `served ${answer.atMs - endMs} ms after the end`);
    return answer.status === 403 && answer;
  });
  assert.equal(JSON.parse(String(refused.body)).error, "signature_expired");
});
