// Decides what to try next. Knows transports only by their `play`, and the page only by what it tells it.
//
//            first attempt                     404
//   loading ───────────────▶ transport ─────────────────▶ waiting ──(the stream is there)──▶ loading
//      ▲                       │   │ unplayable: next in the order
//      │                       │   ▼
//      │        played, ended  │  live
//      └──── reconnecting ◀────┴───┘
//
// It never gives up; between attempts it waits 0.3 s to 3 s.

import * as api from "../api.js";
import { Outcome } from "./outcome.js";
import * as hls from "./hls.js";
import * as webrtc from "./webrtc.js";

const TRANSPORTS = { webrtc, hls, "ll-hls": hls };

/** How long a transport that cannot work here is left out. */
const REMEMBER_MS = 5 * 60_000;

/** "webrtc,hls" -> [[name, transport]]; what is unknown is left out, and nothing known means both. */
export function order(text) {
  const names = (text ?? "").toLowerCase().split(",").map((name) => name.trim());
  const known = names.filter((name) => Object.hasOwn(TRANSPORTS, name)).map((name) => (name === "ll-hls" ? "hls" : name));
  const unique = [...new Set(known)];
  return (unique.length ? unique : ["webrtc", "hls"]).map((name) => [name, TRANSPORTS[name]]);
}

/** Plays for ever, until `signal` aborts. `view` is told:
 *  state(name, sentence): "loading" | "live" | "waiting" | "reconnecting" | "wrong",
 *  transport(name | null, label), latency(seconds | null), notice(sentence), ready(). */
export async function run({ video, app, id, token, playOrder, signal, view }) {
  const transports = order(playOrder);
  const leaveOut = new Map();
  let attempt = 0;
  view.state("loading", "Connecting…");
  for (;;) {
    const outcome = await once({ video, app, id, token, transports, leaveOut, signal, view, played: () => (attempt = 0) });
    signal.throwIfAborted();
    view.transport(null, "");
    view.latency(null);
    if (outcome.kind === "gone") {
      // The stream was live a moment ago: it most likely comes back.
      view.state("waiting", outcome.played ? "The stream has ended. Waiting for it to come back…" : "Waiting for the stream to start…");
    } else if (outcome.kind === "wrong") {
      view.state("wrong", outcome.message);
    } else {
      view.state("reconnecting", outcome.kind === "unreachable" ? "The server does not answer. Trying again…" : "Reconnecting…");
    }
    await api.pause(api.backoffMs(attempt++), signal);
    await live({ app, id, signal, view });
  }
}

/** Tries the transports in order. Gives the outcome of the last one tried. */
async function once({ video, app, id, token, transports, leaveOut, signal, view, played }) {
  const now = performance.now();
  let usable = transports.filter(([name]) => !(leaveOut.get(name) > now));
  if (usable.length === 0) usable = transports;
  let outcome;
  for (const [index, [name, transport]] of usable.entries()) {
    let began = false;
    const on = {
      ready: () => view.ready(),
      latency: (seconds) => view.latency(seconds),
      playing: () => {
        began = true;
        played();
        view.transport(name, transport.label);
        view.state("live", "");
      },
    };
    view.ready();
    try {
      await transport.play({ video, app, id, token, signal, on });
    } catch (e) {
      signal.throwIfAborted();
      if (!(e instanceof Outcome)) console.error(e);
      outcome = e instanceof Outcome ? e : new Outcome("unplayable", "Something went wrong in this player.");
    }
    outcome.played = began;
    if (outcome.remember) leaveOut.set(name, performance.now() + REMEMBER_MS);
    if (outcome.kind !== "unplayable") return outcome;
    const next = usable[index + 1];
    // Some sentences of the server say already what is played instead.
    const said = !next || outcome.message.includes(`${next[1].label} instead`);
    view.notice(said ? outcome.message : `${outcome.message} Playing over ${next[1].label} instead.`);
    if (next) view.state("loading", "Connecting…");
  }
  return outcome;
}

/** Returns once the stream is live. */
async function live({ app, id, signal, view }) {
  for (let attempt = 0; ; attempt++) {
    try {
      await api.stream(app, id, { signal });
      return;
    } catch (e) {
      signal.throwIfAborted();
      if (e.code === "stream_not_found") {
        view.state("waiting", "Waiting for the stream to start…");
        // Somebody waits for a start: look every second, not with growing pauses.
        await api.pause(700 + 600 * Math.random(), signal);
        continue;
      }
      if (e.code === "app_not_found" || e.code === "bad_request") view.state("wrong", e.message);
      else view.state("reconnecting", "The server does not answer. Trying again…");
    }
    await api.pause(api.backoffMs(attempt), signal);
  }
}
