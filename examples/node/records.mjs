// Object records: those whose state is a protobuf message, and as much of pickles as the root of a database needs.

import { fileURLToPath } from "node:url";
import protobuf from "protobufjs";
import { oidFromNumber } from "./zeod.mjs";

const PREFIX = Buffer.from("{protobuf}");

/** Read a .proto file beside this program. `keepCase`: protobufjs would call `_p_refid` something else. */
export function schema(name) {
  const root = new protobuf.Root();
  return root.loadSync(fileURLToPath(new URL(name, import.meta.url)), { keepCase: true });
}

const ObjectRecord = schema("record.proto").lookupType("zeod.ObjectRecord");

/** The name of the class of an object with a protobuf message, null for one of another format. */
export function classOf(data) {
  if (!isMessage(data)) return null;
  const { class_meta } = ObjectRecord.decode(data.subarray(PREFIX.length));
  return `${class_meta.module_name}.${class_meta.class_name}`;
}

export function isMessage(data) {
  return PREFIX.equals(data.subarray(0, PREFIX.length));
}

/** Read a record: the state, as a message of `type`, and `oidOf`, which tells what a reference in it leads to. */
export function decodeRecord(data, type) {
  if (!isMessage(data)) throw new Error("the state of this object is no protobuf message");
  const envelope = ObjectRecord.decode(data.subarray(PREFIX.length));
  const oids = new Map(
    envelope.references
      .filter(({ database, weak }) => !database && !weak)
      .map(({ refid, zoid }) => [refid, oidFromNumber(zoid.toString())]),
  );
  return { envelope, state: type.decode(envelope.state), oidOf: (reference) => oids.get(reference._p_refid) };
}

/** Write a record again after its state was changed. Its references stay; new ones would need refids of their own. */
export function encodeRecord({ envelope, state }, type) {
  const known = type.encode(state).finish();
  const changed = ObjectRecord.create({ ...envelope, state: Buffer.concat([known, unknownFields(envelope.state, type)]) });
  return Buffer.concat([PREFIX, ObjectRecord.encode(changed).finish()]);
}

/**
 * The fields of a message that our schema lacks, because somebody has a later one: they must not get lost. protobufjs
 * drops them; here those of the state itself are kept, those within its sub-messages are not.
 */
function unknownFields(message, type) {
  const reader = protobuf.Reader.create(message);
  const found = [];
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const key = reader.uint32();
    reader.skipType(key & 7);
    if (!(key >>> 3 in type.fieldsById)) found.push(message.subarray(start, reader.pos));
  }
  return Buffer.concat(found);
}

/**
 * Read the root of a database, a pickled mapping of names to objects: the oids of the objects, by name.
 *
 * The root is the one object that every database has in Python's own format. Of that only those opcodes are known here
 * which such a mapping is made of.
 */
export function oidsInRoot(data) {
  const bytes = Buffer.from(data);
  const stack = [];
  const marks = [];
  const memo = new Map();
  const found = new Map();
  let place = 0;
  const take = (count) => bytes.subarray(place, (place += count));
  const line = () => take(bytes.indexOf("\n", place) - place + 1);
  const sinceMark = () => stack.splice(marks.pop());
  const setItems = (items) => {
    for (let i = 0; i < items.length; i += 2) {
      if (items[i + 1] instanceof Uint8Array) found.set(items[i], new Uint8Array(items[i + 1]));
    }
  };
  const opcodes = {
    "\x80": () => take(1), // PROTO
    c: () => stack.push({ class: `${line()}${line()}` }), // GLOBAL
    "(": () => marks.push(stack.length), // MARK
    ")": () => stack.push([]), // EMPTY_TUPLE
    "}": () => stack.push({}), // EMPTY_DICT
    N: () => stack.push(null), // NONE
    q: () => memo.set(take(1)[0], stack.at(-1)), // BINPUT
    r: () => memo.set(take(4).readUInt32LE(), stack.at(-1)), // LONG_BINPUT
    h: () => stack.push(memo.get(take(1)[0])), // BINGET
    j: () => stack.push(memo.get(take(4).readUInt32LE())), // LONG_BINGET
    X: () => stack.push(take(take(4).readUInt32LE()).toString("utf-8")), // BINUNICODE
    C: () => stack.push(take(take(1)[0])), // SHORT_BINBYTES
    U: () => stack.push(take(take(1)[0])), // SHORT_BINSTRING
    t: () => stack.push(sinceMark()), // TUPLE
    "\x85": () => stack.push(stack.splice(-1)), // TUPLE1
    "\x86": () => stack.push(stack.splice(-2)), // TUPLE2
    Q: () => stack.push([stack.pop()].flat()[0]), // BINPERSID: an oid, alone or before a class
    s: () => setItems(stack.splice(-2)), // SETITEM
    u: () => setItems(sinceMark()), // SETITEMS
  };
  for (let pickles = 0; pickles < 2; ) {
    // first the pickle of the class, then that of the state
    const opcode = take(1).toString("latin1");
    if (opcode === ".") pickles += 1;
    else if (opcode in opcodes) opcodes[opcode]();
    else throw new Error(`the root has more in it than references: opcode ${JSON.stringify(opcode)} at ${place - 1}`);
  }
  return found;
}
