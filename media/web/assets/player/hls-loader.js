// Loads playlists and media for hls.js, through a load balancer in front of nodes that may die. Must not know players.
//
// A blocking playlist request is answered with the next part. One that takes longer is replaced by a request that does not
// block: if the node has died, another one answers with newer parts; if the publisher pauses, nothing is new.

import { ApiError } from "../api.js";
import { readBody, requestOnce, requestPersistently } from "./attempts.js";

/** Several times the duration of a part, and half of what the player has in its buffer when the edge dies. */
const BLOCKING_TIMEOUT_MS = 1000;
/** Query parameters of a blocking playlist request (RFC 8216bis §6.2.5.2). */
const PART_PARAMETER = "_HLS_part";
const BLOCKING_PARAMETERS = ["_HLS_msn", PART_PARAMETER];

/** Implements the interface `Loader` of hls.js. The `networkDetails` of an error are an ApiError. */
export class Loader {
  constructor() {
    this.context = null;
    this.headers = null;
    this.stop = new AbortController();
    this.stats = {
      aborted: false, loaded: 0, retry: 0, total: 0, chunkCount: 0, bwEstimate: 0,
      loading: { start: 0, first: 0, end: 0 }, parsing: { start: 0, end: 0 }, buffering: { start: 0, first: 0, end: 0 },
    };
  }

  load(context, _, callbacks) {
    this.context = context;
    this.callbacks = callbacks;
    this.stats.loading.start = performance.now();
    this.run(context).then(
      (response) => {
        if (!this.stats.aborted) callbacks.onSuccess(response, this.stats, context, null);
      },
      (e) => {
        if (this.stats.aborted) return;
        const { status, message } = e instanceof ApiError ? e : { status: 0, message: String(e) };
        callbacks.onError({ code: status, text: message }, context, e, this.stats);
      },
    );
  }

  async run(context) {
    const { signal } = this.stop;
    const { stats } = this;
    const response = await this.request(new URL(context.url, location.href));
    stats.loading.first = performance.now();
    this.headers = response.headers;
    const type = context.responseType === "arraybuffer" ? "arraybuffer" : "text";
    const data = await readBody(response, type, signal);
    stats.loading.end = performance.now();
    stats.loaded = stats.total = data.byteLength ?? data.length;
    return { url: response.url, data, code: response.status };
  }

  async request(url) {
    const { signal } = this.stop;
    const blocksForPart = url.searchParams.has(PART_PARAMETER);
    if (blocksForPart) {
      const response = await requestOnce(url, { signal, timeoutMs: BLOCKING_TIMEOUT_MS });
      if (response) return response;
      this.stats.retry += 1;
    }
    // Without parts the answer takes a segment, longer than any time-out here: do not block.
    for (const name of BLOCKING_PARAMETERS) url.searchParams.delete(name);
    return requestPersistently(url, { signal, isAfterLoss: blocksForPart });
  }

  abort() {
    if (this.stats.loading.end || this.stats.aborted) return;
    this.stats.aborted = true;
    this.stop.abort();
    this.callbacks?.onAbort?.(this.stats, this.context, null);
  }

  destroy() {
    this.stats.aborted = true;
    this.stop.abort();
    this.callbacks = null;
    this.context = null;
  }

  getCacheAge() {
    const age = this.headers?.get("age");
    return age ? parseFloat(age) : null;
  }

  getResponseHeader(name) {
    return this.headers?.get(name) ?? null;
  }
}
