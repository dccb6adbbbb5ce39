// Decides which transport to try next. Knows a transport only by its `play`, and the page only by `view`.
//
//            first attempt                     404
//   loading ───────────────▶ transport ─────────────────▶ waiting ──(the stream is live)──▶ loading
//      ▲                       │   │ unplayable: next in the order
//      │                       │   ▼
//      │        played, ended  │  live ◀──▶ reconnecting (node lost), waiting (nothing arrives)
//      └──── reconnecting ◀────┴───┘
//
// Retries without limit, with a delay of 0.3 s to 3 s between attempts.

import * as api from "../api.js";
import { requestPersistently } from "./attempts.js";
import { Credentials } from "./credentials.js";
import { Outcome } from "./outcome.js";
import * as hls from "./hls.js";
import * as webrtc from "./webrtc.js";

const TRANSPORTS = { webrtc, hls, "ll-hls": hls };

/** How long a transport that does not work here is skipped. */
const SKIP_MS = 5 * 60_000;

/** A stream that another node publishes is only found by a request for its media: send one this often while waiting. */
const MEDIA_REQUEST_INTERVAL_MS = 2000;

/** A token that is not valid yet becomes valid, and an administrator may open the app. The server counts wrong tokens. */
const REFUSED_RETRY_MS = 10_000;

/** "webrtc,hls" -> [[name, transport]]. Ignores unknown names; returns both transports if none is known. */
export function transportOrder(text) {
  const names = (text ?? "").toLowerCase().split(",").map((name) => name.trim());
  const known = names.filter((name) => Object.hasOwn(TRANSPORTS, name)).map((name) => (name === "ll-hls" ? "hls" : name));
  const unique = [...new Set(known)];
  return (unique.length ? unique : ["webrtc", "hls"]).map((name) => [name, TRANSPORTS[name]]);
}

/** Plays until `signal` aborts. Calls on `view`:
 *  state(name, sentence, hint) with "loading" | "live" | "waiting" | "reconnecting" | "wrong" | "refused",
 *  transport(name | null, label), latency(seconds | null), notice(sentence), ready(). `view.isPaused()` is true while the
 *  viewer has paused playback. */
export async function run({ video, app, id, token, playOrder, signal, view }) {
  const transports = transportOrder(playOrder);
  const credentials = new Credentials(token);
  const skippedUntil = new Map();
  let attempt = 0;
  view.state("loading", "Connecting…");
  for (;;) {
    const outcome = await tryTransports({ video, app, id, credentials, transports, skippedUntil, signal, view, played: () => (attempt = 0) });
    signal.throwIfAborted();
    view.transport(null, "");
    view.latency(null);
    if (outcome.kind === "refused" && credentials.forgetSession() && token) continue;
    if (outcome.kind === "offline") {
      // A stream that was live a moment ago most likely comes back.
      view.state("waiting", outcome.played ? "The stream has ended. Waiting for it to come back…" : "Waiting for the stream to start…");
    } else if (outcome.kind === "wrong" || outcome.kind === "refused") {
      view.state(outcome.kind, outcome.message, outcome.hint);
    } else {
      view.state("reconnecting", outcome.kind === "unreachable" ? "The server does not answer. Trying again…" : "Reconnecting…");
    }
    // The next attempt follows quickly if the user has waited for the start. Without that wait, the
    // status lists a stream that does not play here.
    await api.pause(outcome.kind === "refused" ? REFUSED_RETRY_MS : api.backoffMs(attempt++), signal);
    if (await waitUntilLive({ app, id, signal, view })) attempt = 0;
  }
}

/** Tries the transports in order. Returns the outcome of the last one tried. */
async function tryTransports({ video, app, id, credentials, transports, skippedUntil, signal, view, played }) {
  const now = performance.now();
  let usable = transports.filter(([name]) => !(skippedUntil.get(name) > now));
  if (usable.length === 0) usable = transports;
  let outcome;
  for (const [index, [name, transport]] of usable.entries()) {
    let started = false;
    const on = {
      ready: () => view.ready(),
      isPaused: () => view.isPaused(),
      latency: (seconds) => view.latency(seconds),
      lost: () => view.state("reconnecting", "Reconnecting…"),
      stalled: () => view.state("waiting", "No media is arriving. Waiting…"),
      playing: () => {
        started = true;
        played();
        view.transport(name, transport.label);
        view.state("live", "");
      },
    };
    view.ready();
    try {
      await transport.play({ video, app, id, credentials, signal, on });
    } catch (e) {
      signal.throwIfAborted();
      if (!(e instanceof Outcome)) console.error(e);
      outcome = e instanceof Outcome ? e : new Outcome("unplayable", "Something went wrong in this player.");
    }
    outcome.played = started;
    if (outcome.remember) skippedUntil.set(name, performance.now() + SKIP_MS);
    if (outcome.kind !== "unplayable") return outcome;
    const next = usable[index + 1];
    // Some messages of the server already name the transport that plays instead.
    const isComplete = !next || outcome.message.includes(`${next[1].label} instead`);
    view.notice(isComplete ? outcome.message : `${outcome.message} Playing over ${next[1].label} instead.`);
    if (next) view.state("loading", "Connecting…");
  }
  return outcome;
}

/** Returns once the stream is live on this node, or may be live on another one: true if it was not live at first. */
async function waitUntilLive({ app, id, signal, view }) {
  const end = performance.now() + MEDIA_REQUEST_INTERVAL_MS;
  let waited = false;
  for (let attempt = 0; ; attempt++) {
    try {
      await requestPersistently(api.streamPath(app, id), { signal });
      return waited;
    } catch (e) {
      signal.throwIfAborted();
      if (e.code === "stream_not_found") {
        waited = true;
        view.state("waiting", "Waiting for the stream to start…");
        if (performance.now() > end) return true;
        // The user waits for the start: poll about every second, without backoff.
        await api.pause(700 + 600 * Math.random(), signal);
        continue;
      }
      if (e.code === "app_not_found" || e.code === "bad_request") view.state("wrong", e.message);
      else view.state("reconnecting", "The server does not answer. Trying again…");
    }
    await api.pause(api.backoffMs(attempt), signal);
  }
}
