// Logging in and out. The session itself is a cookie that no script can read. Over a connection
// that the network can read, there is a link to HTTPS in place of the login form.

import * as api from "./api.js";
import { runDialog, showDialog } from "./dialog.js";

const button = document.getElementById("session");
/** A session may expire while the page is open, so its state is requested again after this time. */
const REFRESH_MS = 30_000;
let current;
let refreshedAt = -Infinity;

/** True if the user is logged in as the administrator. */
export const isAdministrator = () => Boolean(current?.administrator);

export async function refreshSession() {
  if (performance.now() - refreshedAt < REFRESH_MS) return;
  setSession(await api.session());
}

function setSession(session) {
  refreshedAt = performance.now();
  current = session;
  button.hidden = false;
  button.textContent = session.name ? "Log out" : "Log in";
  button.title = session.name ? `Logged in as ${session.name}` : "";
  document.dispatchEvent(new Event("headwater:changed"));
}

/** Call after a response with status 401. */
export function onSessionExpired() {
  setSession(loggedOut());
}

const loggedOut = () => ({ ...current, name: undefined, administrator: false });

button.addEventListener("click", async () => {
  if (current?.name) {
    await api.logOut().catch(() => {});
    return setSession(await api.session().catch(loggedOut));
  }
  if (!current?.may_log_in) return showHttps(current?.https_url);
  await runDialog(document.getElementById("login"), async (form) => {
    setSession(await api.logIn(form.get("name"), form.get("password")));
  });
});

/** Shows where to log in, or that HTTPS is off. */
function showHttps(url) {
  const link = document.getElementById("https-link");
  link.hidden = !url;
  if (url) {
    link.href = url;
    link.textContent = `Open ${url}`;
  }
  document.getElementById("https-hint").hidden = !url;
  document.getElementById("https-off").hidden = Boolean(url);
  showDialog(document.getElementById("https"));
}
