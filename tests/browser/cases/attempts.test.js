// The requests of the player page (assets/player/attempts.js) in Chromium, at a server that fails in
// every way that a load balancer and its nodes can fail. Without an engine.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";

import { openChromium } from "../lib/browser.js";
import { createNetwork, SERVER_ADDRESS } from "../lib/network.js";

const ASSETS = new URL("../../../media/web/assets/", import.meta.url);
const PORT = 5080;

let network, server, browser, page, origin;
/** Decides what happens to a request for `/data`: `answer({ request, response, connection })`. */
let answer;
/** The requests for `/data` and `/other`: path, connection and time in milliseconds. */
const requests = [];

before(async () => {
  network = await createNetwork();
  let connections = 0;
  server = createServer((request, response) => {
    const url = new URL(request.url, origin);
    if (url.pathname === "/") return response.setHeader("content-type", "text/html").end("<title>test</title>");
    if (url.pathname.startsWith("/assets/")) {
      return response.setHeader("content-type", "text/javascript").end(readFileSync(new URL(url.pathname.slice(8), ASSETS)));
    }
    if (!["/data", "/other"].includes(url.pathname)) return response.writeHead(404).end();
    const connection = request.socket.number;
    requests.push({ path: url.pathname + url.search, connection, at: performance.now() });
    answer({ request, response, connection });
  });
  server.on("connection", (socket) => (socket.number = connections++));
  server.keepAliveTimeout = 60_000;
  await new Promise((resolve) => server.listen(PORT, resolve));
  origin = `http://${SERVER_ADDRESS}:${PORT}`;
  browser = await openChromium(network, [origin]);
});

after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
  network?.close();
});

beforeEach(async () => {
  await page?.context().close();
  page = await browser.open("/");
  requests.length = 0;
});

const ok = ({ response, connection }) => response.end(String(connection));

/** Requests `path` as the player does; returns the answer and how long it took, or the error. */
const send = (path, options = {}) =>
  page.evaluate(async ([path, options]) => {
    const { requestPersistently } = await import("/assets/player/attempts.js");
    const start = performance.now();
    try {
      const response = await requestPersistently(path, options);
      return { text: await response.text(), ms: performance.now() - start };
    } catch (e) {
      return { error: e.code, ms: performance.now() - start };
    }
  }, [path, options]);

/** Opens four connections that the browser keeps, and returns their numbers. */
async function openConnections() {
  answer = (request) => setTimeout(() => ok(request), 100);
  const numbers = await page.evaluate(() => Promise.all([1, 2, 3, 4].map(() => fetch("/data").then((r) => r.text()))));
  requests.length = 0;
  return numbers.map(Number);
}

test("a request that is not answered is repeated on a new connection, although four are idle", async (t) => {
  const frozen = await openConnections();
  answer = (request) => frozen.includes(request.connection) || ok(request);
  const { text, ms } = await send("/data");
  t.diagnostic(`answered after ${Math.round(ms)} ms, attempt ${requests.length}`);
  assert.ok(!frozen.includes(Number(text)), `connection ${text} of ${frozen}`);
  assert.ok(frozen.includes(requests[0].connection), "the browser did not use a connection of before");
  assert.ok(!frozen.includes(requests[1].connection), `connection ${requests[1].connection} of ${frozen}`);
});

test("after a loss, the first attempt already has a new connection, and later requests stay on it", async () => {
  const frozen = await openConnections();
  answer = (request) => frozen.includes(request.connection) || ok(request);
  assert.ok((await send("/data", { isAfterLoss: true })).text);
  assert.ok((await send("/data")).text);
  for (const { connection } of requests) assert.ok(!frozen.includes(connection), `connection ${connection} of ${frozen}`);
});

test("attempts without an answer are abandoned, and further ones follow every 0.3 s", async () => {
  let abandoned = 0;
  answer = (request) => {
    // An answered request closes, too.
    request.response.on("close", () => (abandoned += Number(!request.response.writableFinished)));
    if (requests.length >= 5 && abandoned > 0) ok(request);
  };
  const { ms, text } = await send("/data", { isAfterLoss: true });
  assert.ok(text, "no attempt was abandoned: no fifth one followed");
  assert.equal(new Set(requests.map((r) => r.connection)).size, requests.length);
  assert.ok(ms > 900 && ms < 3000, `${ms} ms`);
});

const refuseUsedToken = ({ response }) => response.writeHead(403).end(JSON.stringify({ error: "token_used" }));

/** From the arrival of a refusal to its effect: its text is still to be read. */
const REFUSAL_MS = 200;

