// Runs every case in its own network namespace, so that ports and addresses cannot clash and
// nothing is left behind.

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { BROWSERS, NGINX, daemon, engine } from "./lib/programs.js";

const here = dirname(fileURLToPath(import.meta.url));

/** Prints why nothing runs. In CI this is a failure, elsewhere a skip. */
function skipOrFail(what) {
  const ci = Boolean(process.env.CI);
  console.error(ci ? `${what}; in CI nothing may be skipped` : `SKIPPED: ${what}`);
  process.exit(ci ? 1 : 0);
}

for (const path of [engine(), daemon()]) if (!existsSync(path)) skipOrFail(`${path} is not built`);
for (const path of [...Object.values(BROWSERS), NGINX, "/usr/bin/faketime", "/usr/bin/ffmpeg", "/usr/sbin/nft"]) if (!existsSync(path)) skipOrFail(`${path} is missing`);
const root = process.getuid() === 0;
const namespace = ["unshare", ...(root ? [] : ["--user", "--map-root-user"]), "--net", "--"];
if (spawnSync(namespace[0], [...namespace.slice(1), "true"]).status !== 0) skipOrFail("no network namespace can be created here without root");
const only = process.argv.slice(2);
const cases = readdirSync(join(here, "cases")).filter((name) => name.endsWith(".test.js"));
const files = cases.filter((name) => !only.length || only.some((word) => name.includes(word))).map((name) => join(here, "cases", name));
const tests = [...namespace.slice(1), process.execPath, "--test", "--test-concurrency=1", ...files];
process.exit(spawnSync(namespace[0], tests, { stdio: "inherit" }).status ?? 1);
