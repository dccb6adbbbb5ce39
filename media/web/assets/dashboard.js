// The dashboard: what is live and on which nodes, kept up to date, and how to publish.

import * as api from "./api.js";
import { element } from "./element.js";
import { age, bitrate, count } from "./format.js";
import { drawNodes, nodesFailed } from "./nodes.js";
import { publishSection } from "./publish.js";
import { whoAmI } from "./session.js";

const POLL_MS = 2000;
const $ = (name) => document.getElementById(name);
const cards = new Map();

function draw(streams, several) {
  const seen = new Set(streams.map((s) => s.name));
  for (const [name, card] of cards) {
    if (seen.has(name)) continue;
    card.root.remove();
    cards.delete(name);
  }
  for (const [index, stream] of streams.entries()) {
    const card = cards.get(stream.name) ?? newCard(stream);
    cards.set(stream.name, card);
    card.update(stream, several);
    // Touch the list only where it changes, so that focus and selection stay.
    if ($("streams").children[index] !== card.root) $("streams").insertBefore(card.root, $("streams").children[index] ?? null);
  }
  $("empty").hidden = streams.length > 0;
  const viewers = streams.reduce((sum, s) => sum + s.viewers, 0);
  const sum = streams.length ? `${count(streams.length, "stream")}, ${count(viewers, "viewer")}` : "";
  if ($("sum").textContent !== sum) $("sum").textContent = sum;
}

/** What the cluster knows of each stream, with what this node knows if it carries it (`here`). */
function joined(streams, local) {
  const here = new Map(local.map((status) => [status.name, status]));
  return streams.map((stream) => ({ ...stream, here: here.get(stream.name) }));
}

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
  const [origin, originCell] = cell("Origin");
  const [where, whereCell] = cell("Viewers by node");
  const since = element("span", { className: "age", title: "Live for" });
  const notices = element("div", {});
  const root = element("li", { className: "stream" },
    element("h3", {}, element("i", {}), element("a", { href: watch, title: stream.name }, element("span", { className: "app" }, `${app}/`), id), since),
    element("dl", {}, videoCell, audioCell, rateCell, viewersCell, originCell, whereCell),
    notices,
    element("div", { className: "links" },
      element("a", { className: "button first", href: watch }, "Watch"),
      element("a", { className: "button", href: `${watch}&playOrder=hls` }, "LL-HLS"),
      element("a", { className: "button", href: `/${app}/streams/${encodeURIComponent(id)}.m3u8` }, "m3u8")));
  root.dataset.stream = stream.name;
  return {
    root,
    update(now, several) {
      const { here } = now;
      const { video: v, audio: a, viewers: n } = here ?? {};
      for (const part of [videoCell, audioCell, rateCell]) part.hidden = !here;
      video.textContent = v ? `${v.codec}${v.height ? ` ${v.width}×${v.height}` : ""}` : "none";
      video.title = v?.codec_string ?? "";
      audio.textContent = a ? `${a.codec}${a.sample_rate_hz ? ` ${a.sample_rate_hz / 1000} kHz` : ""}` : "none";
      audio.title = a?.codec_string ?? "";
      rate.textContent = bitrate(here?.bitrate_bps);
      viewers.textContent = String(now.viewers);
      viewers.title = n ? `Here: WebRTC ${n.webrtc}, HLS ${n.hls}, RTMP ${n.rtmp}` : "";
      for (const part of [originCell, whereCell]) part.hidden = !several;
      origin.textContent = now.origin;
      where.textContent = now.viewersByNode.map((at) => `${at.node}: ${at.viewers}`).join(", ") || "–";
      since.textContent = age(now.ageMs);
      const wanted = (here?.notices ?? []).map((notice) => notice.message);
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

/** The nodes; what is wrong with them does not keep the streams from being shown. */
async function look() {
  try {
    const { nodes, ageS } = await api.nodes();
    drawNodes(nodes, ageS);
    return nodes.length > 1;
  } catch (e) {
    if (!(e instanceof api.Refused) || e.code === "unreachable") throw e;
    nodesFailed(e.message);
    return false;
  }
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
      await whoAmI();
      const [streams, local, several] = await Promise.all([api.clusterStreams(), api.streams(), look()]);
      draw(joined(streams, local), several);
      health(true, "Connected");
      attempt = 0;
      await pauseOr(refreshed, POLL_MS);
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

/** Fired by whoever has changed something: the next look is at once. */
const refreshed = "headwater:changed";

function pauseOr(event, ms) {
  const early = new AbortController();
  const stop = () => early.abort();
  document.addEventListener(event, stop, { once: true });
  return api.pause(ms, early.signal).catch(() => {}).finally(() => document.removeEventListener(event, stop));
}

follow();
