// A running node, and ffmpeg as its publisher.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { SERVER_ADDRESS } from "./network.js";
import { daemon, engine } from "./programs.js";

/** Time limit for a state to be reached on a busy machine. */
export const WAIT_TIMEOUT_MS = 30_000;

/** Calls `probe` until it returns a truthy value, and returns that value. */
export async function waitFor(what, probe, timeoutMs = WAIT_TIMEOUT_MS) {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`timed out waiting for ${what}`);
    await pause(25);
  }
}

export const exited = (child) => new Promise((resolve) => (child.exitCode !== null || child.signalCode !== null ? resolve() : child.once("exit", resolve)));

/** The status of `live/ID` at the node of this namespace; null if it is not live. */
export async function streamStatus(id) {
  const answer = await fetch(`http://127.0.0.1:5080/rest/v2/streams/live/${id}`).catch(() => null);
  return answer?.ok ? answer.json() : null;
}

function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** A node on the default ports of this namespace: an engine or, with `supervised`, a daemon. */
export class Node {
  constructor({ supervised = false } = {}) {
    this.supervised = supervised;
    this.folder = mkdtempSync(join(tmpdir(), "headwater-browser-"));
    this.config = join(this.folder, "node.toml");
    const node = `[node]\nid = "browser-test"\ndata_dir = "${this.folder}/data"\naddresses = ["${SERVER_ADDRESS}"]\n`;
    writeFileSync(this.config, `${node}[metadata]\nendpoint = "127.0.0.1:1"\n`);
  }

  async start() {
    this.log = "";
    const [program, ...args] = this.supervised ? [daemon(), "run", "--engine", engine()] : [engine()];
    this.child = spawn(program, [...args, "--config", this.config], { stdio: ["ignore", "pipe", "pipe"] });
    for (const pipe of [this.child.stdout, this.child.stderr]) pipe.on("data", (text) => (this.log += text));
    await this.ready();
    return this;
  }

  /** Process id of the running engine, or null. */
  enginePid() {
    try {
      return JSON.parse(readFileSync(join(this.folder, "data/engine.json"))).pid;
    } catch {
      return null;
    }
  }

  /** Waits until an engine with another process id than `not` is ready. */
  ready(not) {
    const serves = () => fetch("http://127.0.0.1:5090/readyz").then((r) => r.ok, () => false);
    return waitFor("the engine", async () => (await serves()) && this.enginePid() !== (not ?? null));
  }

  /** Kills the engine with SIGKILL and returns its process id. A daemon starts another one. */
  async killEngine() {
    const pid = this.enginePid();
    process.kill(pid, "SIGKILL");
    if (!this.supervised) await exited(this.child);
    return pid;
  }

  status(id) {
    return streamStatus(id);
  }

  async close() {
    // A killed daemon takes its engine with it; if that ever fails, no engine may outlive the case.
    const pid = this.enginePid();
    this.child.kill("SIGKILL");
    await exited(this.child);
    if (this.supervised && pid) await waitFor("the end of the engine", () => !isRunning(pid));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/**
 * A video that shows a clock: 16 bars are the bits of the wall-clock time in hundredths of a
 * second; `readClock` in probe.js reads it. The clock is drawn after the input is paced, because
 * ffmpeg reads some frames ahead.
 */
const BLACK_SOURCE = "color=black:size=320x64:rate=25";
const CLOCK_FILTER = "geq=lum='255*mod(floor(floor(time(0)*100)/pow(2,floor(X/20))),2)':cb=128:cr=128";
const TEST_PATTERN = "testsrc2=size=1280x720:rate=25";

/**
 * Publishes until closed; with `reconnect`, a lost connection is reopened as OBS does. `kinds` is
 * what it sends, `query` follows the stream id: `?key=…`.
 */
export class Publisher {
  constructor(id, { bFrames = 0, clock = false, reconnect = false, kinds = ["video", "audio"], query = "" } = {}) {
    Object.assign(this, { id, bFrames, clock, reconnect, kinds, query, closed: false });
  }

  async start(node) {
    this.run();
    await waitFor(`${this.id} to be live`, async () => {
      const status = await node.status(this.id);
      return status && this.kinds.every((kind) => status[kind]) && (!this.bFrames || status.video.b_frames);
    });
    return this;
  }

  run() {
    const dropped = [this.kinds.includes("video") ? "" : "-vn", this.kinds.includes("audio") ? "" : "-an"].join(" ");
    const arguments_ = `-nostdin -v error -re -f lavfi -i ${this.clock ? BLACK_SOURCE : TEST_PATTERN} -re -f lavfi -i sine=frequency=440:sample_rate=48000
      -vf ${this.clock ? CLOCK_FILTER : "null"} -c:v libx264 -preset ultrafast -tune ${this.bFrames ? "film" : "zerolatency"} -x264-params sliced-threads=0 -threads 1 -pix_fmt yuv420p -g 25 -bf ${this.bFrames}
      -c:a aac -b:a 96k -ac 2 ${dropped} -f flv rtmp://127.0.0.1/live/${this.id}${this.query}`.split(/\s+/);
    this.child = spawn("ffmpeg", arguments_, { stdio: "ignore" });
    this.child.once("exit", () => {
      if (this.reconnect && !this.closed) this.timer = setTimeout(() => this.closed || this.run(), 300);
    });
  }

  async close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.child.kill("SIGKILL");
    await exited(this.child);
  }
}
