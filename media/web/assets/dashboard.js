// The dashboard: live streams, nodes, apps, and publish settings. Polls the engine every two seconds.

import * as api from "./api.js";
import { refreshApps } from "./apps.js";
import { element } from "./element.js";
import { age, bitrate, count } from "./format.js";
import { renderNodes, showNodesError } from "./nodes.js";
import { publishSection } from "./publish.js";
import { refreshSession } from "./session.js";

const POLL_MS = 2000;
const $ = (name) => document.getElementById(name);
const cards = new Map();

function renderStreams(streams, isCluster) {
  const seen = new Set(streams.map((s) => s.name));
  for (const [name, card] of cards) {
    if (seen.has(name)) continue;
    card.root.remove();
    cards.delete(name);
  }
  for (const [index, stream] of streams.entries()) {
    const card = cards.get(stream.name) ?? newCard(stream);
    cards.set(stream.name, card);
    card.update(stream, isCluster);
    // Change the list only where necessary, so that focus and selection survive.
    if ($("streams").children[index] !== card.root) $("streams").insertBefore(card.root, $("streams").children[index] ?? null);
  }
  $("empty").hidden = streams.length > 0;
  const viewers = streams.reduce((sum, s) => sum + s.viewers, 0);
  const sum = streams.length ? `${count(streams.length, "stream")}, ${count(viewers, "viewer")}` : "";
  if ($("sum").textContent !== sum) $("sum").textContent = sum;
}

/** Adds this node's status of each stream (`here`) to the cluster's list; undefined if the stream is not on this node. */
function mergeStreams(streams, local) {
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
  const [audio, audioCell] = cell("Audio");
  const [rate, rateCell] = cell("Bitrate");
  const [viewers, viewersCell] = cell("Viewers");
  const [origin, originCell] = cell("Origin");
  const [where, whereCell] = cell("Viewers by node");
  for (const part of [originCell, whereCell]) part.className = "ids";
  const liveFor = element("span", { className: "age", title: "Live for" });
  const notices = element("div", {});
  const root = element("li", { className: "stream" },
    element("h3", {}, element("i", {}), element("a", { href: watch, title: stream.name }, element("span", { className: "app" }, `${app}/`), id), liveFor),
    element("dl", {}, videoCell, audioCell, rateCell, viewersCell, originCell, whereCell),
    notices,
    element("div", { className: "links" },
      element("a", { className: "button first", href: watch }, "Watch"),
      element("a", { className: "button", href: `${watch}&playOrder=hls` }, "LL-HLS"),
      element("a", { className: "button", href: `/${app}/streams/${encodeURIComponent(id)}.m3u8` }, "m3u8")));
  root.dataset.stream = stream.name;
  return {
    root,
    update(now, isCluster) {
      const { here } = now;
      const { video: v, audio: a, viewers: n } = here ?? {};
      for (const part of [videoCell, audioCell, rateCell]) part.hidden = !here;
      video.textContent = v ? `${v.codec}${v.height ? ` ${v.width}×${v.height}` : ""}` : "none";
      video.title = v?.codec_string ?? "";
      audio.textContent = a ? `${a.codec}${a.sample_rate_hz ? ` ${a.sample_rate_hz / 1000} kHz` : ""}` : "none";
      audio.title = a?.codec_string ?? "";
      rate.textContent = bitrate(here?.bitrate_bps);
      viewers.textContent = String(now.viewers);
      viewers.title = n ? `On this node: WebRTC ${n.webrtc}, HLS ${n.hls}, RTMP ${n.rtmp}` : "";
      for (const part of [originCell, whereCell]) part.hidden = !isCluster;
      origin.textContent = now.origin;
      const byNode = now.viewersByNode.map((at) => `${at.node}: ${at.viewers}`);
      if (where.textContent !== (byNode.join(", ") || "–")) {
        where.replaceChildren(...byNode.flatMap((text, index) => [index ? ", " : "", element("span", {}, text)]));
        if (byNode.length === 0) where.textContent = "–";
      }
      liveFor.textContent = age(now.ageMs);
      const messages = (here?.notices ?? []).map((notice) => notice.message);
      if (messages.join("\n") !== [...notices.children].map((p) => p.textContent).join("\n")) {
        notices.replaceChildren(...messages.map((text) => element("p", { className: "notice" }, text)));
      }
      notices.hidden = messages.length === 0;
    },
  };
}

function showHealth(ok, text) {
  $("health").dataset.ok = String(ok);
  if ($("health-text").textContent !== text) $("health-text").textContent = text;
}

/** Updates the nodes and returns true for a cluster. An error response does not prevent the streams from being shown. */
async function updateNodes() {
  try {
    const { nodes, ageS } = await api.nodes();
    renderNodes(nodes, ageS);
    return nodes.length > 1;
  } catch (e) {
    if (!(e instanceof api.ApiError) || e.code === "unreachable") throw e;
    showNodesError(e.message);
    return false;
  }
}

async function poll() {
  let node;
  for (let attempt = 0; ; ) {
    try {
      if (!node) {
        node = await api.node();
        publishSection($("publish"), node);
        $("version").textContent = `Headwater ${node.version}, node ${node.id}`;
      }
      await refreshSession();
      // Not awaited: it waits for the registry, the rest of the page does not.
      refreshApps();
      const [streams, local, isCluster] = await Promise.all([api.clusterStreams(), api.streams(), updateNodes()]);
      renderStreams(mergeStreams(streams, local), isCluster);
      showHealth(true, "Connected");
      attempt = 0;
      await pauseUntilEvent(CHANGED_EVENT, POLL_MS);
    } catch (e) {
      if (!(e instanceof api.ApiError)) console.error(e);
      showHealth(false, "The server does not answer. Trying again…");
      // The server may return with another version and other ports.
      node = undefined;
      await api.pause(api.backoffMs(attempt++));
    }
    while (document.hidden) await new Promise((shown) => document.addEventListener("visibilitychange", shown, { once: true }));
  }
}

/** Dispatched after a change that the user made: triggers a poll at once. */
const CHANGED_EVENT = "headwater:changed";

function pauseUntilEvent(event, ms) {
  const wakeup = new AbortController();
  const wake = () => wakeup.abort();
  document.addEventListener(event, wake, { once: true });
  return api.pause(ms, wakeup.signal).catch(() => {}).finally(() => document.removeEventListener(event, wake));
}

poll();
