// An RTMP publisher that chooses what it sends: audio that begins late, gaps, pauses. ffmpeg and OBS
// announce all tracks first and send all of them. Must not know pages.

import { execFileSync } from "node:child_process";
import { connect } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

import { waitFor } from "./node.js";

const VIDEO = 9;
const AUDIO = 8;
const CHUNK_BYTES = 65_536;
/** RTMP 1.0 §5.2: a version byte, then 1,536 bytes twice. */
const HANDSHAKE_BYTES = 1 + 1536 * 2;

/** Ten seconds of video with a key frame per second, and audio, as FLV tags: `{ type, ms, body }`. */
export function makeTags() {
  const source = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=440:sample_rate=48000 -t 10";
  const video = "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -x264-params threads=1:keyint=30:scenecut=0";
  const flv = execFileSync("ffmpeg", `-v error -nostdin ${source} ${video} -c:a aac -ac 2 -f flv -`.split(" "), { maxBuffer: 1 << 26 });
  const tags = [];
  // FLV 10.1, annex E.3: a header of 9 bytes, then tags, each preceded by the size of the last one.
  for (let at = 13; at + 11 < flv.length; ) {
    const [type, size] = [flv[at], flv.readUIntBE(at + 1, 3)];
    const ms = flv.readUIntBE(at + 4, 3) + flv[at + 7] * 2 ** 24;
    tags.push({ type, ms, body: flv.subarray(at + 11, at + 11 + size) });
    at += 11 + size + 4;
  }
  return tags.filter(({ type }) => type === VIDEO || type === AUDIO);
}

const isHeader = ({ type, body }) => body[1] === 0 && (type === VIDEO || body[0] >> 4 === 10);
const isEndOfSequence = ({ type, body }) => type === VIDEO && body[1] === 2;

/**
 * Publishes `live/ID` on this machine until closed. `kinds` is the set of "audio" and "video" that is
 * sent, and may change at any time: video begins with its next key frame, and the header of a kind
 * precedes its first frame. `ms` is the time of the newest frame.
 */
export class TagPublisher {
  constructor(id, tags, kinds = ["audio", "video"]) {
    Object.assign(this, { id, kinds: new Set(kinds), closed: false, ms: 0 });
    this.headers = Object.fromEntries(tags.filter(isHeader).map((tag) => [tag.type, tag.body]));
    this.frames = tags.filter((tag) => !isHeader(tag) && !isEndOfSequence(tag));
  }

  /** Begins; may be called again after `close`. */
  async start(node) {
    this.closed = false;
    this.socket = connect(1935, "127.0.0.1");
    let received = Buffer.alloc(0);
    this.socket.on("data", (data) => (received = Buffer.concat([received, data])));
    this.socket.on("error", () => {});
    this.socket.write(Buffer.concat([Buffer.from([3]), Buffer.alloc(1536)]));
    await waitFor("the RTMP handshake", () => received.length >= HANDSHAKE_BYTES);
    this.socket.write(received.subarray(1, 1537));
    const size = Buffer.alloc(4);
    size.writeUInt32BE(CHUNK_BYTES);
    this.send(1, 0, size, { chunkStream: 2, message: 0 });
    this.command("connect", 1, { app: "live", tcUrl: "rtmp://127.0.0.1/live" });
    await waitFor("the answer to connect", () => received.includes("NetConnection.Connect.Success"));
    this.command("createStream", 2, null);
    this.command("publish", 3, null, this.id, "live");
    await waitFor("the answer to publish", () => received.includes("NetStream.Publish.Start"));
    this.playing = this.play();
    await waitFor(`${this.id} to be live`, async () => (await node.status(this.id)) !== null);
    return this;
  }

  async play() {
    const began = Date.now();
    const duration = Math.max(...this.frames.map(({ ms }) => ms)) + 33;
    const [announced, current] = [new Set(), new Set()];
    for (let base = 0; !this.closed; base += duration) {
      for (const { type, ms, body } of this.frames) {
        this.ms = base + ms;
        const wait = began + this.ms - Date.now();
        if (wait > 0) await pause(wait);
        if (this.closed) return;
        const canBegin = type === AUDIO || body[0] >> 4 === 1;
        if (!this.kinds.has(type === AUDIO ? "audio" : "video")) current.delete(type);
        else if (canBegin) current.add(type);
        if (!current.has(type)) continue;
        if (!announced.has(type)) this.send(type, this.ms, this.headers[type]);
        announced.add(type);
        this.send(type, this.ms, body);
      }
    }
  }

  /** Sends a message in chunks (RTMP 1.0 §5.3.1). */
  send(type, ms, body, { chunkStream = type === AUDIO ? 4 : 6, message = 1 } = {}) {
    const head = Buffer.alloc(12);
    head[0] = chunkStream;
    head.writeUIntBE(ms, 1, 3);
    head.writeUIntBE(body.length, 4, 3);
    head[7] = type;
    head.writeUInt32LE(message, 8);
    const chunks = [head];
    for (let at = 0; at < body.length; at += CHUNK_BYTES) {
      if (at > 0) chunks.push(Buffer.from([0xc0 | chunkStream]));
      chunks.push(body.subarray(at, at + CHUNK_BYTES));
    }
    this.socket.write(Buffer.concat(chunks));
  }

  command(...values) {
    this.send(20, 0, Buffer.concat(values.map(amf0)), { chunkStream: 3, message: values[0] === "publish" ? 1 : 0 });
  }

  async close() {
    this.closed = true;
    this.socket.destroy();
    await this.playing;
  }
}

/** Encodes a value (AMF0, sections 2.2 to 2.7). */
function amf0(value) {
  if (value === null) return Buffer.from([5]);
  if (typeof value === "number") {
    const number = Buffer.alloc(9);
    number.writeDoubleBE(value, 1);
    return number;
  }
  const text = (string) => Buffer.concat([Buffer.from([string.length >> 8, string.length & 255]), Buffer.from(string)]);
  if (typeof value === "string") return Buffer.concat([Buffer.from([2]), text(value)]);
  const fields = Object.entries(value).flatMap(([name, field]) => [text(name), amf0(field)]);
  return Buffer.concat([Buffer.from([3]), ...fields, Buffer.from([0, 0, 9])]);
}
