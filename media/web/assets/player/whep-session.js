// A WHEP session on the server (draft-ietf-wish-whep): opened with an offer, polled, ended. Must not know media.

import { ApiError, request } from "../api.js";
import { requestPersistently } from "./attempts.js";
import { outcomeOf } from "./outcome.js";

const STATUS_TIMEOUT_MS = 1000;

/** A WHEP session on the server. */
export class Session {
  async open(address, { token, sdp, signal, isAfterLoss }) {
    const url = new URL(address);
    const headers = { "content-type": "application/sdp" };
    if (token) {
      url.searchParams.set("token", token);
      headers.authorization = `Bearer ${token}`;
    }
    this.headers = headers;
    try {
      const discard = (late) => sendDelete(sessionUrl(late), headers);
      const response = await requestPersistently(url, { method: "POST", headers, body: sdp, signal, isAfterLoss, discard });
      this.url = sessionUrl(response);
      return await response.text();
    } catch (e) {
      throw e instanceof ApiError ? outcomeOf(e) : e;
    }
  }

  /** The session status: `{ stay, elsewhere }`. */
  async status(signal) {
    const headers = this.headers.authorization ? { authorization: this.headers.authorization } : {};
    return (await request(this.url, { headers, signal, timeoutMs: STATUS_TIMEOUT_MS })).json();
  }

  /** Ends the session, also while the page is being unloaded. */
  close() {
    sendDelete(this.url, this.headers);
    this.url = null;
  }
}

/** The URL of the session that a response to an offer created. */
function sessionUrl(response) {
  const target = response.headers.get("location");
  return target ? new URL(target, response.url) : null;
}

function sendDelete(url, headers) {
  if (url) fetch(url, { method: "DELETE", headers, keepalive: true }).catch(() => {});
}
