// The apps: who may publish and watch. Only for the administrator.

import * as api from "./api.js";
import { copyable } from "./copyable.js";
import { runDialog } from "./dialog.js";
import { element } from "./element.js";
import { count } from "./format.js";
import { setPublishKeys } from "./publish.js";
import { isAdministrator, onSessionExpired } from "./session.js";

const $ = (name) => document.getElementById(name);
const cards = new Map();
/** Minimum interval between two requests: other administrators rarely change anything. */
const REFRESH_MS = 5000;
const POLICIES = {
  open: "everybody",
  key: "with the publish key",
  one_time_token: "with a one-time token",
  jwt: "with a JSON web token",
  hash: "with a hash",
  closed: "nobody",
};
let refreshedAt = -Infinity;
let isRefreshing = false;

/** Requests the settings again, if they are old. Never fails. */
export async function refreshApps() {
  $("apps-section").hidden = !isAdministrator();
  if (!isAdministrator()) {
    renderApps([]);
    refreshedAt = -Infinity;
    return;
  }
  if (isRefreshing || performance.now() - refreshedAt < REFRESH_MS) return;
  isRefreshing = true;
  try {
    renderApps(await api.apps({ timeoutMs: 10_000 }));
    refreshedAt = performance.now();
    showProblem("");
  } catch (e) {
    reportError(e);
  } finally {
    isRefreshing = false;
  }
}

