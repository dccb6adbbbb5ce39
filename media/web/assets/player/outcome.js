// The result of one attempt to play, which decides what the player does next.

/** Thrown by a transport. `kind` is
 *  "offline":     the stream is not live: wait for it;
 *  "unreachable": the server does not respond: try again;
 *  "ended":       playback stopped: connect again;
 *  "unplayable":  this transport does not work here: try the next one. `remember`: skip it for some minutes;
 *  "wrong":       the address is wrong, and waiting will hardly help;
 *  "refused":     the address lacks the right token, or it is not valid now.
 *  `noMedia`: the server answered, but no media arrived. The message is a sentence for the user, `hint` says what helps. */
export class Outcome extends Error {
  constructor(kind, message, { remember = false, noMedia = false, hint = "" } = {}) {
    super(message);
    this.kind = kind;
    this.remember = remember;
    this.noMedia = noMedia;
    this.hint = hint;
  }
}

const KIND_BY_CODE = {
  unreachable: "unreachable",
  draining: "unreachable",
  not_yet: "unreachable",
  origin_unreachable: "unreachable",
  registry_unreachable: "unreachable",
  stream_not_found: "offline",
  app_not_found: "wrong",
  bad_request: "wrong",
  policies_unavailable: "unreachable",
};

/** The server refused this viewer, whatever the code: the message says why. */
const REFUSED_STATUSES = [401, 403, 429];

export const isRefusal = (error) => REFUSED_STATUSES.includes(error?.status);

/** Codes of refusals that another link helps against. */
const NEEDS_OTHER_LINK = /^(token|hash|key)_/;

/** Maps an ApiError to an outcome. */
export function outcomeOf(error) {
  const kind = isRefusal(error) ? "refused" : "unplayable";
  return new Outcome(KIND_BY_CODE[error.code] ?? kind, error.message, { hint: hintOf(error.code) });
}

function hintOf(code) {
  if (code === "token_not_yet_valid") return "Playback starts automatically.";
  return NEEDS_OTHER_LINK.test(code) ? "Ask for a new link to this stream." : "";
}
