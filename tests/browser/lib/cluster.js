// A cluster of real nodes on this machine: `headwater-cloud`, driven through its console as a user
// drives it. Must not know pages.

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";

import { exited, waitFor } from "./node.js";
import { cloud } from "./programs.js";

/** Exit code of the program on a machine that lacks one of its tools. */
const EXIT_UNAVAILABLE = 75;
/** From the start of the database to the last node that is ready, on a busy machine. */
const START_TIMEOUT_MS = 120_000;

/** Two origins, three edges, a registry, and a load balancer each for pages and publishers. */
export class Cluster {
  /** The browser runs in this namespace, where the nodes are reachable. */
  namespacePrefix = [];
  output = "";

  /** Returns null after printing why if this machine cannot run it; in CI that is an error. */
  static async start() {
    if (!isRoot()) return unavailable("a cluster needs root");
    if (!existsSync(cloud())) return unavailable(`${cloud()} is not built`);
    const cluster = new Cluster();
    // The cluster ends with this process, however that ends.
    cluster.child = spawn("setpriv", ["--pdeathsig", "TERM", "--", cloud()], { stdio: ["pipe", "pipe", "pipe"] });
    for (const pipe of [cluster.child.stdout, cluster.child.stderr]) pipe.on("data", (text) => (cluster.output += text));
    const isUp = () => cluster.child.exitCode !== null || /^ *Type .*nodes/m.test(cluster.output);
    await waitFor("the cluster", isUp, START_TIMEOUT_MS);
    if (cluster.child.exitCode === EXIT_UNAVAILABLE) return unavailable(cluster.output.trim());
    if (cluster.child.exitCode !== null) throw new Error(`headwater-cloud exited with ${cluster.child.exitCode}: ${cluster.output}`);
    [, cluster.origin, cluster.password] = /Dashboard +(http:\S+)\/ .*password (\w+)/.exec(cluster.output);
    // What follows the stream id: the publish key.
    [, cluster.publishQuery] = /stream key \w+(\S*)/.exec(cluster.output);
    return cluster;
  }

  /** Types a command and returns its output up to the line that matches `end`. */
  async type(command, end) {
    const start = this.output.length;
    this.child.stdin.write(`${command}\n`);
    return waitFor(`the result of "${command}"`, () => {
      const output = this.output.slice(start);
      return end.test(output) && output;
    }).catch((e) => {
      throw new Error(`${e.message}; output: ${this.output.slice(start)}`);
    });
  }

  /** The origins and edges by name: `{ id, url, httpsUrl, address }`. A new instance has another id. */
  async nodes() {
    const output = await this.type("nodes", /are healthy/);
    const lines = output.matchAll(/^ *((?:origin|edge)-\d) +\w+ +(http:\/\/([\d.]+):\d+) +(\S+)/gm);
    return Object.fromEntries([...lines].map(([, name, url, address, id]) => [name, { id, url, httpsUrl: `https://${address}:5443`, address }]));
  }

  /** Waits until the load balancer of the pages has `count` healthy edges. */
  async waitHealthyEdges(count) {
    const healthy = async () => (await this.type("nodes", /are healthy/)).includes(`${count} edges and`);
    await waitFor(`${count} healthy edges`, healthy);
  }

  /** Kills a node, or the database, with SIGKILL. */
  async kill(name) {
    await this.type(`kill ${name}`, /is killed/);
  }

  /**
   * Launches a new instance in place of a killed node, or starts the database again, and waits
   * until it is ready.
   */
  async launch(name) {
    await this.type(`start ${name}`, / is (ready as|running again)/);
  }

  /** Stops the processes of a node without ending them. */
  async freeze(name) {
    await this.type(`freeze ${name}`, /is frozen/);
  }

  /** Registers or deregisters a node at its load balancer. */
  async setRegistered(name, isRegistered) {
    const command = isRegistered ? "register" : "deregister";
    await this.type(`${command} ${name}`, new RegExp(`is ${command}ed`));
  }

  /** Starts scripted viewers of `live/ID`, through the load balancer, and waits until all play. */
  async startViewers(id, count) {
    await this.type(`viewers ${id} ${count}`, /viewers play live/);
  }

  /** The scripted viewers since the last fault: `{ playing, count, below3s, sessions, maxS }`. */
  async viewers() {
    const output = await this.type("viewers", /the longest for/);
    const numbers = [...output.matchAll(/\d+(?:\.\d+)?/g)].map(Number);
    const [playing, count, sessions, below3s, , maxS] = numbers;
    return { playing, count, sessions, below3s, maxS };
  }

  async close() {
    this.child.stdin.write("quit\n");
    await exited(this.child);
  }
}

/** False also for the root of a user namespace, who can neither start a database nor add hosts. */
function isRoot() {
  return process.getuid() === 0 && /^ *0 +0 +4294967295$/m.test(readFileSync("/proc/self/uid_map", "utf8"));
}

function unavailable(reason) {
  if (process.env.CI) throw new Error(`${reason}; in CI nothing may be skipped`);
  console.error(`SKIPPED: ${reason}`);
  return null;
}
