// The client of the engine's REST API. Independent of any page.

/** An error response of the engine: stable code, sentence and HTTP status. Status 0: no response. `body` is the JSON of
 *  the response, `alternativeUrl` the same resource on another node, `retryAfterMs` the wait that the server asks for;
 *  each of them may be undefined. */
export class ApiError extends Error {
  constructor(status, code, message, { body, alternativeUrl, retryAfterMs } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.body = body;
    this.alternativeUrl = alternativeUrl;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Like fetch, but throws an ApiError on an error status or if no response arrives within `timeoutMs`. */
export async function request(url, { timeoutMs = 5000, signal, ...options } = {}) {
  const timeout = AbortSignal.timeout(timeoutMs);
  let response;
  try {
    response = await fetch(url, { cache: "no-store", ...options, signal: anySignal(signal, timeout) });
  } catch {
    signal?.throwIfAborted();
    throw new ApiError(0, "unreachable", "The server does not answer.");
  }
  if (response.ok) return response;
  throw await errorOf(response);
}

/** The ApiError for a response with an error status. */
export async function errorOf(response) {
  const body = (await response.json().catch(() => null)) ?? {};
  // A load balancer without a healthy engine answers 502 to 504 itself, without the engine's JSON.
  const code = body.error ?? (response.status >= 502 ? "unreachable" : `http_${response.status}`);
  const details = { body, alternativeUrl: body.elsewhere, retryAfterMs: retryAfterMs(response.headers.get("retry-after")) };
  return new ApiError(response.status, code, body.message ?? `The server answered ${response.status}.`, details);
}

/** Milliseconds of a Retry-After header: a number of seconds or a date (RFC 9110 §10.2.3). */
function retryAfterMs(value) {
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? 1000 * Number(value) : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

/** AbortSignal.any, with a fallback for browsers that lack it. */
export function anySignal(first, second) {
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

/** Path of the state of a stream. */
export const streamPath = (app, id) => `/rest/v2/streams/${encodeURIComponent(app)}/${encodeURIComponent(id)}`;

/** The nodes of the cluster, and the age of that list in seconds. */
export async function nodes(options) {
  const response = await request("/rest/v2/cluster/nodes/0/500", options);
  return { nodes: await response.json(), ageS: Number(response.headers.get("age") ?? 0) };
}

export const clusterStreams = (options) => json("/rest/v2/cluster/streams/0/500", options);

/** Removes a dead node from the list. Administrator only. */
export const deleteNode = (id) => request(`/rest/v2/cluster/node/${encodeURIComponent(id)}`, { method: "DELETE" });

/** Requests that a node drains and stops. Administrator only. */
export const drainNode = (id) => request(`/rest/v2/cluster/node/${encodeURIComponent(id)}/drain`, { method: "POST" });

/** The settings of all apps. Administrator only. */
export const apps = (options) => json("/rest/v2/apps", options);

const withBody = (method, body) => ({ method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

/** Writes the settings of an app, with the revision that they are based on. Administrator only. */
export const putApp = (settings) =>
  json(`/rest/v2/apps/${encodeURIComponent(settings.name)}`, { ...withBody("PUT", settings), timeoutMs: 10_000 });

/** Makes a token for an app. Administrator only. */
export const makeToken = (app, token) =>
  json(`/rest/v2/apps/${encodeURIComponent(app)}/tokens`, { ...withBody("POST", token), timeoutMs: 10_000 });

/** The user that this browser is logged in as. */
export const session = (options) => json("/rest/v2/session", options);

export const logIn = (name, password) =>
  json("/rest/v2/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name, password }),
    // Password hashing is slow on purpose, and the server limits how many run at once.
    timeoutMs: 15_000,
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

/** Delay before attempt n (from 0) in ms: doubles from 300 ms to 3 s, minus a random jitter of up to 30 %. */
export function backoffMs(attempt) {
  return Math.min(3000, 300 * 2 ** Math.min(attempt, 8)) * (1 - 0.3 * Math.random());
}
