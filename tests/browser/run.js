// Runs every case inside a network namespace of its own: its ports and addresses are nobody else's, and nothing is left of it.

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { BROWSERS, daemon, engine } from "./lib/programs.js";

const here = dirname(fileURLToPath(import.meta.url));

/** Says why nothing runs: in CI a failure, at home a skip. */
function missing(what) {
  const ci = Boolean(process.env.CI);
  console.error(ci ? `${what}, and in CI nothing is skipped` : `SKIPPED: ${what}`);
  process.exit(ci ? 1 : 0);
}

for (const path of [engine(), daemon()]) if (!existsSync(path)) missing(`${path} is not built`);
for (const path of [...Object.values(BROWSERS), "/usr/bin/ffmpeg", "/usr/sbin/nft"]) if (!existsSync(path)) missing(`${path} is missing`);
const root = process.getuid() === 0;
const namespace = ["unshare", ...(root ? [] : ["--user", "--map-root-user"]), "--net", "--"];
if (spawnSync(namespace[0], [...namespace.slice(1), "true"]).status !== 0) missing("no network namespace can be made here without root");
const only = process.argv.slice(2);
const cases = readdirSync(join(here, "cases")).filter((name) => name.endsWith(".test.js"));
const files = cases.filter((name) => !only.length || only.some((word) => name.includes(word))).map((name) => join(here, "cases", name));
const tests = [...namespace.slice(1), process.execPath, "--test", "--test-concurrency=1", ...files];
process.exit(spawnSync(namespace[0], tests, { stdio: "inherit" }).status ?? 1);
