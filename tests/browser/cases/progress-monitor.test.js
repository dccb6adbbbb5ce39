// When the player thinks that something has stopped (assets/player/progress-monitor.js). Without a browser: time is given.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { ProgressMonitor } from "../../../media/web/assets/player/progress-monitor.js";

let now = 0;
mock.method(performance, "now", () => now);

/** Updates a monitor at these times with these values, and returns it. */
function monitorAfter(updates) {
  now = 0;
  const monitor = new ProgressMonitor({ startTimeoutMs: 5000, stallTimeoutMs: 1200 });
  for (const [ms, value] of updates) {
    now = ms;
    monitor.update(value);
  }
  return monitor;
}

test("what does not progress from one update to the next is stuck after its timeout", () => {
  const updates = [200, 400, 600, 800, 1000, 1200, 1400, 1600].map((ms) => [ms, ms <= 200 ? 1 : 2]);
  assert.equal(monitorAfter(updates).idleMs(), 1200);
  assert.equal(monitorAfter(updates).isStuck(), false);
  assert.equal(monitorAfter([...updates, [1800, 2]]).isStuck(), true);
  assert.equal(monitorAfter([...updates, [1800, 3]]).isStuck(), false);
});

test("in a hidden page, whose updates are rare, what progresses with each update is not stuck", () => {
  const monitor = monitorAfter([[1000, 1], [2000, 2], [3000, 3]]);
  // Another timer of the page fires before the next update, which is late.
  now = 4500;
  assert.equal(monitor.idleMs(), 0);
  assert.equal(monitor.isStuck(), false);
});

test("after a suspension, and after a pause of the viewer, the timeout begins again", () => {
  assert.equal(monitorAfter([[200, 1], [60_200, 1]]).idleMs(), 0);
  const monitor = monitorAfter([[200, 1], [1200, 1]]);
  monitor.restartTimer();
  assert.equal(monitor.idleMs(), 0);
});
