// The table of cluster nodes; a list of cards on narrow screens.

import * as api from "./api.js";
import { runDialog } from "./dialog.js";
import { element } from "./element.js";
import { age, bitrate, count } from "./format.js";
import { isAdministrator, onSessionExpired } from "./session.js";

const $ = (name) => document.getElementById(name);
const rows = new Map();
const LABELS = [...document.querySelectorAll("#nodes th")].map((th) => th.textContent);
/** Age in seconds from which the node list counts as stale. */
const STALE_AFTER_S = 5;

export function renderNodes(unsorted, ageS) {
  const nodes = [...unsorted].sort(byStateAndId);
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
  setText("nodes-sum", alive === nodes.length ? count(alive, "node") : `${count(alive, "node")}, ${nodes.length - alive} dead`);
  showNotice(ageS >= STALE_AFTER_S ? `The registry does not respond. This list was updated ${age(ageS * 1000)} ago.` : "");
}

/** Shows why there is no node list. */
export function showNodesError(message) {
  $("cluster").hidden = false;
  showNotice(message);
}

function showNotice(text) {
  setText("nodes-notice", text);
  $("nodes-notice").hidden = !text;
}

function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function newRow(id) {
  const addresses = element("small", {});
  const thisNode = element("span", { className: "tag" }, "this node");
  const state = element("span", { className: "state" });
  const remove = element("button", { type: "button", className: "button", title: `Remove ${id}` }, "Remove");
  const drain = element("button", { type: "button", className: "button", title: `Drain ${id}` }, "Drain");
  const cells = LABELS.map((label) => {
    const cell = element("td", {});
    cell.dataset.label = label;
    return cell;
  });
  const [name, status, role, zone, cpu, streams, viewers, sends, version, image, up] = cells;
  name.append(element("span", { className: "id", title: id }, id), " ", thisNode, addresses);
  status.append(state, remove, drain);
  const root = element("tr", {}, ...cells);
  root.dataset.node = id;
  let current;
  remove.addEventListener("click", () => confirmAction("remove", current, api.deleteNode));
  drain.addEventListener("click", () => confirmAction("drain", current, api.drainNode));
  return {
    root,
    update(node) {
      current = node;
      thisNode.hidden = !node.answering;
      addresses.textContent = (node.addresses ?? []).join(", ");
      addresses.hidden = !addresses.textContent;
      const [stateName, text] = stateOf(node);
      state.dataset.state = stateName;
      if (state.textContent !== text) state.textContent = text;
      // A node that is alive would reappear with its next heartbeat.
      remove.hidden = !isAdministrator() || node.inTheCluster;
      drain.hidden = !isAdministrator() || !canDrain(node);
      role.textContent = node.group ? `${node.role}, ${node.group}` : node.role;
      zone.textContent = node.zone || "–";
      cpu.textContent = node.cpu;
      streams.textContent = node.streams;
      viewers.textContent = node.viewers;
      sends.textContent = bitrate(node.egressBps);
      sends.title = node.egressCapacityBps ? `of ${bitrate(node.egressCapacityBps)}` : "";
      version.textContent = node.version;
      image.textContent = node.image || "–";
      image.title = [node.image, node.instanceType].filter(Boolean).join(", ");
      up.textContent = age(node.ageMs);
    },
  };
}

function stateOf(node) {
  if (!node.inTheCluster) return ["dead", `dead, silent ${age(node.silentMs)}`];
  if (node.draining || node.drainAsked) return ["draining", "draining"];
  return node.ready ? ["ready", "ready"] : ["starting", "not ready"];
}

/** Live nodes first, then draining ones, then dead ones. A node that is not ready yet is a live one. */
const STATE_ORDER = { ready: 0, starting: 0, draining: 1, dead: 2 };

function byStateAndId(a, b) {
  const [orderOfA, orderOfB] = [a, b].map((node) => STATE_ORDER[stateOf(node)[0]]);
  return orderOfA - orderOfB || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/** Only origins and edges drain: a standalone or registry node has no node to move its clients to. */
function canDrain(node) {
  return node.inTheCluster && !node.draining && !node.drainAsked && ["origin", "edge"].includes(node.role);
}

const HINTS = {
  remove: (node) =>
    `${node.id} sent its last heartbeat ${age(node.silentMs)} ago. This only removes it from the list; it reappears if it starts again.`,
  drain: (node) =>
    `${node.id} accepts no new clients, its viewers and publishers move to other nodes, and then it stops. To bring it back, start its service or its instance again.`,
};

async function confirmAction(actionName, node, action) {
  const dialog = $(actionName);
  dialog.querySelector(".hint").textContent = HINTS[actionName](node);
  await runDialog(dialog, async () => {
    try {
      await action(node.id);
    } catch (e) {
      if (e.status === 401) onSessionExpired();
      // The node has already been removed.
      if (e.status !== 404) throw e;
    }
    document.dispatchEvent(new Event("headwater:changed"));
  });
}
