// How one attempt to play ended, and therefore what the player does next.

/** Thrown by a transport. `kind` is
 *  "gone":        nobody publishes the stream (any more): wait for it;
 *  "unreachable": the server does not answer: try again;
 *  "ended":       it played and stopped: connect again;
 *  "unplayable":  this transport cannot do it here: take the next one. `remember` true: not only this time;
 *  "wrong":       the address is wrong, and waiting will hardly help.
 *  The message is a sentence for the viewer. */
export class Outcome extends Error {
  constructor(kind, message, { remember = false } = {}) {
    super(message);
    this.kind = kind;
    this.remember = remember;
  }
}

const KIND_BY_CODE = {
  unreachable: "unreachable",
  draining: "unreachable",
  not_yet: "unreachable",
  stream_not_found: "gone",
  app_not_found: "wrong",
  bad_request: "wrong",
};

/** The outcome that a refusal of the engine means. */
export function outcomeOf(refused) {
  return new Outcome(KIND_BY_CODE[refused.code] ?? "unplayable", refused.message);
}