function renderApps(apps) {
  const names = new Set(apps.map((app) => app.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.root.remove();
    cards.delete(name);
  }
  for (const [index, app] of apps.entries()) {
    const card = cards.get(app.name) ?? newCard(app.name);
    cards.set(app.name, card);
    card.update(app);
    if ($("apps").children[index] !== card.root) $("apps").insertBefore(card.root, $("apps").children[index] ?? null);
  }
  showPublishKeys();
}

/** The settings for publishing contain the keys of the apps that require one. */
function showPublishKeys() {
  const apps = [...cards.values()].map((card) => card.settings()).filter((app) => app.publish === "key" && app.publish_key);
  setPublishKeys(new Map(apps.map((app) => [app.name, app.publish_key])));
}

function newCard(name) {
  let current;
  const choice = (action, label) => {
    const options = Object.entries(POLICIES).map(([value, text]) => element("option", { value }, text));
    const select = element("select", { name: action }, ...options);
    // The problem is shown already.
    select.addEventListener("change", () => change(withPolicy(current, action, select.value)).catch(() => {}));
    return [select, element("label", {}, label, select)];
  };
  const [publish, publishLabel] = choice("publish", "May publish");
  const [play, playLabel] = choice("play", "May watch");
  const key = element("div", { className: "field" });
  const more = element("ul", { className: "tips" });
  const made = element("div", { className: "field" });
  const rotate = element("button", { type: "button", className: "button" }, "New publish key");
  const link = element("button", { type: "button", className: "button" }, "Link for viewers");
  rotate.addEventListener("click", () => replaceKey(current, change));
  link.addEventListener("click", () => makeLink(current, made));
  const root = element("li", { className: "card" }, element("h3", {}, name),
    element("div", { className: "pick" }, publishLabel, playLabel), key, more, element("div", { className: "links" }, rotate, link), made);
  root.dataset.app = name;

  function update(app) {
    // An answer may arrive after that of a later change.
    if (JSON.stringify(app) === JSON.stringify(current) || app.revision < current?.revision) return;
    current = app;
    publish.value = app.publish;
    play.value = app.play;
    const label = app.publish === "key" || app.play === "key" ? "Publish key" : "Publish key, not required now";
    key.replaceChildren(...(app.publish_key ? [element("span", {}, label), copyable(app.publish_key)] : []));
    rotate.hidden = !app.publish_key;
    const streams = Object.keys(app.streams).length;
    const facts = [];
    if (app.publish_networks.length) facts.push(["Publishers only from", app.publish_networks.join(", ")]);
    if (app.allowed_origins.length) facts.push(["The player only on", app.allowed_origins.join(", ")]);
    if (streams) facts.push(["Other rules for", count(streams, "stream")]);
    more.replaceChildren(...facts.map(([what, value]) => element("li", {}, `${what} `, element("b", {}, value))));
    more.hidden = facts.length === 0;
  }

  /** Writes changed settings. `secrets` are shown once. */
  async function change({ settings, secrets = [] }) {
    try {
      update(await api.putApp(settings));
      showProblem("");
      if (secrets.length) made.replaceChildren(...secrets.flatMap(([label, text]) => [element("span", {}, label), copyable(text)]));
    } catch (e) {
      if (e.body?.current) update(e.body.current);
      // The selection shows what is in force.
      publish.value = current.publish;
      play.value = current.play;
      reportError(e);
      throw e;
    } finally {
      showPublishKeys();
    }
  }

  return { root, update, settings: () => current };
}

/** The settings with another policy, and with the key that the policy needs if there is none. */
function withPolicy(app, action, policy) {
  const settings = { ...app, [action]: policy };
  if (policy === "key" && !app.publish_key) settings.publish_key = randomKey();
  if (policy === "jwt" && !app.has_jwt_key && !app.jwks_url) {
    settings.jwt_key = randomKey();
    return { settings, secrets: [["New key for signing JSON web tokens (HS256), shown only now", settings.jwt_key]] };
  }
  if (policy === "hash" && !app.has_hash_secret) {
    settings.hash_secret = randomKey();
    return { settings, secrets: [["New secret for hashes, shown only now", settings.hash_secret]] };
  }
  return { settings };
}

async function replaceKey(app, change) {
  const dialog = $("rotate");
  dialog.querySelector(".hint").textContent =
    `Whoever publishes to ${app.name} needs the new key. Publishers that used the old one are disconnected within five seconds.`;
  await runDialog(dialog, () => change({ settings: { ...app, publish_key: randomKey() } }));
}

/** The kind of token that a policy for viewers asks for; undefined: none helps. */
const TOKEN_KINDS = { one_time_token: "one_time", jwt: "jwt" };
const LINK_HINTS = {
  open: "Everybody may watch this stream: the link needs no token and does not expire.",
  one_time_token: "The link works once: for the first viewer who opens it.",
  jwt: "The link works for everybody who has it, until it expires.",
};
const NO_LINK = "A link needs one-time tokens or JSON web tokens: change who may watch first.";

async function makeLink(app, target) {
  const dialog = $("link");
  const [stream, valid] = [dialog.querySelector("[name=stream]"), dialog.querySelector("[name=hours]").parentElement];
  const policyOf = (id) => app.streams[id]?.play ?? app.play;
  const describe = () => {
    const policy = policyOf(stream.value);
    dialog.querySelector(".hint").textContent = LINK_HINTS[policy] ?? NO_LINK;
    valid.hidden = !TOKEN_KINDS[policy];
  };
  stream.oninput = describe;
  const made = runDialog(dialog, async (form) => {
    const id = form.get("stream");
    const kind = TOKEN_KINDS[policyOf(id)];
    const url = new URL(`/${app.name}/play.html?id=${encodeURIComponent(id)}`, location.href);
    if (policyOf(id) !== "open") {
      if (!kind) throw new Error(NO_LINK);
      const expiresAtMs = Date.now() + Number(form.get("hours")) * 3_600_000;
      const token = await api.makeToken(app.name, { stream: id, type: "play", kind, expires_at_ms: expiresAtMs }).catch((e) => {
        if (e.status === 401) onSessionExpired();
        throw e;
      });
      url.searchParams.set("token", token.token);
    }
    target.replaceChildren(element("span", {}, `Link to ${id}${kind === "one_time" ? ", for one viewer" : ""}`), copyable(url.href, url.href));
  });
  // The form has its initial values now.
  describe();
  await made;
}

/** 192 random bits: 32 letters, digits, "-" and "_". */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(24));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

function reportError(e) {
  if (e.status === 401) onSessionExpired();
  if (!(e instanceof api.ApiError)) console.error(e);
  showProblem(e.message);
}

function showProblem(text) {
  $("apps-notice").textContent = text;
  $("apps-notice").hidden = !text;
}
