// A wall clock that a case sets, for programs and their children: Debian's libfaketime, which reads
// the offset from a file. Monotonic clocks stay correct.

import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The clock of the processes that run with `environment`. Correct at first. */
export class FakeClock {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "headwater-clock-"));
    this.file = join(this.folder, "clock");
    this.setOffset(0);
    this.environment = {
      // The dynamic loader replaces $LIB with the library folder of the machine.
      LD_PRELOAD: "/usr/$LIB/faketime/libfaketimeMT.so.1",
      FAKETIME_TIMESTAMP_FILE: this.file,
      FAKETIME_CACHE_DURATION: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    };
  }

  /** Sets the offset from the correct time, in seconds. Takes effect within about a second. */
  setOffset(seconds) {
    this.offsetS = seconds;
    const written = join(this.folder, "new");
    writeFileSync(written, `${seconds < 0 ? "" : "+"}${seconds}\n`);
    // No program reads a partial file.
    renameSync(written, this.file);
  }

  close() {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
