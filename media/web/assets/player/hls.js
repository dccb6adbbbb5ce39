// Plays LL-HLS with hls.js where there is Media Source, else with what the browser has itself (Safari).

import { Refused, pause, request } from "../api.js";
import { Outcome, outcomeOf } from "./outcome.js";
import { Watch } from "./watch.js";

export const label = "LL-HLS";

/** From the request to the first picture. */
const FIRST_FRAME_MS = 10_000;

/** Close to the live edge, and back to it without a jump. */
const SETTINGS = {
  lowLatencyMode: true,
  // fMP4 needs no repackaging: a worker would only add a hop, and a blob to what the page may run.
  enableWorker: false,
  // Plays up to this fast until it is back at the target latency.
  maxLiveSyncPlaybackRate: 1.15,
  liveSyncOnStallIncrease: 0.2,
  backBufferLength: 10,
  maxBufferLength: 10,
  manifestLoadingMaxRetry: 0,
  levelLoadingMaxRetry: 2,
  fragLoadingMaxRetry: 2,
};

/** Plays until `signal` aborts or an Outcome is thrown. Calls `on.playing()` once and `on.latency(seconds)` often. */
export async function play({ video, app, id, token, signal, on }) {
  const url = new URL(`/${encodeURIComponent(app)}/streams/${encodeURIComponent(id)}.m3u8`, location.href);
  if (token) url.searchParams.set("token", token);
  // One plain request first: its error says why, which players do not tell.
  try {
    await request(url, { signal });
  } catch (e) {
    throw e instanceof Refused ? outcomeOf(e) : e;
  }
  const Hls = await load();
  if (Hls?.isSupported()) {
    await withHls(Hls, { url, token, video, signal, on });
  } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
    await natively({ url, video, signal, on });
  } else {
    throw new Outcome("unplayable", "This browser can play neither WebRTC nor HLS.", { remember: true });
  }
}

let loading;

/** hls.js, loaded when it is first needed. */
function load() {
  loading ??= new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = "/assets/hls.js";
    script.onload = () => resolve(window.Hls);
    script.onerror = () => {
      loading = undefined;
      resolve(undefined);
    };
    document.head.append(script);
  });
  return loading;
}

async function withHls(Hls, { url, token, video, signal, on }) {
  const hls = new Hls({
    ...SETTINGS,
    xhrSetup(xhr, requested) {
      const withToken = new URL(requested, location.href);
      if (token) withToken.searchParams.set("token", token);
      xhr.open("GET", withToken, true);
    },
  });
  let over;
  let recovered = false;
  hls.on(Hls.Events.ERROR, (_, error) => {
    if (!error.fatal) return;
    if (error.type === Hls.ErrorTypes.MEDIA_ERROR && !recovered) {
      recovered = true;
      hls.recoverMediaError();
      return;
    }
    over ??= new Outcome("ended", "The stream stopped.");
  });
  try {
    hls.loadSource(url.href);
    hls.attachMedia(video);
    hls.on(Hls.Events.MANIFEST_PARSED, () => on.ready());
    await watch(video, signal, on, {
      over: () => over,
      latency: () => (hls.latency > 0 ? hls.latency : null),
      toLive: () => {
        if (hls.liveSyncPosition) video.currentTime = hls.liveSyncPosition;
      },
    });
  } finally {
    hls.destroy();
    video.removeAttribute("src");
    video.load();
  }
}

async function natively({ url, video, signal, on }) {
  let over;
  const fail = () => (over = new Outcome("ended", "The stream stopped."));
  video.addEventListener("error", fail);
  video.addEventListener("ended", fail);
  const edge = () => (video.seekable.length ? video.seekable.end(video.seekable.length - 1) : 0);
  try {
    video.src = url.href;
    on.ready();
    await watch(video, signal, on, {
      over: () => over,
      latency: () => (video.getStartDate && !Number.isNaN(+video.getStartDate())
        ? (Date.now() - +video.getStartDate()) / 1000 - video.currentTime
        : null),
      toLive: () => {
        video.currentTime = edge();
      },
    });
  } finally {
    video.removeEventListener("error", fail);
    video.removeEventListener("ended", fail);
    video.removeAttribute("src");
    video.load();
  }
}

async function watch(video, signal, on, { over, latency, toLive }) {
  const progress = new Watch(FIRST_FRAME_MS);
  let wasPaused = video.paused;
  for (;;) {
    if (over() instanceof Outcome) throw over();
    if (video.ended) throw new Outcome("ended", "The stream has ended.");
    if (progress.note(video.currentTime)) on.playing();
    if (video.paused && progress.began) progress.excuse();
    if (wasPaused && !video.paused && progress.began) toLive();
    wasPaused = video.paused;
    if (progress.isStuck()) {
      if (progress.began) throw new Outcome("ended", "The stream stopped.");
      if (!video.paused) throw new Outcome("unplayable", "No picture came over HLS.");
      progress.excuse();
    }
    const seconds = latency();
    if (progress.began && seconds !== null) on.latency(seconds);
    await pause(progress.began ? 250 : 50, signal);
  }
}
