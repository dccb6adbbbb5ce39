// The network: this namespace, where engine and publisher run, and another one behind a veth pair,
// where the browser runs. Browsers gather no loopback candidates, so they need a real interface.

import { execFileSync, spawn } from "node:child_process";

/** The engine's address from the browser's namespace. */
export const SERVER_ADDRESS = "10.99.0.1";
export const ORIGIN = `http://${SERVER_ADDRESS}:5080`;
/** The same over TLS, with the engine's self-signed certificate. */
export const HTTPS_ORIGIN = `https://${SERVER_ADDRESS}:5443`;

const ip = (...args) => execFileSync("ip", args, { stdio: ["ignore", "ignore", "inherit"] });

/** Creates both ends. Call `close` on the result to remove them. */
export async function createNetwork() {
  ip("link", "set", "lo", "up");
  const holder = spawn("unshare", ["--net", "--", "sh", "-c", "echo up; exec sleep 3600"], { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise((resolve) => holder.stdout.once("data", resolve));
  const namespacePrefix = ["nsenter", "--target", String(holder.pid), "--net", "--"];
  const run = (...args) => execFileSync(namespacePrefix[0], [...namespacePrefix.slice(1), ...args], { stdio: ["ignore", "ignore", "inherit"] });
  ip("link", "add", "server", "type", "veth", "peer", "name", "viewer", "netns", String(holder.pid));
  ip("address", "add", `${SERVER_ADDRESS}/24`, "dev", "server");
  ip("link", "set", "server", "up");
  run("ip", "link", "set", "lo", "up");
  run("ip", "address", "add", "10.99.0.2/24", "dev", "viewer");
  run("ip", "link", "set", "viewer", "up");
  return {
    /** Command prefix that runs a program in the browser's namespace. */
    namespacePrefix,
    /** Silently drops all UDP packets that leave the browser's namespace. */
    blockUdp() {
      run("nft", "add table inet walls; add chain inet walls out { type filter hook output priority 0; }; add rule inet walls out meta l4proto udp drop");
    },
    unblockUdp() {
      run("nft", "delete table inet walls");
    },
    close() {
      ip("link", "delete", "server");
      holder.kill("SIGKILL");
    },
  };
}
