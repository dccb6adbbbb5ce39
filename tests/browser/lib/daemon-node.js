// A node run by its daemon: with an administrator account and a registry entry.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { exited, streamStatus, waitFor } from "./node.js";
import { SERVER_ADDRESS } from "./network.js";
import { engine } from "./programs.js";

/**
 * A node on the default ports of this namespace. Its folder outlives its processes. `environment` is
 * added to theirs.
 */
export class DaemonNode {
  constructor({ environment = {} } = {}) {
    this.environment = environment;
    this.folder = mkdtempSync(join(tmpdir(), "headwater-browser-"));
  }

  /** Starts the node with this id. The very first start sets `password`. */
  async start(id) {
    const config = join(this.folder, "node.toml");
    const metadata = `[metadata]\nendpoint = "127.0.0.1:1"\n`;
    writeFileSync(config, `[node]\nid = "${id}"\ndata_dir = "${this.folder}/data"\naddresses = ["${SERVER_ADDRESS}"]\n${metadata}`);
    this.log = "";
    const daemon = engine().replace(/headwater-engine$/, "headwaterd");
    const env = { ...process.env, ...this.environment };
    this.child = spawn(daemon, ["run", "--config", config], { stdio: ["ignore", "pipe", "pipe"], env });
    for (const pipe of [this.child.stdout, this.child.stderr]) pipe.on("data", (text) => (this.log += text));
    await waitFor("the node", () => fetch("http://127.0.0.1:5090/readyz").then((r) => r.ok, () => false));
    this.password ??= /password=(\S+)/.exec(this.log)?.[1];
  }

  /** Kills the daemon with SIGKILL; its engine ends with it. */
  async kill() {
    this.child.kill("SIGKILL");
    await exited(this.child);
    await waitFor("the end of its engine", () => fetch("http://127.0.0.1:5090/livez").then(() => false, () => true));
  }

  status(id) {
    return streamStatus(id);
  }

  async close() {
    if (this.child) await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
