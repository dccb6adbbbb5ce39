// Detects that something has stopped, from a counter that should increase.

export class ProgressMonitor {
  /** `startTimeoutMs`: time allowed until the first progress. `stallTimeoutMs`: time without progress after it. */
  constructor({ startTimeoutMs, stallTimeoutMs }) {
    this.startTimeoutMs = startTimeoutMs;
    this.stallTimeoutMs = stallTimeoutMs;
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
    return this.idleMs() > (this.started ? this.stallTimeoutMs : this.startTimeoutMs);
  }

  /** Time without progress up to the last update. The time since then says nothing: in a hidden page, timers and so updates
   *  are rare. */
  idleMs() {
    return Math.max(0, (this.updatedAt ?? this.progressAt) - this.progressAt);
  }

  /** Restarts the timeout, for example while paused. */
  restartTimer() {
    this.progressAt = performance.now();
  }
}
