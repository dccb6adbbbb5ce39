// Plays over WebRTC with WHEP (draft-ietf-wish-whep): one POST, then media. The server is ICE-lite, so the offer is
// sent immediately, without candidates.

import { anySignal, pause } from "../api.js";
import { usableUrl } from "./attempts.js";
import { Outcome } from "./outcome.js";
import { ProgressMonitor } from "./progress-monitor.js";
import { Session } from "./whep-session.js";

export const label = "WebRTC";

/** From the answer to the connection; expires where UDP is blocked. */
const CONNECT_TIMEOUT_MS = 3500;
/** From the connection to the first video frame: the server starts with the last key frame. */
const FIRST_FRAME_TIMEOUT_MS = 6000;
/** The same limits where WebRTC is known to play, so that only a dead node exceeds them. */
const RETRY_CONNECT_TIMEOUT_MS = 1500;
const RETRY_FIRST_FRAME_TIMEOUT_MS = 2000;
/** Interval between two requests for the session status. A draining node waits much longer for its viewers. */
const STATUS_INTERVAL_MS = 2500;
/** After this time without any packet, a viewer looks for another node. Each second a node sends a sender report, also while
 *  the publisher sends nothing: a paused stream is not a lost node. */
const SILENCE_TIMEOUT_MS = 1200;
/** The same limit while reports are all that is sent: one may be lost. */
const PAUSED_SILENCE_TIMEOUT_MS = 2500;
/** A new session without further media, after the frames that it begins with, is used only after this time. */
const NO_MEDIA_TIMEOUT_MS = 3000;
/** Media arrives, but no frame is decoded: for this time, decoders wait for a key frame. */
const DECODER_TIMEOUT_MS = 5000;
/** Without a frame for this time, playback has stopped. */
const STALL_TIMEOUT_MS = 2000;
/** How long a viewer without a node looks for another one. */
const REPLACEMENT_TIMEOUT_MS = 10_000;
const POLL_INTERVAL_MS = 200;

/** Plays until `signal` aborts or an Outcome is thrown. Calls `on.playing()` when playback begins or continues, `on.lost()`
 *  when the node is lost, `on.stalled()` when nothing arrives from a living one, `on.latency(seconds)` periodically, and
 *  `on.ready()` when the element has another source. */
export async function play({ video, app, id, credentials, signal, on }) {
  if (!window.RTCPeerConnection) throw new Outcome("unplayable", "This browser has no WebRTC.", { remember: true });
  const codecs = window.RTCRtpReceiver?.getCapabilities?.("video")?.codecs;
  if (codecs && !codecs.some((c) => c.mimeType.toLowerCase() === "video/h264")) {
    throw new Outcome("unplayable", "This browser has no H.264 for WebRTC.", { remember: true });
  }
  const address = new URL(`/${encodeURIComponent(app)}/whep/${encodeURIComponent(id)}`, location.href);
  let viewer;
  const close = () => viewer?.close();
  window.addEventListener("pagehide", close);
  try {
    const show = (media) => {
      // Assign once for both tracks: a second assignment would restart the element.
      if (video.srcObject !== media) video.srcObject = media;
    };
    viewer = await open(address, { credentials, signal, show });
    for (;;) {
      const stop = new AbortController();
      const both = anySignal(signal, stop.signal);
      const monitoring = monitor(viewer, both, on);
      // Whichever opens another session first.
      const successors = [migrate(viewer, address, credentials, both), replaceLost(viewer, address, credentials, both, on)];
      monitoring.catch(() => {});
      let successor;
      try {
        successor = await Promise.race([monitoring, ...successors]);
      } finally {
        stop.abort();
        for (const other of successors) other.then((late) => late !== successor && late.close()).catch(() => {});
      }
      // The new session already has video: switching costs a frame or two.
      video.srcObject = successor.media;
      // An element that gets another source is paused, without sound.
      on.ready();
      viewer.close();
      viewer = successor;
    }
  } finally {
    window.removeEventListener("pagehide", close);
    close();
    // Also if nothing was opened: a remaining srcObject would prevent HLS from playing.
    video.srcObject = null;
  }
}

/** A peer connection, its media and its WHEP session. */
class Viewer {
  constructor() {
    this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.session = new Session();
    this.media = new MediaStream();
    const newMonitor = (stallTimeoutMs) => new ProgressMonitor({ startTimeoutMs: Infinity, stallTimeoutMs });
    this.received = newMonitor(SILENCE_TIMEOUT_MS);
    this.packets = newMonitor(STALL_TIMEOUT_MS);
  }

