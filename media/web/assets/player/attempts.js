// Sends a request until a node answers it, in a cluster whose nodes may die at any time. Must not know transports.
//
//   attempt 0 ──(no answer for 0.7 s)──▶ attempt 1 beside it ──▶ … ──(first answer)──▶ done
//      │ no answer for 1 s: abandoned        │ error: next attempt after a short random pause
//
// A load balancer still sends new connections to a dead node for some 10 s, until its health checks have failed twice: a
// third of them with three nodes. It routes connections, so an attempt that reached a dead node is repeated on a new one.
// Browsers keep one pool of connections for requests with credentials and one for those without (Fetch §2.6): the
// connections of the first may all lead to the dead node, so retries take the other. Without credentials, they also send
// no stickiness cookie.
//
// A node may refuse an attempt because of an earlier one that it is about to answer, such as one with a one-time token.
// So a final error ends nothing while other attempts run: no further ones begin, and the first success wins.

import { ApiError, anySignal, errorOf, pause } from "../api.js";

/** An attempt without an answer is abandoned after this time. Later ones get longer, in case the network is just slow. */
const ATTEMPT_TIMEOUTS_MS = [1000, 1000, 1000, 1500, 2000, 3000, 5000];
/** The same limit where only one attempt may succeed. */
const ONCE_TIMEOUT_MS = 5000;
/** The next attempt begins this long after one that is not answered yet. A viewer whose node is lost has no time to lose:
 *  with a third of the connections leading to the dead node, four of a hundred need more than three attempts. */
const NEXT_ATTEMPT_MS = 700;
const NEXT_ATTEMPT_AFTER_LOSS_MS = 300;
const MAX_PARALLEL_ATTEMPTS = 4;
/** Viewers that lost the same node do not come back in the same moment. */
const MAX_DELAY_AFTER_LOSS_MS = 200;
/** Pause after an attempt that failed at once, before jitter. Doubles with each further failure, up to the maximum. */
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 1000;
/** A server may ask for longer waits in Retry-After; a viewer does not wait longer than this. */
const MAX_RETRY_AFTER_MS = 3000;
/** After this many answers with status 503, the last of them is the result. */
const MAX_REFUSALS = 4;
/** After this time without an answer, the last failure is the result. */
const TIME_LIMIT_MS = 10_000;

/** Pools of connections, by their `credentials` option. The first one answered last. */
let pools = ["same-origin", "omit"];

/** Like `request` of api.js, but repeats the request until a node answers. After a loss, as with `isAfterLoss`, no attempt
 *  uses the connections of before. With `isOnce`, only one attempt may succeed, so none is abandoned early: it may be that
 *  one. `discard` is called with each response that arrives after the first.
 *  Throws an ApiError if the answer is final, or if there was none for `TIME_LIMIT_MS`. */
export async function requestPersistently(url, { signal, isAfterLoss = false, isOnce = false, discard, ...options } = {}) {
  const end = performance.now() + TIME_LIMIT_MS;
  const nextAttemptMs = isAfterLoss ? NEXT_ATTEMPT_AFTER_LOSS_MS : NEXT_ATTEMPT_MS;
  const running = new Set();
  let target = url;
  let [count, failures, refusals] = [0, 0, 0];
  let isFinal = false;
  let startAt = performance.now() + (isAfterLoss ? MAX_DELAY_AFTER_LOSS_MS * Math.random() : 0);
  let error = new ApiError(0, "unreachable", "The server does not answer.");
  try {
    for (;;) {
      signal?.throwIfAborted();
      const now = performance.now();
      if (now > end || (isFinal && running.size === 0)) throw error;
      const mayStart = () => !isFinal && running.size < MAX_PARALLEL_ATTEMPTS;
      if (now >= startAt && mayStart()) {
        const timeoutMs = isOnce ? ONCE_TIMEOUT_MS : ATTEMPT_TIMEOUTS_MS[Math.min(count, ATTEMPT_TIMEOUTS_MS.length - 1)];
        running.add(new Attempt(target, options, signal, { pool: pools[isAfterLoss || count > 0 ? 1 : 0], timeoutMs }));
        count += 1;
        startAt = now + nextAttemptMs;
      }
      const waitMs = mayStart() ? startAt - performance.now() : end - now;
      const ended = await Promise.race([...[...running].map((attempt) => attempt.result), pause(Math.max(0, waitMs), signal)]);
      if (!ended) continue;
      running.delete(ended.attempt);
      if (ended.response) return ended.response;
      if (!ended.error || isFinal) continue;
      error = ended.error;
      isFinal = !isTemporary(error) || (error.status === 503 && ++refusals >= MAX_REFUSALS);
      if (isFinal) continue;
      const alternative = usableUrl(error.alternativeUrl);
      target = alternative ? withQueryOf(url, alternative) : url;
      startAt = performance.now() + (alternative ? 0 : retryDelayMs(error, failures++));
    }
  } finally {
    for (const attempt of running) attempt.abandon(discard);
  }
}

