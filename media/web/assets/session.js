// Logging in and out. The session itself is a cookie that no script can read.

import * as api from "./api.js";
import { ask } from "./dialog.js";

const button = document.getElementById("session");
/** Who the server takes us for; a session may end while the page is open, so it is asked anew every half minute. */
const ASK_MS = 30_000;
let known;
let askedAt = -Infinity;

/** True if this is the administrator. */
export const administers = () => Boolean(known?.administrator);

export async function whoAmI() {
  if (performance.now() - askedAt < ASK_MS) return;
  become(await api.session());
}

function become(session) {
  askedAt = performance.now();
  known = session;
  button.hidden = false;
  button.textContent = session.name ? "Log out" : "Log in";
  button.title = session.name ? `Logged in as ${session.name}` : "";
  document.dispatchEvent(new Event("headwater:changed"));
}

/** After an answer that says that the session is over. */
export function forget() {
  become({ administrator: false });
}

button.addEventListener("click", async () => {
  if (known?.name) {
    await api.logOut().catch(() => {});
    return become(await api.session().catch(() => ({ administrator: false })));
  }
  await ask(document.getElementById("login"), async (form) => {
    become(await api.logIn(form.get("name"), form.get("password")));
  });
});
