// Plays over WebRTC with WHEP (draft-ietf-wish-whep): one POST, then media. The server is ICE-lite, so the offer is
// sent at once, without candidates.

import * as api from "../api.js";
import { Refused, pause, request } from "../api.js";
import { Outcome, outcomeOf } from "./outcome.js";
import { Watch } from "./watch.js";

export const label = "WebRTC";

/** From the answer to a connection; where UDP is blocked it never comes. */
const CONNECT_MS = 3500;
/** From the connection to the first picture: the server begins with the last key frame. */
const FIRST_FRAME_MS = 6000;
/** Between two questions whether to stay. A node that ends waits for its pages much longer. */
const ASK_MS = 2500;

/** Plays until `signal` aborts or an Outcome is thrown. Calls `on.playing()` once and `on.latency(seconds)` often. */
export async function play({ video, app, id, token, signal, on }) {
  if (!window.RTCPeerConnection) throw new Outcome("unplayable", "This browser has no WebRTC.", { remember: true });
  const codecs = window.RTCRtpReceiver?.getCapabilities?.("video")?.codecs;
  if (codecs && !codecs.some((c) => c.mimeType.toLowerCase() === "video/h264")) {
    throw new Outcome("unplayable", "This browser has no H.264 for WebRTC.", { remember: true });
  }
  const address = new URL(`/${encodeURIComponent(app)}/whep/${encodeURIComponent(id)}`, location.href);
  let viewing;
  const leave = () => viewing?.leave();
  window.addEventListener("pagehide", leave);
  try {
    viewing = await open(address, token, signal, (media) => {
      // Once for both tracks: the same again would begin the element anew.
      if (video.srcObject !== media) video.srcObject = media;
    });
    for (;;) {
      const stop = new AbortController();
      const both = api.either(signal, stop.signal);
      const watching = watch(viewing.pc, video, both, on);
      const next = successor(viewing, address, token, both);
      watching.catch(() => {});
      try {
        const moved = await Promise.race([watching, next]);
        // The new picture is there: the change costs a frame or two.
        video.srcObject = moved.media;
        viewing.leave();
        viewing = moved;
      } catch (e) {
        next.then((late) => late.leave()).catch(() => {});
        throw e;
      } finally {
        stop.abort();
      }
    }
  } finally {
    window.removeEventListener("pagehide", leave);
    leave();
    // Also when nothing was opened: what is left here keeps HLS from showing anything.
    video.srcObject = null;
  }
}

/** One viewing: a peer connection, what it brings, and the server's side of it. */
class Viewing {
  constructor() {
    this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.session = new Session();
    this.media = new MediaStream();
  }

  leave() {
    this.session.leave();
    this.pc.close();
  }
}

/** Begins a viewing; `show` gets its media as soon as there is any. */
async function open(address, token, signal, show = () => {}) {
  const viewing = new Viewing();
  const { pc, session, media } = viewing;
  try {
    pc.ontrack = ({ track }) => {
      media.addTrack(track);
      show(media);
    };
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    const offer = await pc.createOffer();
    // Chromium decodes Opus in mono unless it says itself that it wants stereo.
    offer.sdp = offer.sdp.replace(/^(a=fmtp:\d+ .*useinbandfec=1)$/gm, "$1;stereo=1");
    await pc.setLocalDescription(offer);
    const answer = await session.open(address, token, offer.sdp, signal);
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    await connected(pc, signal);
    return viewing;
  } catch (e) {
    viewing.leave();
    throw e;
  }
}

/** Asks the server now and then whether this viewing should move to another node. Returns the next one, already with a
 * picture, while this one still plays. */
async function successor(viewing, address, token, signal) {
  for (;;) {
    await pause(ASK_MS * (0.8 + 0.4 * Math.random()), signal);
    const status = await viewing.session.status(signal).catch(() => null);
    signal.throwIfAborted();
    if (!status || status.stay) continue;
    // The same address leads elsewhere behind a balancer; where there is none, the server names another node.
    const places = [address];
    if (status.elsewhere) places.push(new URL(status.elsewhere));
    for (const place of places.filter((p) => p.protocol === location.protocol || location.protocol === "http:")) {
      try {
        const next = await open(place, token, signal);
        await picture(next, signal);
        return next;
      } catch {
        signal.throwIfAborted();
      }
    }
  }
}

/** Returns once a viewing has a picture, or sound where that is all. */
async function picture(viewing, signal) {
  const limit = performance.now() + FIRST_FRAME_MS;
  for (;;) {
    const stats = await viewing.pc.getStats();
    const video = inbound(stats, "video");
    if (video?.framesDecoded || video?.framesReceived || (!video && inbound(stats, "audio")?.bytesReceived)) return;
    if (performance.now() > limit) {
      viewing.leave();
      throw new Outcome("unplayable", "No picture came over WebRTC.");
    }
    try {
      await pause(20, signal);
    } catch (e) {
      viewing.leave();
      throw e;
    }
  }
}

/** The server's side of one viewing. */
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
      const place = response.headers.get("location");
      if (place) this.url = new URL(place, url);
      return await response.text();
    } catch (e) {
      throw e instanceof Refused ? outcomeOf(e) : e;
    }
  }

  /** Whether to stay: `{ stay, elsewhere }`. */
  async status(signal) {
    return (await request(this.url, { headers: this.headers.authorization ? { authorization: this.headers.authorization } : {}, signal })).json();
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
