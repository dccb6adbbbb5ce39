// Notices when something that should go on does not.

/** Without progress for this long, a stream that was playing is stuck. */
const FROZEN_MS = 5000;

export class Watch {
  /** `firstMs`: patience until the first progress. */
  constructor(firstMs) {
    this.firstMs = firstMs;
    this.began = false;
    this.value = 0;
    this.at = performance.now();
  }

  /** Takes the counter as it is now. True when it moves for the first time. */
  note(value) {
    const now = performance.now();
    // A page that slept (closed lid, frozen tab) finds an old clock, not an old stream.
    const slept = this.looked !== undefined && now - this.looked > 2000;
    this.looked = now;
    if (value === this.value) {
      if (slept) this.at = now;
      return false;
    }
    this.value = value;
    this.at = now;
    const first = !this.began;
    this.began = true;
    return first;
  }

  /** True if it should move and has not for too long. */
  isStuck(shouldMove = true) {
    if (!shouldMove && !this.began) this.at = performance.now();
    return performance.now() - this.at > (this.began ? FROZEN_MS : this.firstMs);
  }

  /** Forgets the time that has passed, as while paused. */
  excuse() {
    this.at = performance.now();
  }
}
