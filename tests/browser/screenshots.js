// Takes the screenshots of README.md from a running node: `unshare --net -- node screenshots.js FOLDER`,
// or `npm run screenshots` in this folder. Writes dashboard.png and player.png.

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { openChromium, waitFrames, waitState } from "./lib/browser.js";
import { createNetwork } from "./lib/network.js";
import { Node, Publisher } from "./lib/node.js";

const folder = process.argv[2];
if (!folder) {
  console.error("usage: screenshots.js FOLDER");
  process.exit(64);
}
mkdirSync(folder, { recursive: true });

const network = await createNetwork();
const node = await new Node({ supervised: true }).start();
const publisher = await new Publisher("demo").start(node);
const browser = await openChromium(network);
try {
  const player = await browser.open("/live/play.html?id=demo&mute=true");
  await waitState(player, "live", "webrtc");
  await waitFrames(player, 50);
  await player.screenshot({ path: join(folder, "player.png") });
  const dashboard = await browser.open("/");
  await dashboard.getByText("demo", { exact: false }).first().waitFor();
  // The viewer above is counted once the page has polled the node again.
  await dashboard.waitForTimeout(2_500);
  await dashboard.screenshot({ path: join(folder, "dashboard.png") });
} finally {
  await browser.close();
  await publisher.close();
  await node.close();
  network.close();
}
