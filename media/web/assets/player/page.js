// The player page: reads its address, shows the state of the player, and handles clicks and keys.

import { run } from "./player.js";
import { seconds } from "../format.js";

const $ = (name) => document.getElementById(name);
const video = $("video");
const body = document.body;

const parameters = new URLSearchParams(location.search);
const booleanParameter = (name, otherwise) => {
  const value = parameters.get(name);
  return value === null ? otherwise : !["false", "0", "no", "off"].includes(value.toLowerCase());
};
const app = decodeURIComponent(location.pathname.split("/")[1] ?? "");
// Links in Ant Media's format sometimes include the app in the id.
const idParameter = parameters.get("id") ?? parameters.get("name") ?? "";
const id = idParameter.startsWith(`${app}/`) ? idParameter.slice(app.length + 1) : idParameter;
const token = parameters.get("token");

const BADGES = { loading: "Connecting", waiting: "Waiting", live: "Live", reconnecting: "Reconnecting", wrong: "Not found", refused: "Not allowed" };

const view = {
  state(name, sentence, hint = "") {
    body.dataset.state = name;
    $("badge-text").textContent = BADGES[name];
    if ($("message").textContent !== sentence) $("message").textContent = sentence;
    $("hint").textContent = name === "waiting" ? "Playback starts automatically." : hint;
  },
  transport(name, label) {
    body.dataset.transport = name ?? "";
    $("transport").textContent = label;
  },
  latency(value) {
    if (value === null) delete body.dataset.latency;
    else body.dataset.latency = value.toFixed(3);
    $("latency").textContent = value === null ? "" : seconds(value);
  },
  notice(sentence) {
    $("notice-text").textContent = sentence;
    $("notice").hidden = !sentence;
  },
  /** Media is attached or about to be: start playback. */
  ready: () => startVideo(),
  isPaused: () => stopped,
};

async function startVideo() {
  if (stopped) return;
  try {
    await video.play();
  } catch (e) {
    // Browsers block audio until the user clicks: start muted instead.
    if (e.name !== "NotAllowedError") return;
    if (!video.muted) {
      video.muted = true;
      return startVideo();
    }
    stopped = true;
    draw();
  }
}

/** True while the user has paused playback or has not started it yet. */
let stopped = !booleanParameter("autoplay", true);
let running;

function start() {
  stopped = false;
  running ??= run({ video, app, id, token, playOrder: parameters.get("playOrder"), signal: new AbortController().signal, view });
  startVideo();
  draw();
}

function stop() {
  stopped = true;
  video.pause();
  draw();
}

function draw() {
  body.dataset.paused = String(stopped);
  body.dataset.muted = String(video.muted || video.volume === 0);
  $("start").hidden = !stopped;
  $("play").ariaLabel = stopped ? "Play" : "Pause";
  $("play").title = `${stopped ? "Play" : "Pause"} (space)`;
  $("mute").ariaLabel = video.muted ? "Unmute" : "Mute";
  $("mute").title = `${video.muted ? "Unmute" : "Mute"} (m)`;
  $("mute").ariaPressed = String(video.muted);
  $("volume").value = video.muted ? 0 : video.volume;
  $("unmute").hidden = stopped || !video.muted || body.dataset.state !== "live" || unmuteDismissed;
}

/** True once the user has changed the volume: the large unmute button stays hidden. */
let unmuteDismissed = false;

const toggle = () => (stopped ? start() : stop());
const toggleMute = () => {
  unmuteDismissed = true;
  video.muted = !video.muted;
  if (!video.muted && video.volume === 0) video.volume = 1;
};
const toggleFullscreen = () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else if ($("stage").requestFullscreen) $("stage").requestFullscreen().catch(() => {});
  else video.webkitEnterFullscreen?.();
};

$("start").onclick = start;
$("play").onclick = toggle;
$("mute").onclick = toggleMute;
$("unmute").onclick = toggleMute;
$("fullscreen").onclick = toggleFullscreen;
$("volume").oninput = () => {
  unmuteDismissed = true;
  video.volume = Number($("volume").value);
  video.muted = video.volume === 0;
};
$("notice-close").onclick = () => view.notice("");
// Not only this page's buttons pause: so do a picture-in-picture window, media keys and headphones. At the end of its media,
// and when it gets other media, the element pauses itself.
video.onpause = () => {
  if (!video.paused || video.ended || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
  stopped = true;
  draw();
};
video.onplay = () => {
  if (video.paused) return;
  stopped = false;
  draw();
};
video.onvolumechange = draw;
video.ondblclick = toggleFullscreen;
video.onclick = () => {
  // On a touch screen a tap shows the controls first.
  if (matchMedia("(hover: hover)").matches || body.dataset.controls === "shown") toggle();
};
video.oncontextmenu = (event) => event.preventDefault();
document.addEventListener("fullscreenchange", () => {
  $("fullscreen").ariaLabel = document.fullscreenElement ? "Leave full screen" : "Full screen";
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const onButton = event.target instanceof HTMLButtonElement;
  const action = { " ": onButton ? null : toggle, k: toggle, m: toggleMute, f: toggleFullscreen }[event.key.toLowerCase()];
  showControls();
  if (!action) return;
  event.preventDefault();
  action();
});

let hide;
function showControls() {
  body.dataset.controls = "shown";
  clearTimeout(hide);
  hide = setTimeout(() => {
    const busy = $("bar").contains(document.activeElement) && document.activeElement.matches(":focus-visible");
    if (!busy && body.dataset.state === "live" && !stopped) body.dataset.controls = "hidden";
  }, 2500);
}
for (const event of ["pointermove", "pointerdown", "focusin"]) document.addEventListener(event, showControls);
new MutationObserver(() => {
  draw();
  showControls();
}).observe(body, { attributeFilter: ["data-state"] });

document.title = id ? `${id} · Headwater` : "Headwater";
$("name").textContent = `${app}/${id}`;
video.muted = booleanParameter("mute", true);
draw();
showControls();
if (!id) {
  view.state("wrong", "This address names no stream.");
  $("hint").textContent = `Add ?id=STREAM to it, such as /${app}/play.html?id=demo.`;
} else if (!stopped) {
  start();
} else {
  view.state("loading", "");
}
