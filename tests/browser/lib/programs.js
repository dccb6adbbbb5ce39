// Where the programs are that the cases run.

import { homedir } from "node:os";
import { join } from "node:path";

export const BROWSERS = { chromium: "/usr/bin/chromium", firefox: "/usr/bin/firefox-esr" };

/** The engine as the Rust tests use it. */
export function engine() {
  const target = process.env.CARGO_TARGET_DIR ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "headwater/target");
  return join(target, "debug/headwater-engine");
}
