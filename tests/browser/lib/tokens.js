// Credentials as another program makes them, without the node.

import { createHash, createHmac } from "node:crypto";

/** A JSON web token (RFC 7519) with these claims, signed with HS256. */
export function signJwt(claims, key) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const message = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${message}.${createHmac("sha256", key).update(message).digest("base64url")}`;
}

/** Ant Media's hash for viewers of a stream. */
export const playHash = (id, secret) => createHash("sha256").update(`${id}play${secret}`).digest("hex");

/** Seconds since 1970. */
export const unixTime = () => Math.floor(Date.now() / 1000);
