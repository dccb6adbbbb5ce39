// What the player presents for its stream: the token of the page's address, and from the first answer on the play
// session that the server gave for it. A one-time token admits once; the session goes on, over any transport and on
// any node.

export class Credentials {
  /** `token`: the parameter of the page, or null. */
  constructor(token) {
    this.token = token;
    this.session = null;
    this.hasAdmitted = false;
  }

  /** Adds them to the query of a URL. */
  addTo(url) {
    if (this.session) url.searchParams.set("session", this.session);
    else if (this.token) url.searchParams.set("token", this.token);
  }

  /** True until the token has admitted: it may be one that admits only once. */
  mayAdmitOnce() {
    return Boolean(this.token) && !this.hasAdmitted;
  }

  /** Remembers the session in a URL that the server has sent, if there is one: it has admitted the viewer. */
  rememberFrom(url) {
    this.hasAdmitted = true;
    this.session = url.searchParams.get("session") ?? this.session;
  }

  /** Presents the token again. Returns false if that is what was refused. */
  forgetSession() {
    const had = this.session !== null;
    this.session = null;
    return had;
  }
}