  /** Takes statistics of the connection. */
  update(stats) {
    this.received.update(bytesReceived(stats));
    this.packets.update(packetsReceived(stats));
  }

  /** True if nothing arrives from the node, not even reports. */
  isLost() {
    if (["failed", "closed"].includes(this.pc.connectionState)) return true;
    if (!this.received.isStuck()) return false;
    const isPaused = this.packets.idleMs() - this.received.idleMs() > POLL_INTERVAL_MS * 2;
    return !isPaused || this.received.idleMs() > PAUSED_SILENCE_TIMEOUT_MS;
  }

  close() {
    this.session.close();
    this.pc.close();
  }
}

/** Connects a viewer. Calls `show` with its media as soon as a track arrives. */
async function open(address, { credentials, signal, show = () => {}, isAfterLoss = false, connectTimeoutMs = CONNECT_TIMEOUT_MS }) {
  const viewer = new Viewer();
  const { pc, session, media } = viewer;
  try {
    pc.ontrack = ({ track }) => {
      media.addTrack(track);
      show(media);
    };
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    const offer = await pc.createOffer();
    // Chromium decodes Opus in mono unless its own offer contains stereo=1.
    offer.sdp = offer.sdp.replace(/^(a=fmtp:\d+ .*useinbandfec=1)$/gm, "$1;stereo=1");
    await pc.setLocalDescription(offer);
    const answer = await session.open(address, { credentials, sdp: offer.sdp, signal, isAfterLoss });
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    await connected(pc, connectTimeoutMs, signal);
    return viewer;
  } catch (e) {
    viewer.close();
    throw e;
  }
}

/** Polls whether this viewer should move to another node. Returns the new viewer, which already receives video, while
 * this one still plays. */
async function migrate(viewer, address, credentials, signal) {
  for (;;) {
    await pause(STATUS_INTERVAL_MS * (0.8 + 0.4 * Math.random()), signal);
    const status = await viewer.session.status(signal).catch(() => null);
    signal.throwIfAborted();
    if (!status || status.stay) continue;
    // Behind a load balancer the same address reaches another node; without one, the server names another node.
    for (const target of [address, usableUrl(status.elsewhere)]) {
      if (!target) continue;
      try {
        return await openPlaying(new URL(target), { credentials, signal });
      } catch {
        signal.throwIfAborted();
      }
    }
  }
}

/** Waits until the node of this viewer is lost. Returns a viewer that receives video from another node, unless this one
 *  receives something again first. */
async function replaceLost(viewer, address, credentials, signal, on) {
  for (;;) {
    while (!viewer.isLost()) await pause(POLL_INTERVAL_MS / 4, signal);
    on.lost();
    const stop = new AbortController();
    const both = anySignal(signal, stop.signal);
    const next = openAnother(address, credentials, both);
    let successor = null;
    try {
      const continuing = next.then((opened) => untilMediaContinues(opened, both));
      successor = await Promise.race([continuing, untilBack(viewer, both)]);
      if (successor) return successor;
      on.playing();
    } finally {
      stop.abort();
      next.then((late) => late !== successor && late.close()).catch(() => {});
    }
  }
}

async function untilBack(viewer, signal) {
  while (viewer.isLost()) await pause(POLL_INTERVAL_MS / 4, signal);
  return null;
}

/** Returns the viewer once media arrives after the frames that its session began with: the stream goes on at its node. */
async function untilMediaContinues(viewer, signal) {
  const end = performance.now() + NO_MEDIA_TIMEOUT_MS;
  let packets = 0;
  for (let increases = 0; increases < 3 && performance.now() < end; ) {
    const now = packetsReceived(await viewer.pc.getStats());
    if (now > packets) increases += 1;
    packets = now;
    await pause(POLL_INTERVAL_MS / 2, signal);
  }
  return viewer;
}

/** Opens a session that delivers video, on whichever node does. This browser and this network can play WebRTC, so a session
 *  that does not connect is one of a node that died meanwhile. */
async function openAnother(address, credentials, signal) {
  const end = performance.now() + REPLACEMENT_TIMEOUT_MS;
  for (;;) {
    try {
      return await openPlaying(address, { credentials, signal, isAfterLoss: true });
    } catch (e) {
      signal.throwIfAborted();
      if (!(e instanceof Outcome && e.noMedia)) throw e;
      if (performance.now() > end) throw new Outcome("ended", "The connection was lost.");
    }
  }
}

/** Opens a session where WebRTC is known to play, and returns once it receives video. */
async function openPlaying(address, options) {
  const next = await open(address, { ...options, connectTimeoutMs: RETRY_CONNECT_TIMEOUT_MS });
  await firstFrame(next, options.signal);
  return next;
}

