// The dashboard: what is live, kept up to date, and how to publish.

import * as api from "./api.js";
import { element } from "./element.js";
import { age, bitrate, count } from "./format.js";
import { publishSection } from "./publish.js";

const POLL_MS = 2000;
const $ = (name) => document.getElementById(name);
const cards = new Map();

function draw(streams) {
  const seen = new Set(streams.map((s) => s.name));
  for (const [name, card] of cards) {
    if (seen.has(name)) continue;
    card.root.remove();
    cards.delete(name);
  }
  for (const [index, stream] of streams.entries()) {
    const card = cards.get(stream.name) ?? newCard(stream);
    cards.set(stream.name, card);
    card.update(stream);
    // Touch the list only where it changes, so that focus and selection stay.
    if ($("streams").children[index] !== card.root) $("streams").insertBefore(card.root, $("streams").children[index] ?? null);
  }
  $("empty").hidden = streams.length > 0;
  const viewers = streams.reduce((sum, s) => sum + total(s.viewers), 0);
  const sum = streams.length ? `${count(streams.length, "stream")}, ${count(viewers, "viewer")}` : "";
  if ($("sum").textContent !== sum) $("sum").textContent = sum;
}

const total = (viewers) => viewers.webrtc + viewers.hls + viewers.rtmp;

function newCard(stream) {
  const [app, id] = stream.name.split("/");
  const watch = `/${app}/play.html?id=${encodeURIComponent(id)}`;
  const cell = (label) => {
    const value = element("dd", {});
    return [value, element("div", {}, element("dt", {}, label), value)];
  };
  const [video, videoCell] = cell("Video");
  const [audio, audioCell] = cell("Sound");
  const [rate, rateCell] = cell("Bitrate");
  const [viewers, viewersCell] = cell("Viewers");
  const since = element("span", { className: "age", title: "Live for" });
  const notices = element("div", {});
  const root = element("li", { className: "stream" },
    element("h3", {}, element("i", {}), element("a", { href: watch, title: stream.name }, element("span", { className: "app" }, `${app}/`), id), since),
    element("dl", {}, videoCell, audioCell, rateCell, viewersCell),
    notices,
    element("div", { className: "links" },
      element("a", { className: "button first", href: watch }, "Watch"),
      element("a", { className: "button", href: `${watch}&playOrder=hls` }, "LL-HLS"),
      element("a", { className: "button", href: `/${app}/streams/${encodeURIComponent(id)}.m3u8` }, "m3u8")));
  root.dataset.stream = stream.name;
  return {
    root,
    update(now) {
      const { video: v, audio: a, viewers: n } = now;
      video.textContent = v ? `${v.codec}${v.height ? ` ${v.width}×${v.height}` : ""}` : "none";
      video.title = v?.codec_string ?? "";
      audio.textContent = a ? `${a.codec}${a.sample_rate_hz ? ` ${a.sample_rate_hz / 1000} kHz` : ""}` : "none";
      audio.title = a?.codec_string ?? "";
      rate.textContent = bitrate(now.bitrate_bps);
      viewers.textContent = String(total(n));
      viewers.title = `WebRTC ${n.webrtc}, HLS ${n.hls}, RTMP ${n.rtmp}`;
      since.textContent = age(Date.now() - now.started_at_ms);
      const wanted = now.notices.map((notice) => notice.message);
      if (wanted.join("\n") !== [...notices.children].map((p) => p.textContent).join("\n")) {
        notices.replaceChildren(...wanted.map((text) => element("p", { className: "notice" }, text)));
      }
      notices.hidden = wanted.length === 0;
    },
  };
}

function health(ok, text) {
  $("health").dataset.ok = String(ok);
  if ($("health-text").textContent !== text) $("health-text").textContent = text;
}

async function follow() {
  let node;
  for (let attempt = 0; ; ) {
    try {
      if (!node) {
        node = await api.node();
        publishSection($("publish"), node);
        $("version").textContent = `Headwater ${node.version}, node ${node.id}`;
      }
      draw(await api.streams());
      health(true, "Connected");
      attempt = 0;
      await api.pause(POLL_MS);
    } catch (e) {
      if (!(e instanceof api.Refused)) console.error(e);
      health(false, "The server does not answer. Trying again…");
      // It may come back as another version, with other ports.
      node = undefined;
      await api.pause(api.backoffMs(attempt++));
    }
    while (document.hidden) await new Promise((shown) => document.addEventListener("visibilitychange", shown, { once: true }));
  }
}

follow();
