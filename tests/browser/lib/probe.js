// Runs in the page before its own scripts: counts decoded frames and records what the page does not
// show. It must not depend on anything outside its own function.

export function probe() {
  const stats = { frames: 0, firstFrameAt: null, offerAt: null, delays: [] };
  window.probe = stats;
  const Original = window.RTCPeerConnection;
  if (Original) {
    window.RTCPeerConnection = class extends Original {
      constructor(...args) {
        super(...args);
        stats.pc = this;
      }
    };
  }
  const fetch_ = window.fetch;
  window.fetch = (url, options) => {
    if (options?.method === "POST" && String(url).includes("/whep/")) stats.offerAt ??= performance.now();
    return fetch_(url, options);
  };
  const canvas = document.createElement("canvas");
  const draw = canvas.getContext("2d", { willReadFrequently: true });
  /** The clock in the test video, in hundredths of a second modulo 65,536; null without a clock. */
  const readClock = (video) => {
    if (video.videoWidth !== 320 || video.videoHeight !== 64) return null;
    [canvas.width, canvas.height] = [320, 64];
    draw.drawImage(video, 0, 0);
    const row = draw.getImageData(0, 32, 320, 1).data;
    return Array.from({ length: 16 }, (_, bit) => (row[(bit * 20 + 10) * 4] > 127 ? 2 ** bit : 0)).reduce((sum, n) => sum + n, 0);
  };
  document.addEventListener("DOMContentLoaded", () => {
    const video = document.querySelector("video");
    if (!video?.requestVideoFrameCallback) return;
    const each = () => {
      stats.frames += 1;
      stats.firstFrameAt ??= performance.now();
      const clock = readClock(video);
      if (clock !== null && stats.frames % 5 === 0) {
        const delay = (Math.floor(Date.now() / 10) - clock + 2 * 65_536) % 65_536;
        stats.delays.push(delay / 100);
      }
      video.requestVideoFrameCallback(each);
    };
    video.requestVideoFrameCallback(each);
  });
}

/** Counters of WebRTC's own statistics. */
export async function rtc() {
  const stats = [...(await window.probe.pc.getStats()).values()];
  const inbound = (kind) => stats.find((s) => s.type === "inbound-rtp" && s.kind === kind);
  const transport = stats.find((s) => s.type === "transport");
  const pair = stats.find((s) => s.id === transport?.selectedCandidatePairId);
  return {
    decoded: inbound("video")?.framesDecoded ?? 0,
    lost: (inbound("video")?.packetsLost ?? 0) + (inbound("audio")?.packetsLost ?? 0),
    audioLevel: inbound("audio")?.audioLevel ?? 0,
    audioEnergy: inbound("audio")?.totalAudioEnergy ?? 0,
    srtp: transport?.srtpCipher,
    /** Address of the node that sends the media. */
    remote: stats.find((s) => s.id === pair?.remoteCandidateId)?.address,
  };
}

/**
 * Runs in the page: records in `window.playback` the longest time between two frames, the longest
 * time in which the position did not change, and every state of the page other than live.
 */
export function watchPlayback() {
  const video = document.querySelector("video");
  window.playback = { longestMs: 0, longestStopMs: 0, states: [] };
  let last = performance.now();
  const each = () => {
    const now = performance.now();
    window.playback.longestMs = Math.max(window.playback.longestMs, now - last);
    last = now;
    video.requestVideoFrameCallback(each);
  };
  video.requestVideoFrameCallback(each);
  let [position, movedAt] = [video.currentTime, performance.now()];
  setInterval(() => {
    const now = performance.now();
    if (video.currentTime !== position) [position, movedAt] = [video.currentTime, now];
    window.playback.longestStopMs = Math.max(window.playback.longestStopMs, now - movedAt);
  }, 50);
  const note = () => document.body.dataset.state !== "live" && window.playback.states.push(document.body.dataset.state);
  new MutationObserver(note).observe(document.body, { attributes: true, attributeFilter: ["data-state"] });
}
