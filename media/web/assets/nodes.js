// The nodes of the cluster as a table, which is a list of cards on a phone.

import * as api from "./api.js";
import { ask } from "./dialog.js";
import { element } from "./element.js";
import { age, bitrate, count } from "./format.js";
import { administers, forget } from "./session.js";

const $ = (name) => document.getElementById(name);
const rows = new Map();
const LABELS = [...document.querySelectorAll("#nodes th")].map((th) => th.textContent);
/** From this age on, what the registry said is old. */
const OLD_S = 5;

export function drawNodes(nodes, ageS) {
  $("cluster").hidden = nodes.length === 0;
  const body = $("nodes").tBodies[0];
  const seen = new Set(nodes.map((node) => node.id));
  for (const [id, row] of rows) {
    if (seen.has(id)) continue;
    row.root.remove();
    rows.delete(id);
  }
  for (const [index, node] of nodes.entries()) {
    const row = rows.get(node.id) ?? newRow(node.id);
    rows.set(node.id, row);
    row.update(node);
    if (body.children[index] !== row.root) body.insertBefore(row.root, body.children[index] ?? null);
  }
  const alive = nodes.filter((node) => node.inTheCluster).length;
  say("nodes-sum", alive === nodes.length ? count(alive, "node") : `${count(alive, "node")}, ${nodes.length - alive} dead`);
  notice(ageS >= OLD_S ? `The registry does not answer. This is what it said ${age(ageS * 1000)} ago.` : "");
}

/** The registry has never said anything. */
export function nodesFailed(message) {
  $("cluster").hidden = false;
  notice(message);
}

function notice(text) {
  say("nodes-notice", text);
  $("nodes-notice").hidden = !text;
}

function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function newRow(id) {
  const addresses = element("small", {});
  const here = element("span", { className: "tag" }, "this node");
  const state = element("span", { className: "state" });
  const remove = element("button", { type: "button", className: "button", title: `Remove ${id}` }, "Remove");
  const drain = element("button", { type: "button", className: "button", title: `Drain ${id}` }, "Drain");
  const cells = LABELS.map((label) => {
    const cell = element("td", {});
    cell.dataset.label = label;
    return cell;
  });
  const [name, status, role, zone, cpu, streams, viewers, sends, version, image, up] = cells;
  name.append(element("span", { className: "id" }, id), here, addresses);
  status.append(state, remove, drain);
  const root = element("tr", {}, ...cells);
  root.dataset.node = id;
  let now;
  remove.addEventListener("click", () => confirm("remove", now, api.deleteNode));
  drain.addEventListener("click", () => confirm("drain", now, api.drainNode));
  return {
    root,
    update(node) {
      now = node;
      here.hidden = !node.answering;
      addresses.textContent = (node.addresses ?? []).join(", ");
      addresses.hidden = !addresses.textContent;
      const [word, text] = stateOf(node);
      state.dataset.state = word;
      if (state.textContent !== text) state.textContent = text;
      // A living node would be back at once.
      remove.hidden = !administers() || node.inTheCluster;
      drain.hidden = !administers() || !canDrain(node);
      role.textContent = node.group ? `${node.role}, ${node.group}` : node.role;
      zone.textContent = node.zone || "–";
      cpu.textContent = node.cpu;
      streams.textContent = node.streams;
      viewers.textContent = node.viewers;
      sends.textContent = bitrate(node.egressBps);
      sends.title = node.egressCapacityBps ? `of ${bitrate(node.egressCapacityBps)}` : "";
      version.textContent = node.version;
      image.textContent = node.image || "–";
      image.title = node.instanceType;
      up.textContent = age(node.ageMs);
    },
  };
}

function stateOf(node) {
  if (!node.inTheCluster) return ["dead", `dead, silent ${age(node.silentMs)}`];
  if (node.draining || node.drainAsked) return ["draining", "draining"];
  return node.ready ? ["ready", "ready"] : ["starting", "not ready"];
}

/** A node that is alone, or runs the database, hands over to nobody. */
function canDrain(node) {
  return node.inTheCluster && !node.draining && !node.drainAsked && ["origin", "edge"].includes(node.role);
}

const HINTS = {
  remove: (node) =>
    `${node.id} has been silent for ${age(node.silentMs)}. It is only taken off the list, and comes back by itself if it lives again.`,
  drain: (node) =>
    `${node.id} takes nobody new, its viewers and publishers move to other nodes, and then it ends. To have it back, start its service or its instance again.`,
};

async function confirm(what, node, act) {
  const dialog = $(what);
  dialog.querySelector(".hint").textContent = HINTS[what](node);
  await ask(dialog, async () => {
    try {
      await act(node.id);
    } catch (e) {
      if (e.status === 401) forget();
      // Somebody else was faster, or it has vanished by itself.
      if (e.status !== 404) throw e;
    }
    document.dispatchEvent(new Event("headwater:changed"));
  });
}
