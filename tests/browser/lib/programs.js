// Where the programs are that the cases run.

import { homedir } from "node:os";
import { join } from "node:path";

export const BROWSERS = { chromium: "/usr/bin/chromium", firefox: "/usr/bin/firefox-esr" };

/** A program of ours as the Rust tests use it. */
function built(name) {
  const target = process.env.CARGO_TARGET_DIR ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "headwater/target");
  return join(target, "debug", name);
}

export const engine = () => built("headwater-engine");
export const daemon = () => built("headwaterd");
