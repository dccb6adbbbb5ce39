// Plays over WebRTC with WHEP (draft-ietf-wish-whep): one POST, then media. The server is ICE-lite, so the offer is
// sent at once, without candidates.

import { Refused, pause, request } from "../api.js";
import { Outcome, outcomeOf } from "./outcome.js";
import { Watch } from "./watch.js";

export const label = "WebRTC";

/** From the answer to a connection; where UDP is blocked it never comes. */
const CONNECT_MS = 3500;
/** From the connection to the first picture: the server begins with the last key frame. */
const FIRST_FRAME_MS = 6000;

/** Plays until `signal` aborts or an Outcome is thrown. Calls `on.playing()` once and `on.latency(seconds)` often. */
export async function play({ video, app, id, token, signal, on }) {
  if (!window.RTCPeerConnection) throw new Outcome("unplayable", "This browser has no WebRTC.", { remember: true });
  const codecs = window.RTCRtpReceiver?.getCapabilities?.("video")?.codecs;
  if (codecs && !codecs.some((c) => c.mimeType.toLowerCase() === "video/h264")) {
    throw new Outcome("unplayable", "This browser has no H.264 for WebRTC.", { remember: true });
  }
  const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  const session = new Session();
  const leave = () => session.leave();
  window.addEventListener("pagehide", leave);
  try {
    const media = new MediaStream();
    pc.ontrack = ({ track }) => {
      media.addTrack(track);
      if (video.srcObject !== media) video.srcObject = media;
    };
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    const offer = await pc.createOffer();
    // Chromium decodes Opus in mono unless it says itself that it wants stereo.
    offer.sdp = offer.sdp.replace(/^(a=fmtp:\d+ .*useinbandfec=1)$/gm, "$1;stereo=1");
    await pc.setLocalDescription(offer);
    const answer = await session.open(app, id, token, offer.sdp, signal);
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    await connected(pc, signal);
    await watch(pc, video, signal, on);
  } finally {
    window.removeEventListener("pagehide", leave);
    session.leave();
    pc.close();
    video.srcObject = null;
  }
}

/** The server's side of one viewing. */
class Session {
  async open(app, id, token, sdp, signal) {
    const url = new URL(`/${encodeURIComponent(app)}/whep/${encodeURIComponent(id)}`, location.href);
    const headers = { "content-type": "application/sdp" };
    if (token) {
      url.searchParams.set("token", token);
      headers.authorization = `Bearer ${token}`;
    }
    this.headers = headers;
    try {
      const response = await request(url, { method: "POST", headers, body: sdp, signal });
      const place = response.headers.get("location");
      if (place) this.url = new URL(place, url);
      return await response.text();
    } catch (e) {
      throw e instanceof Refused ? outcomeOf(e) : e;
    }
  }

  /** Tells the server, also from a page that is going away. */
  leave() {
    const url = this.url;
    this.url = null;
    if (url) fetch(url, { method: "DELETE", headers: this.headers, keepalive: true }).catch(() => {});
  }
}

async function connected(pc, signal) {
  const blocked = () =>
    new Outcome("unplayable", "This network lets no WebRTC media through.", { remember: true });
  const limit = performance.now() + CONNECT_MS;
  while (pc.connectionState !== "connected") {
    if (pc.connectionState === "failed" || performance.now() > limit) throw blocked();
    await Promise.race([next(pc, "connectionstatechange"), pause(100, signal)]);
  }
}

const next = (target, event) => new Promise((resolve) => target.addEventListener(event, resolve, { once: true }));

async function watch(pc, video, signal, on) {
  const pictures = new Watch(FIRST_FRAME_MS);
  const delay = new Delay();
  for (;;) {
    const stats = await pc.getStats();
    const sound = inbound(stats, "audio");
    const picture = inbound(stats, "video");
    // A hidden page may stop to decode, but not to receive.
    const progress = document.hidden
      ? (picture?.bytesReceived ?? 0) + (sound?.bytesReceived ?? 0)
      : (picture?.framesDecoded || sound?.totalSamplesReceived || 0);
    const first = pictures.note(progress);
    if (first) on.playing();
    if (pictures.isStuck(pc.connectionState === "connected")) {
      // Connected and yet never a picture: something between us and the decoder is broken.
      if (!pictures.began) throw new Outcome("unplayable", "No picture came over WebRTC.", { remember: true });
      throw new Outcome("ended", "The stream stopped.");
    }
    if (pc.connectionState === "failed" || pc.connectionState === "closed") {
      throw new Outcome("ended", "The connection was lost.");
    }
    const seconds = delay.measure(stats, picture ?? sound);
    if (seconds !== null) on.latency(seconds);
    await pause(pictures.began ? 500 : 50, signal);
  }
}

const inbound = (stats, kind) => [...stats.values()].find((s) => s.type === "inbound-rtp" && s.kind === kind);

/** An estimate of network and player: half a round trip and the time in the jitter buffer over the last moments. */
class Delay {
  measure(stats, track) {
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