/** Makes the page count the requests that it sends after a refusal has arrived. */
const watchRefusals = () =>
  page.evaluate((limitMs) => {
    window.sentAfterRefusal = 0;
    let refusedAt = Infinity;
    const fetch_ = window.fetch;
    window.fetch = async (...args) => {
      if (performance.now() > refusedAt + limitMs) window.sentAfterRefusal += 1;
      const response = await fetch_(...args);
      if (response.status === 403) refusedAt = Math.min(refusedAt, performance.now());
      return response;
    };
  }, REFUSAL_MS);

test("an attempt that is refused because of an earlier one does not end the earlier one", async () => {
  const waiting = [];
  answer = (request) => {
    if (requests.length < 3) return waiting.push(request);
    refuseUsedToken(request);
    // By then, two further attempts would have been made.
    setTimeout(() => waiting.splice(0).forEach(ok), 800);
  };
  await watchRefusals();
  const { text, error } = await send("/data?token=once", { isAfterLoss: true, isOnce: true });
  assert.equal(error, undefined);
  assert.ok(requests.slice(0, 2).some(({ connection }) => text === String(connection)), `connection ${text}`);
  assert.equal(await page.evaluate(() => window.sentAfterRefusal), 0);
});

test("the refusal is the result if the earlier attempts fail, and no further ones are made", async () => {
  answer = (request) => requests.length > 1 && refuseUsedToken(request);
  await watchRefusals();
  const { error, ms } = await send("/data?token=once", { isAfterLoss: true });
  assert.equal(error, "token_used");
  assert.equal(await page.evaluate(() => window.sentAfterRefusal), 0);
  assert.ok(ms < 5000, `${ms} ms`);
});

test("a slow answer counts where only one attempt may succeed", async () => {
  answer = (request) => {
    const respond = request.connection === requests[0].connection ? ok : refuseUsedToken;
    setTimeout(() => respond(request), 2000);
  };
  assert.equal((await send("/data?token=once", { isOnce: true })).text, String(requests[0].connection));
});

test("errors of a load balancer are retried at once, with growing pauses", async () => {
  const statuses = [502, 504, 502];
  answer = (request) => {
    const status = statuses.shift();
    if (status) request.response.writeHead(status).end("<h1>no JSON</h1>");
    else ok(request);
  };
  const { ms, text } = await send("/data");
  assert.ok(text, "no answer");
  assert.equal(requests.length, 4);
  assert.ok(ms < 3000, `${ms} ms`);
});

const refuse = ({ response }, body = {}, headers = {}) =>
  response.writeHead(503, { "content-type": "application/json", ...headers }).end(JSON.stringify({ error: "full", message: "Full.", ...body }));

test("a 503 is repeated after the time in its Retry-After, not before", async () => {
  answer = (request) => (requests.length === 1 ? refuse(request, {}, { "retry-after": "1" }) : ok(request));
  await send("/data");
  assert.equal(requests.length, 2);
  const waited = requests[1].at - requests[0].at;
  assert.ok(waited >= 1000 && waited < 2500, `${waited} ms`);
});

test("a very long Retry-After does not keep a viewer waiting", async () => {
  answer = (request) => (requests.length === 1 ? refuse(request, {}, { "retry-after": "3600" }) : ok(request));
  assert.ok((await send("/data")).text);
});

test("a 503 that names another node is followed there at once, with the query", async () => {
  answer = (request) => {
    if (requests.at(-1).path.startsWith("/other")) ok(request);
    else refuse(request, { elsewhere: `${origin}/other` }, { "retry-after": "1" });
  };
  const { ms, text } = await send("/data?token=a");
  assert.ok(text);
  assert.deepEqual(requests.map((r) => r.path), ["/data?token=a", "/other?token=a"]);
  assert.ok(ms < 1000, `${ms} ms`);
});

test("a final answer is not repeated, and endless refusals end", async () => {
  answer = ({ response }) => response.writeHead(404).end(JSON.stringify({ error: "stream_not_found" }));
  assert.equal((await send("/data")).error, "stream_not_found");
  assert.equal(requests.length, 1);
  requests.length = 0;
  answer = (request) => refuse(request);
  assert.equal((await send("/data")).error, "full");
  assert.equal(requests.length, 4);
});

test("an answer that stops in the middle is given up", async () => {
  answer = ({ response }) => response.writeHead(200, { "content-length": 100 }).write("begin");
  const { error, ms } = await page.evaluate(async () => {
    const { requestPersistently, readBody } = await import("/assets/player/attempts.js");
    const start = performance.now();
    const response = await requestPersistently("/data");
    return readBody(response, "text").then(() => ({}), (e) => ({ error: e.code, ms: performance.now() - start }));
  });
  assert.equal(error, "unreachable");
  assert.ok(ms < 3000, `${ms} ms`);
});
