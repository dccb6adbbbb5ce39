// Detects stalled playback from a counter that should increase.

/** A stream that was playing is stuck after this time without progress. */
const STALL_TIMEOUT_MS = 5000;

export class ProgressMonitor {
  /** `startTimeoutMs`: time allowed until the first progress. */
  constructor(startTimeoutMs) {
    this.startTimeoutMs = startTimeoutMs;
    this.started = false;
    this.value = 0;
    this.progressAt = performance.now();
  }

  /** Takes the current value of the counter. Returns true when it changes for the first time. */
  update(value) {
    const now = performance.now();
    // After a suspension (closed lid, frozen tab) the gap says nothing about the stream.
    const slept = this.updatedAt !== undefined && now - this.updatedAt > 2000;
    this.updatedAt = now;
    if (value === this.value) {
      if (slept) this.progressAt = now;
      return false;
    }
    this.value = value;
    this.progressAt = now;
    const first = !this.started;
    this.started = true;
    return first;
  }

  /** True if the counter should move and has not moved within the timeout. */
  isStuck(shouldMove = true) {
    if (!shouldMove && !this.started) this.progressAt = performance.now();
    return performance.now() - this.progressAt > (this.started ? STALL_TIMEOUT_MS : this.startTimeoutMs);
  }

  /** Restarts the timeout, for example while paused. */
  restartTimer() {
    this.progressAt = performance.now();
  }
}
