// Debian's Firefox, driven over Marionette, its own remote protocol: JSON arrays over TCP, each
// prefixed with its length. (Playwright supports only its own build of Firefox.)

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { waitFor } from "./node.js";
import { BROWSERS } from "./programs.js";

const PORT = 2828;
const PREFERENCES = { "marionette.port": PORT, "media.autoplay.default": 0, "datareporting.policy.dataSubmissionEnabled": false, "app.update.enabled": false };

/** Starts Firefox in this namespace, with a new profile. */
export async function openFirefox() {
  const folder = mkdtempSync(join(tmpdir(), "headwater-firefox-"));
  const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`);
  writeFileSync(join(folder, "user.js"), lines.join(""));
  const arguments_ = ["--headless", "--no-remote", "--marionette", "--remote-allow-system-access", "--profile", folder, "--window-size", "1280,800"];
  const child = spawn(BROWSERS.firefox, arguments_, { stdio: "ignore", env: { ...process.env, HOME: folder } });
  const socket = await waitFor("Firefox to listen", () => connectMarionette());
  const waiting = new Map();
  let buffer = Buffer.alloc(0);
  socket.on("data", (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (;;) {
      const colon = buffer.indexOf(":");
      const length = Number(buffer.subarray(0, colon));
      if (colon < 0 || buffer.length < colon + 1 + length) return;
      const [, id, error, result] = JSON.parse(buffer.subarray(colon + 1, colon + 1 + length));
      buffer = buffer.subarray(colon + 1 + length);
      const { resolve, reject } = waiting.get(id) ?? {};
      waiting.delete(id);
      if (error) reject?.(new Error(`Firefox: ${error.message}`));
      else resolve?.(result);
    }
  });
  let next = 1;
  const command = (name, parameters = {}) =>
    new Promise((resolve, reject) => {
      const message = JSON.stringify([0, next, `WebDriver:${name}`, parameters]);
      waiting.set(next++, { resolve, reject });
      socket.write(`${Buffer.byteLength(message)}:${message}`);
    });
  await command("NewSession");
  return {
    goto: (url) => command("Navigate", { url }),
    /** Runs a function body in the page and returns its result. */
    run: async (script) => (await command("ExecuteScript", { script, args: [] })).value,
    screenshot: async () => Buffer.from((await command("TakeScreenshot", { full: false })).value, "base64"),
    async close() {
      socket.destroy();
      const exited = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await exited;
      rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
}

/** A connected socket on which Firefox has sent its greeting, or null. */
function connectMarionette() {
  return new Promise((resolve) => {
    const socket = connect(PORT, "127.0.0.1");
    socket.once("error", () => resolve(null));
    socket.once("data", () => resolve(socket));
  });
}
