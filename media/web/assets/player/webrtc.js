// Plays over WebRTC with WHEP (draft-ietf-wish-whep): one POST, then media. The server is ICE-lite, so the offer is
// sent immediately, without candidates.

import * as api from "../api.js";
import { ApiError, pause, request } from "../api.js";
import { Outcome, outcomeOf } from "./outcome.js";
import { ProgressMonitor } from "./progress-monitor.js";

export const label = "WebRTC";

/** From the answer to the connection; expires where UDP is blocked. */
const CONNECT_TIMEOUT_MS = 3500;
/** From the connection to the first video frame: the server starts with the last key frame. */
const FIRST_FRAME_TIMEOUT_MS = 6000;
/** Interval between two requests for the session status. A draining node waits much longer for its viewers. */
const STATUS_INTERVAL_MS = 2500;

/** Plays until `signal` aborts or an Outcome is thrown. Calls `on.playing()` once, `on.latency(seconds)` periodically, and
 * `on.ready()` when the element has another source. */
export async function play({ video, app, id, token, signal, on }) {
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
    viewer = await open(address, token, signal, (media) => {
      // Assign once for both tracks: a second assignment would restart the element.
      if (video.srcObject !== media) video.srcObject = media;
    });
    for (;;) {
      const stop = new AbortController();
      const both = api.anySignal(signal, stop.signal);
      const monitoring = monitor(viewer.pc, video, both, on);
      const next = migrate(viewer, address, token, both);
      monitoring.catch(() => {});
      try {
        const migrated = await Promise.race([monitoring, next]);
        // The new session already has video: switching costs a frame or two.
        video.srcObject = migrated.media;
        // An element that gets another source is paused, without sound.
        on.ready();
        viewer.close();
        viewer = migrated;
      } catch (e) {
        next.then((late) => late.close()).catch(() => {});
        throw e;
      } finally {
        stop.abort();
      }
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
  }

  close() {
    this.session.close();
    this.pc.close();
  }
}

/** Connects a viewer. Calls `show` with its media as soon as a track arrives. */
async function open(address, token, signal, show = () => {}) {
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
    const answer = await session.open(address, token, offer.sdp, signal);
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    await connected(pc, signal);
    return viewer;
  } catch (e) {
    viewer.close();
    throw e;
  }
}

/** Polls whether this viewer should move to another node. Returns the new viewer, which already receives video, while
 * this one still plays. */
async function migrate(viewer, address, token, signal) {
  for (;;) {
    await pause(STATUS_INTERVAL_MS * (0.8 + 0.4 * Math.random()), signal);
    const status = await viewer.session.status(signal).catch(() => null);
    signal.throwIfAborted();
    if (!status || status.stay) continue;
    // Behind a load balancer the same address reaches another node; without one, the server names another node.
    const targets = [address];
    if (status.elsewhere) targets.push(new URL(status.elsewhere));
    for (const target of targets.filter((p) => p.protocol === location.protocol || location.protocol === "http:")) {
      try {
        const next = await open(target, token, signal);
        await firstFrame(next, signal);
        return next;
      } catch {
        signal.throwIfAborted();
      }
    }
  }
}

/** Returns once a viewer has received a video frame, or audio if the stream has no video. */
async function firstFrame(viewer, signal) {
  const limit = performance.now() + FIRST_FRAME_TIMEOUT_MS;
  for (;;) {
    const stats = await viewer.pc.getStats();
    const video = inbound(stats, "video");
    if (video?.framesDecoded || video?.framesReceived || (!video && inbound(stats, "audio")?.bytesReceived)) return;
    if (performance.now() > limit) {
      viewer.close();
      throw new Outcome("unplayable", "No video was received over WebRTC.");
    }
    try {
      await pause(20, signal);
    } catch (e) {
      viewer.close();
      throw e;
    }
  }
}

/** A WHEP session on the server. */
class Session {
  async open(address, token, sdp, signal) {
    const url = new URL(address);
    const headers = { "content-type": "application/sdp" };
    if (token) {
      url.searchParams.set("token", token);
      headers.authorization = `Bearer ${token}`;
    }
    this.headers = headers;
    try {
      const response = await request(url, { method: "POST", headers, body: sdp, signal });
      const target = response.headers.get("location");
      if (target) this.url = new URL(target, url);
      return await response.text();
    } catch (e) {
      throw e instanceof ApiError ? outcomeOf(e) : e;
    }
  }

  /** The session status: `{ stay, elsewhere }`. */
  async status(signal) {
    return (await request(this.url, { headers: this.headers.authorization ? { authorization: this.headers.authorization } : {}, signal })).json();
  }

  /** Ends the session, also while the page is being unloaded. */
  close() {
    const url = this.url;
    this.url = null;
    if (url) fetch(url, { method: "DELETE", headers: this.headers, keepalive: true }).catch(() => {});
  }
}

async function connected(pc, signal) {
  const blockedError = () =>
    new Outcome("unplayable", "This network blocks WebRTC media.", { remember: true });
  const limit = performance.now() + CONNECT_TIMEOUT_MS;
  while (pc.connectionState !== "connected") {
    if (pc.connectionState === "failed" || performance.now() > limit) throw blockedError();
    await Promise.race([next(pc, "connectionstatechange"), pause(100, signal)]);
  }
}

const next = (target, event) => new Promise((resolve) => target.addEventListener(event, resolve, { once: true }));

async function monitor(pc, video, signal, on) {
  const progressMonitor = new ProgressMonitor(FIRST_FRAME_TIMEOUT_MS);
  const latencyEstimator = new LatencyEstimator();
  for (;;) {
    const stats = await pc.getStats();
    const audioStats = inbound(stats, "audio");
    const videoStats = inbound(stats, "video");
    // A hidden page may stop decoding, but not receiving.
    const progress = document.hidden
      ? (videoStats?.bytesReceived ?? 0) + (audioStats?.bytesReceived ?? 0)
      : (videoStats?.framesDecoded || audioStats?.totalSamplesReceived || 0);
    const first = progressMonitor.update(progress);
    if (first) on.playing();
    if (progressMonitor.isStuck(pc.connectionState === "connected")) {
      // Connected, but no frame was ever decoded: retrying WebRTC will not help.
      if (!progressMonitor.started) throw new Outcome("unplayable", "No video was received over WebRTC.", { remember: true });
      throw new Outcome("ended", "The stream stopped.");
    }
    if (pc.connectionState === "failed" || pc.connectionState === "closed") {
      throw new Outcome("ended", "The connection was lost.");
    }
    const seconds = latencyEstimator.estimate(stats, videoStats ?? audioStats);
    if (seconds !== null) on.latency(seconds);
    await pause(progressMonitor.started ? 500 : 50, signal);
  }
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
