// A WHEP session on the server (draft-ietf-wish-whep): opened with an offer, polled, ended. Must not know media.

import { ApiError, request } from "../api.js";
import { requestPersistently } from "./attempts.js";
import { outcomeOf } from "./outcome.js";

const STATUS_TIMEOUT_MS = 1000;

/** A WHEP session on the server. */
export class Session {
  async open(address, { credentials, sdp, signal, isAfterLoss }) {
    const url = new URL(address);
    credentials.addTo(url);
    const isOnce = credentials.mayAdmitOnce();
    const headers = { "content-type": "application/sdp" };
    try {
      const discard = (late) => sendDelete(sessionUrl(late));
      const options = { method: "POST", headers, body: sdp, signal, isAfterLoss, isOnce, discard };
      const response = await requestPersistently(url, options);
      this.url = sessionUrl(response);
      if (this.url) credentials.rememberFrom(this.url);
      return await response.text();
    } catch (e) {
      throw e instanceof ApiError ? outcomeOf(e) : e;
    }
  }

  /** The session status: `{ stay, elsewhere }`. */
  async status(signal) {
    return (await request(this.url, { signal, timeoutMs: STATUS_TIMEOUT_MS })).json();
  }

  /** Ends the session, also while the page is being unloaded. */
  close() {
    sendDelete(this.url);
    this.url = null;
  }
}

/** The URL of the session that a response to an offer created. */
function sessionUrl(response) {
  const target = response.headers.get("location");
  return target ? new URL(target, response.url) : null;
}

function sendDelete(url) {
  if (url) fetch(url, { method: "DELETE", keepalive: true }).catch(() => {});
}
