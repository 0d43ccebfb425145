// A client of zeod in the M5 protocol: just what reading and committing objects takes.
//
// Every message is a length (4 bytes, big-endian) and a msgpack array [message id, async flag, method, arguments]. The
// server speaks first. docs/topics/wire-protocol.md describes it all.

import net from "node:net";
import { decode, encode } from "@msgpack/msgpack";

const PROTOCOL = "M5";
const NO_REPLY = 0;
const ERROR_REPLY = 2;
const LAST = Uint8Array.of(0x7f, 255, 255, 255, 255, 255, 255, 255); // later than every transaction

/** What the server answered instead of a result; `name` is the class of the error, as Python knows it. */
export class ServerError extends Error {
  constructor(name, details) {
    super(`${name}: ${JSON.stringify(details, (_, value) => (value instanceof Uint8Array ? hex(value) : value))}`);
    this.name = name;
    this.details = details;
  }
}

export function hex(bytes) {
  return "0x" + Buffer.from(bytes).toString("hex");
}

/** An oid is 8 bytes on the wire, and a number in a record. */
export function oidFromNumber(number) {
  const oid = Buffer.alloc(8);
  oid.writeBigUInt64BE(BigInt(number));
  return new Uint8Array(oid);
}

export class Zeod {
  /** Connect to `host:port`, say hello and ask for a storage. */
  static async connect(address, storage = "1") {
    const [, host, port] = /^(.*):(\d+)$/.exec(address);
    const socket = net.connect({ host: host.replace(/^\[|\]$/g, "") || "localhost", port: Number(port) });
    const zeod = new Zeod(socket);
    await zeod.greeted;
    await zeod.call("register", storage, false);
    return zeod;
  }

  constructor(socket) {
    this.socket = socket;
    this.received = Buffer.alloc(0);
    this.waiting = new Map(); // message id -> [resolve, reject]
    this.lastId = 0;
    this.lastTransaction = 0;
    /** Called with the oids of objects that somebody else has changed. */
    this.onInvalidated = () => {};
    this.greeted = new Promise((resolve, reject) => (this.greeting = [resolve, reject]));
    socket.setNoDelay(true);
    socket.on("data", (data) => this.#receive(data));
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("the server has closed the connection")));
  }

  close() {
    this.socket.end();
  }

  /** Ask something of the server: a promise of the result. */
  call(method, ...args) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, [resolve, reject]);
      this.#send(encode([id, false, method, args]));
    });
  }

  /** Tell the server something. What goes wrong with it, the vote will say. */
  tell(method, ...args) {
    this.#send(encode([NO_REPLY, true, method, args]));
  }

  /** The current revision of an object: its record, and the serial that a change of it has to name. */
  async load(oid) {
    const found = await this.call("loadBefore", oid, LAST);
    if (found === null) throw new Error(`there is no object ${hex(oid)}`);
    const [data, serial] = found;
    return { oid, data, serial };
  }

  /** Commit new records for objects that were loaded: all of them, or none. */
  async commit(objects, description = "") {
    const transaction = ++this.lastTransaction;
    this.tell("tpc_begin", transaction, "node", description, {}, null, " ");
    for (const { oid, serial, data } of objects) this.tell("storea", oid, serial, data, transaction);
    try {
      for (const vote of await this.call("vote", transaction)) {
        // An oid is an object whose changes the server has merged with those of another; a map asks us to do so.
        if (!(vote instanceof Uint8Array)) throw new Error(`somebody else has changed ${hex(vote.oid)}`);
      }
    } catch (error) {
      await this.call("tpc_abort", transaction);
      throw error;
    }
    return this.call("tpc_finish", transaction);
  }

  #send(payload) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(payload.length);
    this.socket.write(Buffer.concat([length, payload]));
  }

  #receive(data) {
    this.received = Buffer.concat([this.received, data]);
    while (this.received.length >= 4) {
      const end = 4 + this.received.readUInt32BE(0);
      if (this.received.length < end) return;
      const payload = this.received.subarray(4, end);
      this.received = this.received.subarray(end);
      if (this.greeting) this.#greet(payload);
      else this.#take(decode(payload));
    }
  }

  #greet(payload) {
    const [resolve, reject] = this.greeting;
    this.greeting = null;
    if (payload.toString("ascii") !== PROTOCOL) return reject(new Error(`the server speaks ${payload}, not ${PROTOCOL}`));
    this.#send(Buffer.from(PROTOCOL));
    resolve();
  }

  #take([id, flag, method, args]) {
    if (method === ".reply") {
      const [resolve, reject] = this.waiting.get(id);
      this.waiting.delete(id);
      if (flag === ERROR_REPLY) reject(new ServerError(...args));
      else resolve(args);
    } else if (method === "invalidateTransaction") {
      this.onInvalidated(args[1]);
    } // `info` and others may come at any time, and are of no concern here
  }

  #fail(error) {
    if (this.greeting) this.greeting[1](error);
    for (const [, reject] of this.waiting.values()) reject(error);
    this.greeting = null;
    this.waiting.clear();
  }
}
