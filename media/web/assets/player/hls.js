// Plays LL-HLS with hls.js if the browser has Media Source Extensions, else natively (Safari).

import { ApiError, pause, request } from "../api.js";
import { Outcome, outcomeOf } from "./outcome.js";
import { ProgressMonitor } from "./progress-monitor.js";

export const label = "LL-HLS";

/** From the request to the first video frame. */
const FIRST_FRAME_TIMEOUT_MS = 10_000;

/** Stays close to the live edge, and returns to it without a jump. */
const SETTINGS = {
  lowLatencyMode: true,
  // fMP4 needs no remuxing: a worker would only add a hop, and require blob scripts in the page's CSP.
  enableWorker: false,
  // Maximum playback rate while catching up with the target latency.
  maxLiveSyncPlaybackRate: 1.15,
  liveSyncOnStallIncrease: 0.2,
  backBufferLength: 10,
  maxBufferLength: 10,
  manifestLoadingMaxRetry: 0,
  levelLoadingMaxRetry: 2,
  fragLoadingMaxRetry: 2,
};

/** Plays until `signal` aborts or an Outcome is thrown. Calls `on.playing()` once and `on.latency(seconds)` periodically. */
export async function play({ video, app, id, token, signal, on }) {
  const url = new URL(`/${encodeURIComponent(app)}/streams/${encodeURIComponent(id)}.m3u8`, location.href);
  if (token) url.searchParams.set("token", token);
  // Request the playlist first: players do not expose the server's error code.
  try {
    await request(url, { signal });
  } catch (e) {
    throw e instanceof ApiError ? outcomeOf(e) : e;
  }
  const Hls = await loadHlsJs();
  if (Hls?.isSupported()) {
    await playWithHlsJs(Hls, { url, token, video, signal, on });
  } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
    await playNatively({ url, video, signal, on });
  } else {
    throw new Outcome("unplayable", "This browser can play neither WebRTC nor HLS.", { remember: true });
  }
}

let loading;

/** Loads hls.js on first use. Resolves to undefined if that fails. */
function loadHlsJs() {
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

async function playWithHlsJs(Hls, { url, token, video, signal, on }) {
  const hls = new Hls({
    ...SETTINGS,
    xhrSetup(xhr, requested) {
      const withToken = new URL(requested, location.href);
      if (token) withToken.searchParams.set("token", token);
      xhr.open("GET", withToken, true);
    },
  });
  let failure;
  let recovered = false;
  hls.on(Hls.Events.ERROR, (_, error) => {
    if (!error.fatal) return;
    if (error.type === Hls.ErrorTypes.MEDIA_ERROR && !recovered) {
      recovered = true;
      hls.recoverMediaError();
      return;
    }
    failure ??= new Outcome("ended", "The stream stopped.");
  });
  try {
    hls.loadSource(url.href);
    hls.attachMedia(video);
    hls.on(Hls.Events.MANIFEST_PARSED, () => on.ready());
    await monitor(video, signal, on, {
      failure: () => failure,
      latency: () => (hls.latency > 0 ? hls.latency : null),
      seekToLive: () => {
        if (hls.liveSyncPosition) video.currentTime = hls.liveSyncPosition;
      },
    });
  } finally {
    hls.destroy();
    video.removeAttribute("src");
    video.load();
  }
}

async function playNatively({ url, video, signal, on }) {
  let failure;
  const fail = () => (failure = new Outcome("ended", "The stream stopped."));
  video.addEventListener("error", fail);
  video.addEventListener("ended", fail);
  const edge = () => (video.seekable.length ? video.seekable.end(video.seekable.length - 1) : 0);
  try {
    video.src = url.href;
    on.ready();
    await monitor(video, signal, on, {
      failure: () => failure,
      latency: () => (video.getStartDate && !Number.isNaN(+video.getStartDate())
        ? (Date.now() - +video.getStartDate()) / 1000 - video.currentTime
        : null),
      seekToLive: () => {
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

async function monitor(video, signal, on, { failure, latency, seekToLive }) {
  const progress = new ProgressMonitor(FIRST_FRAME_TIMEOUT_MS);
  let wasPaused = video.paused;
  for (;;) {
    if (failure() instanceof Outcome) throw failure();
    if (video.ended) throw new Outcome("ended", "The stream has ended.");
    if (progress.update(video.currentTime)) on.playing();
    if (video.paused && progress.started) progress.restartTimer();
    if (wasPaused && !video.paused && progress.started) seekToLive();
    wasPaused = video.paused;
    if (progress.isStuck()) {
      if (progress.started) throw new Outcome("ended", "The stream stopped.");
      if (!video.paused) throw new Outcome("unplayable", "No video was received over HLS.");
      progress.restartTimer();
    }
    const seconds = latency();
    if (progress.started && seconds !== null) on.latency(seconds);
    await pause(progress.started ? 250 : 50, signal);
  }
}
