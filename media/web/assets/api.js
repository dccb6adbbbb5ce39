// What the pages ask the engine. Knows nothing of the page.

/** Answers of the engine that are errors: a stable code, a sentence, a status. Status 0: no answer at all. */
export class Refused extends Error {
  constructor(status, code, message, retryable = false) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryable = retryable;
  }
}

/** Like fetch, but an error status or no answer within `patienceMs` throws a Refused. */
export async function request(url, { patienceMs = 5000, signal, ...options } = {}) {
  const limit = AbortSignal.timeout(patienceMs);
  let response;
  try {
    response = await fetch(url, { cache: "no-store", ...options, signal: either(signal, limit) });
  } catch {
    signal?.throwIfAborted();
    throw new Refused(0, "unreachable", "The server does not answer.", true);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  // A load balancer in front of no engine answers 502 to 504 on its own, without our JSON.
  const code = body.error ?? (response.status >= 502 ? "unreachable" : `http_${response.status}`);
  throw new Refused(response.status, code, body.message ?? `The server answered ${response.status}.`);
}

/** AbortSignal.any, also for browsers that lack it. */
export function either(first, second) {
  if (!first) return second;
  if (AbortSignal.any) return AbortSignal.any([first, second]);
  const both = new AbortController();
  for (const signal of [first, second]) {
    if (signal.aborted) both.abort(signal.reason);
    else signal.addEventListener("abort", () => both.abort(signal.reason), { once: true });
  }
  return both.signal;
}

const json = async (url, options) => (await request(url, options)).json();

export const streams = (options) => json("/rest/v2/streams", options);

export const stream = (app, id, options) =>
  json(`/rest/v2/streams/${encodeURIComponent(app)}/${encodeURIComponent(id)}`, options);

/** Nodes of the cluster, and how many seconds ago the registry said so. */
export async function nodes(options) {
  const response = await request("/rest/v2/cluster/nodes/0/500", options);
  return { nodes: await response.json(), ageS: Number(response.headers.get("age") ?? 0) };
}

export const clusterStreams = (options) => json("/rest/v2/cluster/streams/0/500", options);

/** Removes a dead node from the list; only the administrator may. */
export const deleteNode = (id) => request(`/rest/v2/cluster/node/${encodeURIComponent(id)}`, { method: "DELETE" });

/** Asks a node to hand over and end; only the administrator may. */
export const drainNode = (id) => request(`/rest/v2/cluster/node/${encodeURIComponent(id)}/drain`, { method: "POST" });

/** Who the server takes us for. */
export const session = (options) => json("/rest/v2/session", options);

export const logIn = (name, password) =>
  json("/rest/v2/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name, password }),
    // Passwords are looked at slowly on purpose, and one after the other.
    patienceMs: 15_000,
  });

export const logOut = () => request("/rest/v2/session", { method: "DELETE" });

export const node = (options) => json("/rest/v2/node", options);

/** Resolves after `ms`, or rejects as soon as `signal` aborts. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** How long to wait before attempt n (from 0): doubling from 300 ms to 3 s, with up to 30 % taken off at random. */
export function backoffMs(attempt) {
  return Math.min(3000, 300 * 2 ** Math.min(attempt, 8)) * (1 - 0.3 * Math.random());
}