/** Sends one request. Returns null if it fails or is not answered within `timeoutMs`. */
export async function requestOnce(url, { signal, timeoutMs, ...options }) {
  const { response } = await new Attempt(url, options, signal, { pool: pools[0], timeoutMs }).result;
  signal?.throwIfAborted();
  return response ?? null;
}

/** Reads a response of one of these requests as "text" or "arraybuffer". Throws an ApiError if it makes no progress. */
export async function readBody(response, type, signal) {
  const reader = response.body.getReader();
  const chunks = [];
  for (;;) {
    const arrived = new AbortController();
    const stalled = pause(ATTEMPT_TIMEOUTS_MS[0], anySignal(signal, arrived.signal)).then(() => null);
    const chunk = await Promise.race([reader.read(), stalled]).finally(() => arrived.abort());
    if (!chunk) {
      reader.cancel().catch(() => {});
      throw new ApiError(0, "unreachable", "The server stopped in the middle of its answer.");
    }
    if (chunk.done) break;
    chunks.push(chunk.value);
  }
  const blob = new Blob(chunks);
  return type === "arraybuffer" ? blob.arrayBuffer() : blob.text();
}

/** One request on one connection. `result` resolves to `{ attempt }` with a `response` or an `error`, or with neither if it
 *  was abandoned. */
class Attempt {
  constructor(url, options, signal, { pool, timeoutMs }) {
    this.stop = new AbortController();
    this.result = this.run(url, options, signal, pool, timeoutMs);
  }

  async run(url, options, signal, pool, timeoutMs) {
    const timer = setTimeout(() => this.stop.abort(), timeoutMs);
    try {
      // With the cache, a second request for the same URL would wait for the end of the first.
      const both = anySignal(signal, this.stop.signal);
      const response = await fetch(url, { ...options, cache: "no-store", credentials: pool, signal: both });
      if (!response.ok) return { attempt: this, error: await errorOf(response) };
      if (pool !== pools[0]) pools = [pool, pools[0]];
      return { attempt: this, response };
    } catch {
      if (this.stop.signal.aborted) return { attempt: this };
      return { attempt: this, error: new ApiError(0, "unreachable", "The server does not answer.") };
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the attempt; with `discard`, its response is still awaited and passed on. */
  abandon(discard) {
    if (!discard) this.stop.abort();
    else this.result.then(({ response }) => response && discard(response));
  }
}

/** True if another node, or the same one a moment later, may answer otherwise. */
function isTemporary(error) {
  return error.status === 0 || (error.status >= 502 && error.status <= 504);
}

function retryDelayMs(error, failures) {
  if (error.retryAfterMs !== undefined) {
    return Math.max(FIRST_RETRY_MS, Math.min(error.retryAfterMs, MAX_RETRY_AFTER_MS)) * (1 + 0.3 * Math.random());
  }
  return Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.5 + Math.random());
}

/** `target` with the query of `url`, such as a token. */
function withQueryOf(url, target) {
  const both = new URL(target, location.href);
  both.search = new URL(url, location.href).search;
  return both;
}

/** The URL, unless this page may not request it: pages over HTTPS cannot request HTTP. */
export function usableUrl(url) {
  if (!url) return undefined;
  const { protocol } = new URL(url, location.href);
  return protocol === location.protocol || location.protocol === "http:" ? url : undefined;
}
