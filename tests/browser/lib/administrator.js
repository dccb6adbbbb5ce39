// What an administrator does: over REST, and on the dashboard. Must not know what follows from it.

import { waitFor } from "./node.js";

const APP = "/rest/v2/apps/live";

/** The administrator of a `DaemonNode`, with REST. */
export class Administrator {
  constructor(node) {
    this.node = node;
  }

  async request(method, path, body) {
    const authorization = `Basic ${btoa(`admin:${this.node.password}`)}`;
    const headers = { authorization, ...(body && { "content-type": "application/json" }) };
    const answer = await fetch(`http://127.0.0.1:5080${path}`, { method, headers, body: body && JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return answer.status === 204 ? null : answer.json();
  }

  /** Changes settings of the app `live`. Returns once they are in force. */
  async change(settings) {
    const current = await this.request("GET", APP);
    await this.untilInForce(() => this.request("PUT", APP, { ...current, ...settings }));
  }

  /** Makes a token for viewers of the app `live` that is valid for an hour. `kind`: "jwt" or "one_time". */
  async makeToken(kind, stream) {
    const expires_at_ms = Date.now() + 3_600_000;
    return (await this.request("POST", `${APP}/tokens`, { type: "play", kind, stream, expires_at_ms })).token;
  }

  /** Revokes a token. Returns at once. */
  async revoke(token) {
    await this.request("POST", `${APP}/tokens/revoke`, { token });
  }

  async untilInForce(change) {
    const changes = () => this.node.log.split("access rules changed").length;
    const before = changes();
    await change();
    await waitFor("the new access rules", () => changes() > before);
  }
}

/** Logs in on the dashboard `page`, which must have been loaded over HTTPS. */
export async function logIn(page, password) {
  await page.waitForSelector("#session:visible");
  await page.click("#session");
  await page.waitForSelector("#login[open]");
  await page.fill("#login [type=password]", password);
  await page.click("#login [type=submit]");
  await page.waitForSelector("#login:not([open])", { state: "attached" });
}