/** Returns once a viewer has received a video frame, or audio if the stream has no video. */
async function firstFrame(viewer, signal) {
  const limit = performance.now() + RETRY_FIRST_FRAME_TIMEOUT_MS;
  for (;;) {
    const stats = await viewer.pc.getStats();
    const video = inbound(stats, "video");
    if (video?.framesDecoded || video?.framesReceived || (!video && inbound(stats, "audio")?.bytesReceived)) return;
    if (performance.now() > limit) {
      viewer.close();
      throw new Outcome("unplayable", "No video was received over WebRTC.", { noMedia: true });
    }
    try {
      await pause(20, signal);
    } catch (e) {
      viewer.close();
      throw e;
    }
  }
}

async function connected(pc, timeoutMs, signal) {
  const blockedError = () =>
    new Outcome("unplayable", "This network blocks WebRTC media.", { remember: true, noMedia: true });
  const limit = performance.now() + timeoutMs;
  while (pc.connectionState !== "connected") {
    if (pc.connectionState === "failed" || performance.now() > limit) throw blockedError();
    await Promise.race([next(pc, "connectionstatechange"), pause(100, signal)]);
  }
}

const next = (target, event) => new Promise((resolve) => target.addEventListener(event, resolve, { once: true }));

/** Watches a viewer until an Outcome is thrown. */
async function monitor(viewer, signal, on) {
  const { pc } = viewer;
  const frames = new ProgressMonitor({ startTimeoutMs: FIRST_FRAME_TIMEOUT_MS, stallTimeoutMs: STALL_TIMEOUT_MS });
  const latencyEstimator = new LatencyEstimator();
  let isStalled = false;
  let undecodedSince = performance.now();
  for (;;) {
    const stats = await pc.getStats();
    viewer.update(stats);
    const audioStats = inbound(stats, "audio");
    const videoStats = inbound(stats, "video");
    const received = packetsReceived(stats);
    // A hidden page may stop decoding, but not receiving.
    const first = frames.update((document.hidden ? received : videoStats?.framesDecoded) || audioStats?.packetsReceived || 0);
    const stalled = frames.started && frames.isStuck() && !viewer.isLost();
    if (first || (isStalled && !stalled && !viewer.isLost())) on.playing();
    if (stalled && !isStalled) on.stalled();
    isStalled = stalled;
    if (!frames.started && frames.isStuck(pc.connectionState === "connected")) {
      // Connected, but no frame was ever decoded: retrying WebRTC will not help.
      throw new Outcome("unplayable", "No video was received over WebRTC.", { remember: true });
    }
    if (!stalled || viewer.packets.isStuck()) undecodedSince = performance.now();
    if (performance.now() - undecodedSince > DECODER_TIMEOUT_MS) throw new Outcome("ended", "The stream stopped.");
    const seconds = latencyEstimator.estimate(stats, videoStats ?? audioStats);
    if (seconds !== null) on.latency(seconds);
    await pause(frames.started ? POLL_INTERVAL_MS : 50, signal);
  }
}

/** RTP packets of both tracks. */
const packetsReceived = (stats) => ["audio", "video"].reduce((sum, kind) => sum + (inbound(stats, kind)?.packetsReceived ?? 0), 0);

/** Everything that was received over the connection: media, reports, and answers to connectivity checks. */
function bytesReceived(stats) {
  const pairs = [...stats.values()].filter((s) => s.type === "candidate-pair");
  return pairs.reduce((sum, pair) => sum + (pair.bytesReceived ?? 0) + (pair.responsesReceived ?? 0), 0);
}

const inbound = (stats, kind) => [...stats.values()].find((s) => s.type === "inbound-rtp" && s.kind === kind);

/** Estimates the latency of network and player: half a round trip plus the recent mean time in the jitter buffer. */
class LatencyEstimator {
  estimate(stats, track) {
    if (!track) return null;
    const { jitterBufferDelay = 0, jitterBufferEmittedCount = 0 } = track;
    const emitted = jitterBufferEmittedCount - (this.emitted ?? 0);
    const delay = jitterBufferDelay - (this.delay ?? 0);
    this.emitted = jitterBufferEmittedCount;
    this.delay = jitterBufferDelay;
    if (emitted <= 0) return null;
    const pair = [...stats.values()].find((s) => s.type === "candidate-pair" && s.nominated && s.state === "succeeded");
    return delay / emitted + (pair?.currentRoundTripTime ?? 0) / 2;
  }
}
