// nginx as a cache in front of a node, with the configuration that docs/access.md shows.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { exited, waitFor } from "./node.js";
import { SERVER_ADDRESS } from "./network.js";
import { NGINX } from "./programs.js";

const DOCUMENT = new URL("../../../docs/access.md", import.meta.url);
const PORT = 8080;

/** The documented configuration, for the node of this namespace. Its cache is in `folder`. */
function configuration(folder, environment) {
  const [, documented] = /```nginx\n(.*?)```/s.exec(readFileSync(DOCUMENT, "utf8"));
  const http = documented
    .replace("/var/cache/nginx/headwater", `${folder}/cache`)
    .replace("listen 80;", `listen ${PORT};`)
    .replace("HOST:5080", "127.0.0.1:5080");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`);
  // By default, workers run as another user, who cannot use this folder.
  const user = process.getuid() === 0 ? "user root;" : "";
  // nginx gives its workers no variables but those that it names.
  const variables = Object.keys(environment).map((name) => `env ${name};`).join(" ");
  return `${user} ${variables} daemon off; worker_processes 1; pid ${folder}/pid; events {}
    http { access_log off; ${temporary.join(" ")} ${http} }`;
}

/** Starts nginx with `environment` added to its own. `origin` is its address for browsers, `log` its errors. */
export async function startNginx({ environment = {} } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "headwater-nginx-"));
  const file = join(folder, "nginx.conf");
  writeFileSync(file, configuration(folder, environment));
  const options = { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, ...environment } };
  const child = spawn(NGINX, ["-c", file, "-p", folder, "-e", "stderr"], options);
  const nginx = {
    log: "",
    origin: `http://${SERVER_ADDRESS}:${PORT}`,
    async close() {
      child.kill("SIGTERM");
      await exited(child);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  child.stderr.on("data", (text) => (nginx.log += text));
  await waitFor("nginx", async () => {
    if (child.exitCode !== null) throw new Error(`nginx exited with ${child.exitCode}: ${nginx.log}`);
    return fetch(`http://127.0.0.1:${PORT}/`).then(() => true, () => false);
  });
  return nginx;
}
