// A node as its daemon runs it: with an administrator, and an entry in its registry.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { until } from "./node.js";
import { SERVER } from "./place.js";
import { engine } from "./programs.js";

const gone = (child) => new Promise((resolve) => (child.exitCode !== null || child.signalCode !== null ? resolve() : child.once("exit", resolve)));

/** On the default ports of this namespace. Its folder outlives its processes. */
export class WholeNode {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "headwater-browser-"));
  }

  /** Runs it under this name. The first start of all shows `password`. */
  async start(id) {
    const config = join(this.folder, "node.toml");
    const metadata = `[metadata]\nendpoint = "127.0.0.1:1"\n`;
    writeFileSync(config, `[node]\nid = "${id}"\ndata_dir = "${this.folder}/data"\naddresses = ["${SERVER}"]\n${metadata}`);
    this.log = "";
    const daemon = engine().replace(/headwater-engine$/, "headwaterd");
    this.child = spawn(daemon, ["run", "--config", config], { stdio: ["ignore", "pipe", "pipe"] });
    for (const pipe of [this.child.stdout, this.child.stderr]) pipe.on("data", (text) => (this.log += text));
    await until("the node", () => fetch("http://127.0.0.1:5090/readyz").then((r) => r.ok, () => false));
    this.password ??= /password=(\S+)/.exec(this.log)?.[1];
  }

  /** SIGKILL; its engine goes with it. */
  async kill() {
    this.child.kill("SIGKILL");
    await gone(this.child);
    await until("the end of its engine", () => fetch("http://127.0.0.1:5090/livez").then(() => false, () => true));
  }

  async close() {
    if (this.child) await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
