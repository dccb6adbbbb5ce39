// Publisher settings, ready to copy. Used by the dashboard and by the publish page of each app.

import { copyable } from "./copyable.js";
import { element } from "./element.js";

/** Pattern of app names and stream ids; the engine has the same rule. */
const NAME = "[A-Za-z0-9_][A-Za-z0-9_.\\-]{0,63}";

/** Publish keys by app; only the administrator's browser knows them. */
let publishKeys = new Map();
let renderCurrent = () => {};

/** Shows these publish keys in the settings: a Map of the apps that require one. */
export function setPublishKeys(keys) {
  if (JSON.stringify([...keys]) === JSON.stringify([...publishKeys])) return;
  publishKeys = keys;
  renderCurrent();
}

/** Fills `section` with the settings for this node. With `app`, for this app only. */
export function publishSection(section, node, { app, heading = "h2" } = {}) {
  // RTMPS only where plain RTMP is off: it needs a certificate that the publisher's program trusts.
  const base = rtmpBase("rtmp", node.rtmp_port, 1935) ?? rtmpBase("rtmps", node.rtmps_port, 443);
  if (!base) {
    section.replaceChildren(
      element(heading, { id: "publish-title" }, app ? `Publish to ${app}` : "Publish a stream"),
      element("p", { className: "lead" }, "RTMP is off on this node: it accepts no publishers."));
    return;
  }
  // The documentation uses `live`: list it first if it exists.
  const apps = app ? [app] : [...node.apps].sort((a, b) => Number(b === "live") - Number(a === "live"));
  const appSelect = element("select", { id: "app" }, ...apps.map((name) => element("option", { value: name }, name)));
  const idInput = element("input", {
    id: "stream-id", value: "demo", pattern: NAME, maxLength: 64, required: true, autocomplete: "off", autocapitalize: "off", spellcheck: false,
  });
  const panels = element("div", {});
  const programs = [["OBS Studio", obs], ["ffmpeg", ffmpeg], ["GStreamer", gstreamer]];
  const tabs = programs.map(([name], index) =>
    element("button", { type: "button", role: "tab", id: `tab-${index}`, onclick: () => selectTab(index) }, name));
  const tablist = element("div", { role: "tablist", ariaLabel: "Publishing program" }, ...tabs);
  let selected = 0;

  function selectTab(index) {
    selected = index;
    for (const [at, tab] of tabs.entries()) {
      tab.ariaSelected = String(at === index);
      tab.tabIndex = at === index ? 0 : -1;
      tab.setAttribute("aria-controls", "publish-panel");
    }
    renderPanel();
  }

  function renderPanel() {
    const id = idInput.validity.valid ? idInput.value : "demo";
    const key = publishKeys.get(appSelect.value);
    const streamKey = key ? `${id}?key=${encodeURIComponent(key)}` : id;
    const server = `${base}/${appSelect.value}`;
    const panel = element("div", { role: "tabpanel", id: "publish-panel" }, ...programs[selected][1](server, streamKey));
    panel.setAttribute("aria-labelledby", `tab-${selected}`);
    const watch = `/${appSelect.value}/play.html?id=${encodeURIComponent(id)}`;
    panels.replaceChildren(panel, element("div", { className: "field watch" },
      element("span", {}, "Then watch the stream here"), copyable(new URL(watch, location.href).href, watch)));
  }

  tablist.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    selectTab((selected + step + tabs.length) % tabs.length);
    tabs[selected].focus();
  });
  renderCurrent = renderPanel;
  appSelect.onchange = renderPanel;
  idInput.oninput = renderPanel;
  selectTab(0);
  const pick = element("div", { className: "pick" },
    ...(apps.length > 1 ? [element("label", {}, "App", appSelect)] : []), element("label", {}, "Stream key", idInput));
  section.replaceChildren(
    element(heading, { id: "publish-title" }, app ? `Publish to ${app}` : "Publish a stream"),
    element("p", { className: "lead" }, "Any program that publishes over RTMP works. Choose a stream key. The settings of the app decide who may publish and watch."),
    element("div", { className: "card" }, pick, tablist, panels));
}

/** The address of the RTMP server with this port; undefined if it is off. */
function rtmpBase(scheme, port, defaultPort) {
  return port ? `${scheme}://${location.hostname}${port === defaultPort ? "" : `:${port}`}` : undefined;
}

function obs(server, streamKey) {
  return [
    element("p", {}, "Settings → Stream: service “Custom…”."),
    field("Server", server),
    field("Stream key", streamKey),
    element("ul", { className: "tips" },
      element("li", {}, "Settings → Output → Output mode “Advanced” → ", bold("Tune: zerolatency"), ", or custom x264 options ", bold("bframes=0"),
        ". With other encoders, set ", bold("B-frames to 0"), ". Browsers cannot play B-frames over WebRTC; such a stream plays over LL-HLS."),
      element("li", {}, bold("Keyframe interval: 1 s"), ". With a longer interval, LL-HLS starts later."),
      element("li", {}, "Video encoder H.264, audio encoder AAC.")),
  ];
}

function ffmpeg(server, streamKey) {
  const command = `ffmpeg -re -i VIDEO.mp4 \\
  -c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p -g 30 -b:v 2500k \\
  -c:a aac -ar 48000 -b:a 128k -f flv "${server}/${streamKey}"`;
  const test = `ffmpeg -re -f lavfi -i testsrc2=s=1280x720:r=30 -f lavfi -i sine=f=440:r=48000 \\
  -c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p -g 30 -b:v 2500k \\
  -c:a aac -b:a 128k -f flv "${server}/${streamKey}"`;
  return [field("A file", command), field("Test pattern with a tone", test)];
}

function gstreamer(server, streamKey) {
  const command = `gst-launch-1.0 -e flvmux name=mux streamable=true ! rtmp2sink location="${server}/${streamKey}" \\
  videotestsrc is-live=true ! video/x-raw,width=1280,height=720,framerate=30/1 ! videoconvert \\
  ! x264enc tune=zerolatency bitrate=2500 key-int-max=30 ! h264parse ! queue ! mux. \\
  audiotestsrc is-live=true ! audioconvert ! audioresample ! avenc_aac ! aacparse ! queue ! mux.`;
  return [field("Test pattern with a tone", command)];
}

const bold = (text) => element("b", {}, text);

const field = (label, text) => element("div", { className: "field" }, element("span", {}, label), copyable(text));
