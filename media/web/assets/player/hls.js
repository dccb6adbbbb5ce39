// Plays LL-HLS with hls.js if the browser has Media Source Extensions, else natively (Safari).

import { ApiError, pause } from "../api.js";
import { readBody, requestPersistently } from "./attempts.js";
import { Loader } from "./hls-loader.js";
import { Outcome, isRefusal, outcomeOf } from "./outcome.js";
import { ProgressMonitor } from "./progress-monitor.js";

export const label = "LL-HLS";

/** From the request to the first video frame. */
const FIRST_FRAME_TIMEOUT_MS = 10_000;
/** Without progress for this time, playback has stopped. */
const STALL_TIMEOUT_MS = 2000;
/** Playback that does not continue although the stream does is given up after this time. */
const STUCK_TIMEOUT_MS = 5000;
/** Media that should play: more than a hole that hls.js skips. */
const PLAYABLE_S = 0.5;
/** The rest of a buffer that is played out: about a frame. */
const END_OF_BUFFER_S = 0.05;

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

/** Plays until `signal` aborts or an Outcome is thrown. Calls `on.playing()` when playback begins or continues,
 *  `on.stalled()` when it has stopped, `on.latency(seconds)` periodically, and `on.ready()` when the element is to play. */
export async function play({ video, app, id, credentials, signal, on }) {
  const url = new URL(`/${encodeURIComponent(app)}/streams/${encodeURIComponent(id)}.m3u8`, location.href);
  credentials.addTo(url);
  const isOnce = credentials.mayAdmitOnce();
  // Request the playlist first: players do not expose the server's error code.
  let source;
  try {
    source = mediaPlaylist(await readBody(await requestPersistently(url, { signal, isOnce }), "text", signal), url);
    credentials.rememberFrom(source);
  } catch (e) {
    throw e instanceof ApiError ? outcomeOf(e) : e;
  }
  const Hls = await loadHlsJs();
  if (Hls?.isSupported()) {
    await playWithHlsJs(Hls, { source, video, signal, on });
  } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
    await playNatively({ source, video, signal, on });
  } else {
    throw new Outcome("unplayable", "This browser can play neither WebRTC nor HLS.", { remember: true });
  }
}

/** The URL of the media playlist. Of a protected stream, the first playlist is a multivariant one: its media playlist
 *  carries a session, so that the token is presented only once. */
function mediaPlaylist(text, url) {
  if (!text.includes("#EXT-X-STREAM-INF")) return url;
  const uri = text.split("\n").find((line) => line && !line.startsWith("#"));
  return new URL(uri, url);
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

/** Plays with one player after another: the buffers of a player cannot take other tracks, such as audio that begins later. */
async function playWithHlsJs(Hls, context) {
  for (;;) await playTracks(Hls, context);
}

/** Plays until the tracks of the stream change. */
async function playTracks(Hls, { source, video, signal, on }) {
  const hls = new Hls({ ...SETTINGS, loader: Loader });
  let failure;
  let recovered = false;
  let tracks;
  let tracksChanged = false;
  hls.on(Hls.Events.ERROR, (_, error) => {
    // hls.js would ask for the playlist again. A segment may be refused because of its age alone.
    if (error.details === Hls.ErrorDetails.LEVEL_LOAD_ERROR && isRefusal(error.networkDetails)) {
      failure ??= outcomeOf(error.networkDetails);
    }
    if (!error.fatal || tracksChanged) return;
    if (error.type === Hls.ErrorTypes.MEDIA_ERROR && !recovered) {
      recovered = true;
      hls.recoverMediaError();
      return;
    }
    failure ??= new Outcome("ended", "The stream stopped.");
  });
  hls.on(Hls.Events.BUFFER_CODECS, (_, codecs) => {
    const names = ["audio", "video", "audiovideo"].filter((name) => codecs[name]).join();
    tracks ??= names;
    if (names === tracks || tracksChanged) return;
    tracksChanged = true;
    hls.stopLoad();
  });
  try {
    hls.loadSource(source.href);
    hls.attachMedia(video);
    hls.on(Hls.Events.MANIFEST_PARSED, () => on.ready());
    await monitor(video, signal, on, {
      failure: () => failure,
      // The last frames with the old tracks are still played.
      isFinished: (progress) => tracksChanged && (bufferedAheadS(video) < END_OF_BUFFER_S || progress.idleMs() > 300),
      latency: () => (hls.latency > 0 ? hls.latency : null),
      edge: () => hls.latestLevelDetails?.edge ?? 0,
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

/** Seconds of media from the current position without a hole. */
function bufferedAheadS(video) {
  const { buffered, currentTime } = video;
  for (let i = 0; i < buffered.length; i++) {
    if (buffered.start(i) <= currentTime + 0.1 && currentTime < buffered.end(i)) return buffered.end(i) - currentTime;
  }
  return 0;
}

async function playNatively({ source, video, signal, on }) {
  let failure;
  const fail = () => (failure = new Outcome("ended", "The stream stopped."));
  video.addEventListener("error", fail);
  video.addEventListener("ended", fail);
  const edge = () => (video.seekable.length ? video.seekable.end(video.seekable.length - 1) : 0);
  try {
    video.src = source.href;
    on.ready();
    await monitor(video, signal, on, {
      failure: () => failure,
      isFinished: () => false,
      edge,
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

/** Watches the element. Returns once `isFinished`; throws the outcome. */
async function monitor(video, signal, on, { failure, isFinished, latency, edge, seekToLive }) {
  const progress = new ProgressMonitor({ startTimeoutMs: FIRST_FRAME_TIMEOUT_MS, stallTimeoutMs: STALL_TIMEOUT_MS });
  let wasPaused = on.isPaused();
  let isStalled = false;
  let edgeAtProgress = 0;
  for (;;) {
    if (failure() instanceof Outcome) throw failure();
    if (isFinished(progress)) return;
    if (video.ended) throw new Outcome("ended", "The stream has ended.");
    const paused = on.isPaused();
    // An element that gets another source, or that recovers from an error, is paused: not by the viewer.
    if (video.paused && !paused) on.ready();
    const position = progress.value;
    progress.update(video.currentTime);
    if (progress.value !== position) {
      edgeAtProgress = edge();
      if (isStalled || position === 0) on.playing();
      isStalled = false;
    }
    if (paused && progress.started) progress.restartTimer();
    if (wasPaused && !paused && progress.started) seekToLive();
    wasPaused = paused;
    if (progress.isStuck()) {
      if (!progress.started && !paused) throw new Outcome("unplayable", "No video was received over HLS.");
      if (!progress.started) progress.restartTimer();
      else if (isStuck(video, progress, edge() - edgeAtProgress)) throw new Outcome("ended", "The stream stopped.");
      else if (!isStalled) on.stalled();
      isStalled = progress.started;
    }
    const seconds = latency();
    if (progress.started && seconds !== null) on.latency(seconds);
    await pause(progress.started ? 100 : 50, signal);
  }
}

/** True if a stalled player does not continue by itself. While the publisher sends nothing, nothing is wrong with it. */
function isStuck(video, progress, missedS) {
  if (bufferedAheadS(video) > PLAYABLE_S) return true;
  return missedS > PLAYABLE_S && progress.idleMs() > STUCK_TIMEOUT_MS;
}
