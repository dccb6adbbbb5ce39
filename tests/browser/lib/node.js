// A running node, and ffmpeg as its publisher.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { SERVER } from "./place.js";
import { daemon, engine } from "./programs.js";

/** How long a state may take on a busy machine. */
export const PATIENCE_MS = 30_000;

/** Asks until the answer is not falsy. */
export async function until(what, ask, patienceMs = PATIENCE_MS) {
  const end = Date.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`timed out waiting for ${what}`);
    await pause(25);
  }
}

const gone = (child) => new Promise((resolve) => (child.exitCode !== null || child.signalCode !== null ? resolve() : child.once("exit", resolve)));

function alive(pid) {
  try {
    process.kill(pid, 0);
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** A node on the default ports of this namespace: an engine alone, or with `supervised` under its daemon. */
export class Node {
  constructor({ supervised = false } = {}) {
    this.supervised = supervised;
    this.folder = mkdtempSync(join(tmpdir(), "headwater-browser-"));
    this.config = join(this.folder, "node.toml");
    const node = `[node]\nid = "browser-test"\ndata_dir = "${this.folder}/data"\naddresses = ["${SERVER}"]\n`;
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

  /** Process id of the engine that serves, or null. */
  enginePid() {
    try {
      return JSON.parse(readFileSync(join(this.folder, "data/engine.json"))).pid;
    } catch {
      return null;
    }
  }

  /** Waits until an engine serves, and another than `not`. */
  ready(not) {
    const serves = () => fetch("http://127.0.0.1:5090/readyz").then((r) => r.ok, () => false);
    return until("the engine", async () => (await serves()) && this.enginePid() !== (not ?? null));
  }

  /** SIGKILL for the engine; returns its process id. Under a daemon another one follows by itself. */
  async killEngine() {
    const pid = this.enginePid();
    process.kill(pid, "SIGKILL");
    if (!this.supervised) await gone(this.child);
    return pid;
  }

  async status(id) {
    const answer = await fetch(`http://127.0.0.1:5080/rest/v2/streams/live/${id}`).catch(() => null);
    return answer?.ok ? answer.json() : null;
  }

  async close() {
    // A killed daemon takes its engine along; no engine may outlive the case if it ever does not.
    const pid = this.enginePid();
    this.child.kill("SIGKILL");
    await gone(this.child);
    if (this.supervised && pid) await until("the end of the engine", () => !alive(pid));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A picture that is a clock: 16 bars, the bits of the wall clock in hundredths of a second. `readClock` in probe.js reads it. It is drawn
 *  after the input's pacing: ffmpeg reads some pictures ahead. */
const BLACK = "color=black:size=320x64:rate=25";
const CLOCK = "geq=lum='255*mod(floor(floor(time(0)*100)/pow(2,floor(X/20))),2)':cb=128:cr=128";
const PICTURE = "testsrc2=size=1280x720:rate=25";

/** Publishes until closed; with `again`, a lost connection is taken up again like OBS does. */
export class Publisher {
  constructor(id, { bFrames = 0, clock = false, again = false } = {}) {
    Object.assign(this, { id, bFrames, clock, again, closed: false });
  }

  async start(node) {
    this.run();
    await until(`${this.id} to be live`, async () => {
      const status = await node.status(this.id);
      return status?.video && status?.audio && (!this.bFrames || status.video.b_frames);
    });
    return this;
  }

  run() {
    const arguments_ = `-nostdin -v error -re -f lavfi -i ${this.clock ? BLACK : PICTURE} -re -f lavfi -i sine=frequency=440:sample_rate=48000
      -vf ${this.clock ? CLOCK : "null"} -c:v libx264 -preset ultrafast -tune ${this.bFrames ? "film" : "zerolatency"} -x264-params sliced-threads=0 -threads 1 -pix_fmt yuv420p -g 25 -bf ${this.bFrames}
      -c:a aac -b:a 96k -ac 2 -f flv rtmp://127.0.0.1/live/${this.id}`.split(/\s+/);
    this.child = spawn("ffmpeg", arguments_, { stdio: "ignore" });
    this.child.once("exit", () => {
      if (this.again && !this.closed) this.timer = setTimeout(() => this.closed || this.run(), 300);
    });
  }

  async close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.child.kill("SIGKILL");
    await gone(this.child);
  }
}
