// Logging in and out. The session itself is a cookie that no script can read.

import * as api from "./api.js";
import { runDialog } from "./dialog.js";

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
  setSession({ administrator: false });
}

button.addEventListener("click", async () => {
  if (current?.name) {
    await api.logOut().catch(() => {});
    return setSession(await api.session().catch(() => ({ administrator: false })));
  }
  await runDialog(document.getElementById("login"), async (form) => {
    setSession(await api.logIn(form.get("name"), form.get("password")));
  });
});
