// Paths of the programs that the cases run.

import { homedir } from "node:os";
import { join } from "node:path";

export const NGINX = "/usr/sbin/nginx";
export const BROWSERS = { chromium: "/usr/bin/chromium", firefox: "/usr/bin/firefox-esr" };

/** Path of a program of this workspace, in the same build that the Rust tests use. */
function builtProgram(name) {
  const target = process.env.CARGO_TARGET_DIR ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "headwater/target");
  return join(target, "debug", name);
}

export const engine = () => builtProgram("headwater-engine");
export const daemon = () => builtProgram("headwaterd");
export const cloud = () => builtProgram("headwater-cloud");
