#!/usr/bin/env node
// A decoder of MFD packets, written from packet.md alone. P-nn are the rules of that text.
//
//   import { decode } from "./decoder.mjs";
//   const { manifest, envelope, layers } = decode(bytes, { verify: true });
//
// Assembly does the same out of pieces. Whatever the bytes, they give a value or throw a
// PacketError whose `fault` is a name of section 11.
// Integers of headers are BigInt and floats are Number, since MessagePack tells them apart.

import { createPublicKey, verify as verifyBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import process, { argv, stderr, stdout } from "node:process";
import { pathToFileURL } from "node:url";
import { blake3 } from "@noble/hashes/blake3.js";
import { ZSTDDecoder } from "zstddec";

const zstd = new ZSTDDecoder();
await zstd.init();

const CHUNK = 1 << 20;
const TIB = 2n ** 40n;
const INT63 = 2n ** 63n - 1n;
const MANIFEST_LIMIT = 32 << 10;
const PLAN_LIMIT = 64 << 10;
const ENVELOPE_LIMIT = 65535;
const TABLE_LIMIT = 16 << 20;
const DECODED_LIMIT = 64n << 30n;
const WINDOW_LIMIT = 8 << 20;
const RAW = 0;
const PLANES = 1;
const DELTA = 2;
const INT8 = 3;
const INT4 = 4;
const SIGN = 5;
const SPARSE = 6;
const ENCODINGS = [RAW, PLANES, DELTA, INT8, INT4, SIGN, SPARSE];
const NEED_BASE = [DELTA, SIGN, SPARSE];
const MAY_NEED_BASE = [INT8, INT4];

const ELEMENT_BYTES = new Map(
  [
    [1, "bool u8 i8 f8_e4m3fn f8_e5m2 f8_e4m3fnuz f8_e5m2fnuz f8_e8m0fnu f4_e2m1fn_x2"],
    [2, "u16 i16 f16 bf16"],
    [4, "u32 i32 f32 c32"],
    [8, "u64 i64 f64 c64"],
    [16, "c128"],
  ].flatMap(([size, names]) => names.split(" ").map((name) => [name, BigInt(size)])),
);

/** One error of section 11; `fault` is its name. */
export class PacketError extends Error {
  constructor(fault, message) {
    super(`${fault}: ${message}`);
    this.name = "PacketError";
    this.fault = fault;
  }
}

function need(condition, fault, message) {
  if (!condition) throw new PacketError(fault, message);
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const byteLength = (text) => BigInt(Buffer.byteLength(text));
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const upTo64 = (offset) => Math.ceil(offset / 64) * 64;

/** A Buffer over the same memory as any view or ArrayBuffer. */
function asBuffer(bytes) {
  if (ArrayBuffer.isView(bytes))
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Buffer.from(bytes);
}

/** Refuse bytes that do not begin with `magic`, or are shorter than a head (P-50, P-90). */
function needMagic(bytes, magic, headBytes, what) {
  const begin = bytes.subarray(0, magic.length);
  need(begin.equals(magic.subarray(0, begin.length)), "MAGIC", `this is no ${what}`);
  need(bytes.length >= headBytes, "TRUNCATED", `the ${what} is shorter than its header`);
}

function needZeros(bytes, from, to) {
  for (let at = from; at < to; at++) need(bytes[at] === 0, "PADDING", `byte ${at} is not zero`);
}

// Section 1: digests

const OBJECT_DOMAIN = Buffer.from("mfd.object.v1", "ascii");

function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function digestOfChunks(rawBytes, chunkDigests) {
  return Buffer.from(blake3(Buffer.concat([OBJECT_DOMAIN, u64(rawBytes), ...chunkDigests])));
}

/** The 32 bytes that name an object (P-01). */
export function digest(object) {
  const bytes = asBuffer(object);
  const chunks = [];
  for (let at = 0; at < bytes.length; at += CHUNK)
    chunks.push(blake3(bytes.subarray(at, at + CHUNK)));
  return digestOfChunks(bytes.length, chunks);
}

// MessagePack in canonical form (P-02, P-10, P-11)

class MessagePack {
  constructor(bytes, { table = false } = {}) {
    this.bytes = bytes;
    this.at = 0;
    this.table = table;
  }

  /** The one value of `bytes`; a Map is a map, a BigInt an integer, a Number a float. */
  static read(bytes, options) {
    const reader = new MessagePack(bytes, options);
    const value = reader.value(0);
    need(reader.at === bytes.length, "MSGPACK", "bytes follow the value");
    return value;
  }

  take(count) {
    need(count <= this.bytes.length - this.at, "MSGPACK", "the bytes end inside a value");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  unsigned(size) {
    const bytes = this.take(size);
    if (size === 8) return bytes.readBigUInt64BE();
    return BigInt(bytes.readUIntBE(0, size));
  }

  /** An integer or length of `size` bytes that would not fit a shorter form. */
  shortest(size, least) {
    const value = this.unsigned(size);
    need(value >= least, "MSGPACK", `${value} is not in its shortest form`);
    return value;
  }

  value(depth) {
    const tag = Number(this.unsigned(1));
    if (tag <= 0x7f) return BigInt(tag);
    if (tag <= 0x8f) return this.map(tag & 15, depth);
    if (tag <= 0x9f) return this.list(tag & 15, depth);
    if (tag <= 0xbf) return this.text(tag & 31);
    if (tag >= 0xe0) return BigInt(tag - 256);
    switch (tag) {
      case 0xc4:
        return this.binary(this.unsigned(1));
      case 0xc5:
        return this.binary(this.shortest(2, 1n << 8n));
      case 0xc6:
        return this.binary(this.shortest(4, 1n << 16n));
      case 0xcc:
        return this.shortest(1, 1n << 7n);
      case 0xcd:
        return this.shortest(2, 1n << 8n);
      case 0xce:
        return this.shortest(4, 1n << 16n);
      case 0xcf:
        return this.shortest(8, 1n << 32n);
      case 0xd0:
        return this.negative(1, -(1n << 5n));
      case 0xd1:
        return this.negative(2, -(1n << 7n));
      case 0xd2:
        return this.negative(4, -(1n << 15n));
      case 0xd3:
        return this.negative(8, -(1n << 31n));
      case 0xd9:
        return this.text(this.shortest(1, 1n << 5n));
      case 0xda:
        return this.text(this.shortest(2, 1n << 8n));
      case 0xdb:
        return this.text(this.shortest(4, 1n << 16n));
      case 0xdc:
        return this.list(this.shortest(2, 1n << 4n), depth);
      case 0xdd:
        return this.list(this.shortest(4, 1n << 16n), depth);
      case 0xde:
        return this.map(this.shortest(2, 1n << 4n), depth);
      case 0xdf:
        return this.map(this.shortest(4, 1n << 16n), depth);
    }
    return this.plain(tag);
  }

  plain(tag) {
    need(!this.table, "MSGPACK", "a table holds arrays, integers and text alone");
    if (tag === 0xc0) return null;
    if (tag === 0xc2) return false;
    if (tag === 0xc3) return true;
    need(tag === 0xcb, "MSGPACK", `type 0x${tag.toString(16)} has no place here`);
    return this.take(8).readDoubleBE();
  }

  negative(size, above) {
    const value = BigInt.asIntN(8 * size, this.unsigned(size));
    need(value < above, "MSGPACK", `${value} is not in its shortest form`);
    return value;
  }

  binary(length) {
    need(!this.table, "MSGPACK", "a table holds arrays, integers and text alone");
    return this.take(Number(length));
  }

  text(length) {
    const limit = this.table ? 512 : 4096;
    need(length <= limit, "MSGPACK", `a text is longer than ${limit} bytes`);
    const bytes = this.take(Number(length));
    try {
      return utf8.decode(bytes);
    } catch {
      throw new PacketError("MSGPACK", "a text is not UTF-8");
    }
  }

  list(length, depth) {
    if (this.table) need(depth < 3, "MSGPACK", "a list in the extents of a tensor");
    need(depth < 8, "LIMIT", "lists and maps nest deeper than 8");
    if (this.table && depth === 0)
      need(length <= 65536, "LIMIT", "the table has more than 65,536 rows");
    else need(length <= 1024, "MSGPACK", "a list has more than 1,024 entries");
    const items = [];
    for (let left = Number(length); left > 0; left--) items.push(this.value(depth + 1));
    return items;
  }

  map(length, depth) {
    need(!this.table, "MSGPACK", "a table holds arrays, integers and text alone");
    need(depth < 8, "LIMIT", "lists and maps nest deeper than 8");
    need(length <= 1024, "MSGPACK", "a map has more than 1,024 entries");
    const entries = new Map();
    let last = null;
    for (let left = Number(length); left > 0; left--) {
      const key = this.value(depth + 1);
      if (depth === 0)
        need(isInt(key, 0n, 65535n), "MSGPACK", "a key is no integer from 0 to 65,535");
      else need(typeof key === "string", "MSGPACK", "the key of an inner map is no text");
      need(last === null || ascends(last, key), "MSGPACK", "the keys of a map do not ascend");
      entries.set((last = key), this.value(depth + 1));
    }
    return entries;
  }
}

/** Whether `first` comes before `second`: integers by value, texts by their UTF-8 bytes. */
function ascends(first, second) {
  if (typeof first === "bigint") return first < second;
  return Buffer.compare(Buffer.from(first), Buffer.from(second)) < 0;
}

// Section 3: headers. A field is [key, name, check]; a check returns the value to keep.

const isInt = (value, low, high) => typeof value === "bigint" && value >= low && value <= high;
const isText = (value, low, high) =>
  typeof value === "string" && byteLength(value) >= low && byteLength(value) <= high;
const isBytes = (value, length) => value instanceof Uint8Array && value.length === length;
const isList = (value, low, high) =>
  Array.isArray(value) && value.length >= low && value.length <= high;

const check = (holds, what) => (value, name) => {
  need(holds(value), "FIELD", `${name} is not ${what}`);
  return value;
};
const int = (low, high) =>
  check((v) => isInt(v, BigInt(low), BigInt(high)), `from ${low} to ${high}`);
const text = (low, high) => check((v) => isText(v, low, high), `a text of ${low} to ${high} bytes`);
const bytesOf = (length) => check((v) => isBytes(v, length), `${length} bytes`);
const oneOf = (...values) => check((v) => values.includes(v), `one of ${values.join(", ")}`);
const boolean = check((v) => typeof v === "boolean", "a boolean");

/** A list whose entries are each checked by `entry`. */
const listOf = (low, high, entry) => (value, name) => {
  need(isList(value, low, Infinity), "FIELD", `${name} is no list of at least ${low}`);
  need(value.length <= high, "LIMIT", `${name} has more than ${high} entries`);
  return value.map((item, at) => entry(item, `${name}[${at}]`));
};

/** A list of one entry for each of `checks`. */
const row =
  (...checks) =>
  (value, name) => {
    need(
      isList(value, checks.length, checks.length),
      "FIELD",
      `${name} is no list of ${checks.length}`,
    );
    return value.map((item, at) => checks[at](item, `${name}[${at}]`));
  };

function needDistinct(values, what) {
  const keys = values.map((value) => (typeof value === "string" ? value : hex(value)));
  need(new Set(keys).size === keys.length, "ORDER", `${what} are not distinct`);
}

/** The fields of a header by name; unknown fields of odd key stand in `other` (P-12, P-13). */
function readHeader(bytes, what, fields) {
  const map = MessagePack.read(bytes);
  need(map instanceof Map, "MSGPACK", `the ${what} is no map`);
  const record = { other: new Map() };
  for (const [key, name, checkField] of fields) {
    if (map.has(BigInt(key)))
      record[name] = checkField(map.get(BigInt(key)), `${name} of the ${what}`);
    else need(key % 2 === 1, "FIELD", `the ${what} has no ${name}`);
    map.delete(BigInt(key));
  }
  for (const [key, value] of map) {
    need(key % 2n === 1n, "CRITICAL", `field ${key} of the ${what} is not known`);
    record.other.set(key, value);
  }
  return record;
}

// Section 5: manifest

const KINDS = [
  "LAYERS",
  "ADAPTER",
  "ACTIVATIONS",
  "GRADIENTS",
  "LOGITS",
  "PROTOTYPES",
  "OPTIMIZER",
];
const NAME = text(1, 512);

function claims(value, name) {
  need(value instanceof Map && value.size > 0, "FIELD", `${name} is no map of 1 to 32 entries`);
  need(value.size <= 32, "LIMIT", `${name} has more than 32 entries`);
  for (const [key, claim] of value) {
    text(1, 64)(key, `a name of ${name}`);
    if (typeof claim === "string") text(0, 256)(claim, `${name}.${key}`);
    else if (typeof claim === "bigint") int(-INT63, INT63)(claim, `${name}.${key}`);
    else
      need(Number.isFinite(claim), "FIELD", `${name}.${key} is no integer, finite float or text`);
  }
  return value;
}

function visited(value, name) {
  need(
    value instanceof Uint8Array && value.length % 8 === 0,
    "FIELD",
    `${name} is no list of 8 bytes each`,
  );
  need(value.length <= 8 * 256, "LIMIT", `${name} has more than 256 entries`);
  const ids = [];
  for (let at = 0; at < value.length; at += 8) ids.push(value.subarray(at, at + 8));
  needDistinct(ids, name);
  return ids;
}

function sampler(value, name) {
  need(value instanceof Uint8Array, "FIELD", `${name} is no byte string`);
  need(value.length <= 8192, "LIMIT", `${name} is longer than 8 KiB`);
  return value;
}

const U32 = int(0, 2n ** 32n - 1n);
const MANIFEST = [
  [0, "walker", bytesOf(32)],
  [2, "model", bytesOf(32)],
  [4, "seq", int(0, INT63)],
  [6, "parents", listOf(0, 64, bytesOf(32))],
  [8, "layers", listOf(1, 256, row(int(0, 255), NAME, bytesOf(32), int(1, TIB)))],
  [10, "kind", int(0, KINDS.length - 1)],
  [12, "plan", bytesOf(32)],
  [14, "trained", listOf(0, 4, row(int(0, 256), int(0, 256)))],
  [16, "scale", row(int(1, 65535), int(1, 65535), int(0, 65535), int(0, 64))],
  [18, "trainer", bytesOf(32)],
  [20, "progress", row(U32, int(0, 256), int(0, INT63), U32, U32, visited, sampler)],
  [1, "claims", claims],
  [3, "software", text(1, 128)],
];

function gcd(a, b) {
  return b === 0n ? a : gcd(b, a % b);
}

function needRanges(ranges, layers) {
  let end = 0n;
  for (const [first, last] of ranges) {
    need(
      first < last && last <= layers,
      "FIELD",
      `trained: ${first} to ${last} is no range of layers`,
    );
    need(first >= end, "ORDER", "trained: the ranges do not ascend, or overlap");
    end = last;
  }
}

/** The fields of a manifest (section 5). */
export function decodeManifest(bytes) {
  need(bytes.length <= MANIFEST_LIMIT, "LIMIT", "the manifest is above 32 KiB");
  const manifest = readHeader(asBuffer(bytes), "manifest", MANIFEST);
  const { layers, scale, trained } = manifest;
  layers.forEach(([index], at) =>
    need(index === BigInt(at), "ORDER", `layer ${at} has index ${index}`),
  );
  needDistinct(
    layers.map(([, name]) => name),
    "the names of the layers",
  );
  needDistinct(manifest.parents, "the parents");
  const sizes = new Map(layers.map(([, , name, rawBytes]) => [hex(name), rawBytes]));
  need(
    layers.every(([, , name, rawBytes]) => sizes.get(hex(name)) === rawBytes),
    "FIELD",
    "layers of one digest have other raw bytes",
  );
  needRanges(trained, BigInt(layers.length));
  const [above, below] = scale;
  need(
    above <= below && gcd(above, below) === 1n,
    "FIELD",
    `width ${above}/${below} is no reduced fraction`,
  );
  return manifest;
}

// Section 6: plan

function plain(value, name) {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "bigint") return int(-INT63, INT63)(value, name);
  if (Array.isArray(value)) value.forEach((item) => plain(item, name));
  else if (value instanceof Map) value.forEach((item) => plain(item, name));
  else need(Number.isFinite(value), "FIELD", `${name} holds what is no plain value`);
  return value;
}

function recipe(value, name) {
  need(value instanceof Map, "FIELD", `${name} is no map`);
  return plain(value, name);
}

function learn(value, name) {
  need(
    value instanceof Map && value.size <= 64,
    "FIELD",
    `${name} is no map of at most 64 entries`,
  );
  for (const [key, item] of value) {
    text(1, 64)(key, `a name of ${name}`);
    need(
      !Array.isArray(item) && !(item instanceof Map),
      "FIELD",
      `${name}.${key} is a list or map`,
    );
    plain(item, `${name}.${key}`);
  }
  return value;
}

function onlyTrue(value, name) {
  need(value === true, "FIELD", `${name} is not true`);
  return value;
}

function body(value, name) {
  const [low, high] = row(int(0, 255), int(1, 256))(value, name);
  need(low < high, "FIELD", `${name} is no range of layers`);
  return [low, high];
}

const PLAN = [
  [0, "recipe", recipe],
  [2, "names", listOf(1, 64, NAME)],
  [4, "home", bytesOf(32)],
  [6, "mode", oneOf("snake", "walk", "fedavg", "distill")],
  [8, "task", text(1, 64)],
  [10, "verify", listOf(0, 64, NAME)],
  [12, "laps", int(1, 10000)],
  [14, "order", oneOf("lap", "stop", "sweep", "boustrophedon")],
  [16, "layers_per_stop", int(0, 256)],
  [18, "head", boolean],
  [20, "full_laps", int(0, 10000)],
  [22, "min_holders", int(1, 65535)],
  [24, "seed", int(0, INT63)],
  [26, "learn", learn],
  [31, "first", onlyTrue],
  [33, "body", body],
];

/** The fields of a plan (section 6), from the body of its record. */
export function decodePlan(bytes) {
  need(bytes.length <= PLAN_LIMIT, "LIMIT", "the plan is above 64 KiB");
  const plan = readHeader(asBuffer(bytes), "plan", PLAN);
  need(
    plan.layers_per_stop > 0n || plan.order !== "boustrophedon",
    "FIELD",
    "no layers per stop, there and back",
  );
  needDistinct(plan.names, "the names of the plan");
  needDistinct(plan.verify, "the names to verify on");
  return plan;
}

// Section 4: signatures

/** Refuse a signature that does not verify (P-14). */
export function needSignature(domain, key, signature, body) {
  const message = Buffer.concat([Buffer.from(`${domain}\0`, "ascii"), u64(body.length), body]);
  let holds = false;
  try {
    const x = Buffer.from(key).toString("base64url");
    holds = verifyBytes(
      null,
      message,
      createPublicKey({ format: "jwk", key: { kty: "OKP", crv: "Ed25519", x } }),
      signature,
    );
  } catch {
    holds = false;
  }
  need(holds, "SIGNATURE", `the signature of domain ${domain} does not verify`);
}

/** Signer and body of a signed record (P-15); `limit` is that of the body. */
export function openRecord(bytes, domain, limit) {
  const record = asBuffer(bytes);
  need(record.length <= 96 + limit, "LIMIT", `the body of the record is above ${limit} bytes`);
  need(record.length >= 96, "TRUNCATED", "the record is shorter than a key and a signature");
  const [key, signature, body] = [
    record.subarray(0, 32),
    record.subarray(32, 96),
    record.subarray(96),
  ];
  needSignature(domain, key, signature, body);
  return { key, body };
}

// Section 2: layer objects

function tensorRow(entry) {
  need(isList(entry, 3, 3), "FIELD", "a row of the table is no list of three");
  const [name, dtype, shape] = entry;
  need(
    typeof name === "string" && typeof dtype === "string" && Array.isArray(shape),
    "FIELD",
    "a row of the table is not name, dtype and extents",
  );
  need(name !== "", "FIELD", "a tensor has no name");
  need(shape.length <= 16, "LIMIT", `tensor ${name} has more than 16 extents`);
  need(ELEMENT_BYTES.has(dtype), "DTYPE", `tensor ${name} has dtype ${dtype}`);
  for (const extent of shape)
    need(isInt(extent, 0n, TIB), "SHAPE", `tensor ${name} has extent ${extent}`);
  const size = shape.reduce((product, extent) => product * extent, ELEMENT_BYTES.get(dtype));
  const held = shape.reduce(
    (product, extent) => product * (extent || 1n),
    ELEMENT_BYTES.get(dtype),
  );
  return { name, dtype, shape: shape.map(Number), size, held };
}

function tensorRows(table) {
  const rows = MessagePack.read(table, { table: true });
  need(Array.isArray(rows), "MSGPACK", "the table is no list");
  let held = 0n;
  return rows.map((entry, at) => {
    const tensor = tensorRow(entry);
    need(
      at === 0 || ascends(rows[at - 1][0], tensor.name),
      "ORDER",
      "the rows of the table do not ascend",
    );
    held += tensor.held;
    need(held <= TIB, "LIMIT", "the tensors are above 1 TiB");
    return tensor;
  });
}

/** The tensors of a layer object (section 2): {name: {dtype, shape, bytes}}, without a copy. */
export function decodeLayer(object) {
  const bytes = asBuffer(object);
  need(bytes.length >= 8, "TRUNCATED", "the layer is shorter than its first 8 bytes");
  const tableBytes = bytes.readUInt32LE(0);
  need(tableBytes <= TABLE_LIMIT, "LIMIT", "the table is above 16 MiB");
  needZeros(bytes, 4, 8);
  let at = 8 + tableBytes;
  need(at <= bytes.length, "TRUNCATED", "the table ends after the layer");
  const tensors = Object.create(null);
  const gaps = [];
  for (const { name, dtype, shape, size } of tensorRows(bytes.subarray(8, at))) {
    const begin = upTo64(at);
    gaps.push([at, begin]);
    at = begin + Number(size);
    tensors[name] = { dtype, shape, bytes: bytes.subarray(begin, at) };
  }
  gaps.push([at, upTo64(at)]);
  at = upTo64(at);
  need(at <= bytes.length, "TRUNCATED", "the layer ends before its tensors");
  need(at === bytes.length, "TRAILING", "bytes follow the last tensor");
  for (const [from, to] of gaps) needZeros(bytes, from, to);
  return tensors;
}

// Section 7: chunk encodings

/** The length of the zstd frame at the start of `frame`, which declares `content` bytes (P-44). */
function frameBytes(frame, content) {
  need(
    frame.length >= 5 && frame.readUInt32LE(0) === 0xfd2fb528,
    "ENCODING",
    "a plane is no zstd frame",
  );
  const flags = frame[4];
  const single = (flags >> 5) & 1;
  const dictionaryBytes = [0, 1, 2, 4][flags & 3];
  const sizeBytes = flags >> 6 === 0 ? single : 1 << (flags >> 6);
  need(sizeBytes > 0, "ENCODING", "a zstd frame does not declare its size");
  let at = 5 + (1 - single);
  need(frame.length >= at + dictionaryBytes + sizeBytes, "ENCODING", "a zstd frame is cut");
  const window = single ? content : 2 ** (10 + (frame[5] >> 3)) * (1 + (frame[5] & 7) / 8);
  need(window <= WINDOW_LIMIT, "ENCODING", "a zstd frame has a window above 8 MiB");
  const dictionary = frame.subarray(at, (at += dictionaryBytes));
  need(
    dictionary.every((byte) => byte === 0),
    "ENCODING",
    "a zstd frame asks for a dictionary",
  );
  const declared =
    sizeBytes === 8 ? frame.readBigUInt64LE(at) : BigInt(frame.readUIntLE(at, sizeBytes));
  need(
    declared + (sizeBytes === 2 ? 256n : 0n) === BigInt(content),
    "ENCODING",
    "a zstd frame declares another size",
  );
  at += sizeBytes;
  for (let last = 0; !last;) {
    need(frame.length >= at + 3, "ENCODING", "a zstd frame is cut");
    const head = frame.readUIntLE(at, 3);
    last = head & 1;
    at += 3 + (((head >> 1) & 3) === 1 ? 1 : head >> 3);
  }
  return at + 4 * ((flags >> 2) & 1);
}

function unpackPlane(body, count) {
  need(frameBytes(body, count) === body.length, "ENCODING", "a plane is not one whole zstd frame");
  let plane = null;
  try {
    plane = zstd.decode(body, count);
  } catch (error) {
    throw new PacketError("ENCODING", `zstd: ${error.message}`);
  }
  need(plane.length === count, "ENCODING", "a zstd frame does not hold what it declares");
  return plane;
}

/** Put the bytes of each element of `width` bytes side by side again. */
function joinPlanes(planes, width, count) {
  const raw = Buffer.alloc(width * count);
  planes.forEach((plane, index) => {
    for (let at = 0; at < count; at++) raw[at * width + index] = plane[at];
  });
  return raw;
}

/** Rotate every element of `width` bytes right by one bit. */
function rotateRight(raw, width) {
  const last = width - 1;
  for (let at = 0; at < raw.length; at += width) {
    const lowest = raw[at] & 1;
    for (let i = 0; i < last; i++) raw[at + i] = (raw[at + i] >> 1) | (raw[at + i + 1] << 7);
    raw[at + last] = (raw[at + last] >> 1) | (lowest << 7);
  }
}

/** Planes of `sizes` bytes, whose heads stand at `heads`, and what follows them (P-43). */
function takePlanes(body, heads, sizes) {
  let at = heads + 4 * sizes.length;
  need(body.length >= at, "ENCODING", "the body is shorter than its head");
  const planes = sizes.map((size, i) => {
    const head = body.readUInt32LE(heads + 4 * i);
    const plane = body.subarray(at, (at += head & 0x7fffffff));
    need(at <= body.length, "ENCODING", "a plane ends after the body");
    if (head >>> 31) {
      need(size > 0, "ENCODING", "an empty plane is a zstd frame");
      return unpackPlane(plane, size);
    }
    need(plane.length === size, "ENCODING", "a plane has another size");
    return plane;
  });
  return { planes, rest: body.subarray(at) };
}

/** Width and code of the elements of a body, and how many of them there are (P-42, P-45, P-84). */
function elementsOf(body, rawBytes, codes) {
  need(body.length >= 4, "ENCODING", "the body is shorter than its head");
  const [width, code] = body;
  need([1, 2, 4, 8].includes(width), "ENCODING", `elements of ${width} bytes`);
  need(codes.includes(code), "ENCODING", `code ${code} is not known here`);
  need(body.readUInt16LE(2) === 0, "ENCODING", "the head is not zero where it must be");
  return { width, code, count: Math.floor(rawBytes / width) };
}

function decodePlanes(body, rawBytes) {
  const { width, count } = elementsOf(body, rawBytes, [0]);
  const { planes, rest } = takePlanes(body, 4, Array(width).fill(count));
  need(rest.length === rawBytes - count * width, "ENCODING", "the tail has another size");
  const raw = joinPlanes(planes, width, count);
  if (width > 1) rotateRight(raw, width);
  return Buffer.concat([raw, rest]);
}

const READ = { 1: "getUint8", 2: "getUint16", 4: "getUint32", 8: "getBigUint64" };
const WRITE = { 1: "setUint8", 2: "setUint16", 4: "setUint32", 8: "setBigUint64" };

/** Replace every difference in `raw` by the element that it makes of its base (P-47). */
function addBase(raw, base, width, floats) {
  const bits = 8 * width;
  const top = 1n << BigInt(bits - 1);
  const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
  const old = new DataView(base.buffer, base.byteOffset, base.length);
  const ordered = (x) => (floats && x & top ? x ^ (top - 1n) : x);
  for (let at = 0; at < raw.length; at += width) {
    const written = BigInt(view[READ[width]](at, true));
    const step = written & 1n ? -((written + 1n) / 2n) : written / 2n;
    const from = ordered(BigInt(old[READ[width]](at, true)));
    const element = ordered(BigInt.asUintN(bits, from + step));
    view[WRITE[width]](at, width === 8 ? element : Number(element), true);
  }
}

/** A copy of the base of a chunk, cut or filled up with zeros to its size (P-46). */
function baseBytes(base, rawBytes) {
  need(base, "BASE", "the base of a chunk is not at hand");
  const padded = Buffer.alloc(rawBytes);
  asBuffer(base).copy(padded);
  return padded;
}

function decodeDelta(body, rawBytes, base) {
  const old = baseBytes(base, rawBytes);
  const { width, code, count } = elementsOf(body, rawBytes, [1, 2]);
  const { planes, rest } = takePlanes(body, 4, Array(width).fill(count));
  need(rest.length === rawBytes - count * width, "ENCODING", "the tail has another size");
  const raw = joinPlanes(planes, width, count);
  addBase(raw, old, width, code === 2);
  return Buffer.concat([raw, rest]);
}

/** The numbers of the `changed` elements that the gaps lead to, of `count` (P-84). */
function placesOf(gaps, changed, count) {
  const places = [];
  let at = 0;
  for (const byte of gaps) {
    at += byte;
    if (byte < 255) places.push(at++);
  }
  need(places.length === changed && gaps.at(-1) !== 255, "ENCODING", "gaps of another number");
  need(at <= count, "ENCODING", "the gaps lead beyond the elements");
  return places;
}

function decodeSparse(body, rawBytes, base) {
  const raw = baseBytes(base, rawBytes);
  const { width, code, count } = elementsOf(body, rawBytes, [1, 2]);
  need(body.length >= 12, "ENCODING", "the body is shorter than its head");
  const [changed, gapBytes] = [body.readUInt32LE(4), body.readUInt32LE(8)];
  need(changed <= count, "ENCODING", "more elements change than there are");
  need(
    gapBytes >= changed && gapBytes <= changed + Math.floor(count / 255),
    "ENCODING",
    `gaps of ${gapBytes} bytes for ${changed} elements`,
  );
  const sizes = [gapBytes, ...Array(width).fill(changed)];
  const { planes, rest } = takePlanes(body, 12, sizes);
  need(rest.length === rawBytes - count * width, "ENCODING", "the tail has another size");
  const places = placesOf(planes.shift(), changed, count);
  const elements = joinPlanes(planes, width, changed);
  const old = Buffer.alloc(elements.length);
  places.forEach((place, i) => raw.copy(old, i * width, place * width, (place + 1) * width));
  addBase(elements, old, width, code === 2);
  places.forEach((place, i) => elements.copy(raw, place * width, i * width, (i + 1) * width));
  rest.copy(raw, count * width);
  return raw;
}

const BLOCK = 64;
const BLOCK_FORMS = new Map([
  [INT8, { scaleBytes: 2, bits: 8 }],
  [INT4, { scaleBytes: 2, bits: 4 }],
  [SIGN, { scaleBytes: 1, bits: 1 }],
]);
const F32 = 0;
const F16 = 1;

const word = new DataView(new ArrayBuffer(4));

function f32(bits) {
  word.setUint32(0, bits);
  return word.getFloat32(0);
}

function f32Bits(value) {
  word.setFloat32(0, value);
  return word.getUint32(0);
}

/** The bits of `value` as f32, f16 or bf16, which hold it exactly (P-83). */
function floatBits(value, type) {
  need(Number.isFinite(value) && Math.fround(value) === value, "ENCODING", `${value} is no f32`);
  const bits = f32Bits(value);
  if (type === F32) return bits;
  if (type !== F16) {
    need((bits & 0xffff) === 0, "ENCODING", `${value} is no bf16`);
    return bits >>> 16;
  }
  const size = Math.abs(value);
  const subnormal = size < 2 ** -14;
  const half = subnormal ? size * 2 ** 24 : ((bits & 0x7fffffff) - (112 << 23)) / 2 ** 13;
  need(size < 65536 && Number.isInteger(half), "ENCODING", `${value} is no f16`);
  return ((bits >>> 16) & 0x8000) | half;
}

/** First byte, end, type, elements and bytes of an element of every run of a body (P-80). */
function runsOf(body, based, rawBytes) {
  const count = body.readUInt16LE(2);
  need(count >= 1 && count <= 1024, "ENCODING", `a body of ${count} runs`);
  need(body.length >= 4 + 8 * count, "ENCODING", "the body is shorter than its head");
  const runs = [];
  let end = 0;
  for (let at = 4; at < 4 + 8 * count; at += 8) {
    const [first, type, elements] = [
      body.readUInt32LE(at),
      body[at + 4],
      body.readUIntLE(at + 5, 3),
    ];
    need(type <= (based ? F32 : 2), "ENCODING", `a run of type ${type}`);
    const width = type === F32 ? 4 : 2;
    need(elements > 0 && first % width === 0, "ENCODING", "a run is empty or lies askew");
    need(first >= end, "ENCODING", "the runs do not ascend, or overlap");
    end = first + width * elements;
    need(end <= rawBytes, "ENCODING", "a run ends after the chunk");
    runs.push({ first, end, type, elements, width });
  }
  return runs;
}

/** The scales of all blocks: the upper half of an f32, or its exponent alone (P-81). */
function scalesOf(planes) {
  const [low, high] = planes;
  return Array.from(low, (byte, i) => {
    const bits = high ? ((high[i] << 8) | byte) << 16 : byte << 23;
    need(bits >= 0 && bits < 0x7f800000, "ENCODING", "a scale is negative or not finite");
    return f32(bits);
  });
}

/** The codes of all elements, of `bits` bits each, as integers (P-81). */
function codesOf(plane, bits, count) {
  const used = (count * bits) % 8;
  need(used === 0 || plane.at(-1) >> used === 0, "ENCODING", "bits follow the last code");
  const codes = new Int8Array(count);
  for (let i = 0; i < count; i++) {
    const field = plane[(i * bits) >> 3] >> ((i * bits) & 7);
    codes[i] = bits === 1 ? 1 - 2 * (field & 1) : (field << (32 - bits)) >> (32 - bits);
    need(codes[i] !== -(1 << (bits - 1)) || bits === 1, "ENCODING", `a code of ${codes[i]}`);
  }
  return codes;
}

/** The bits of `[b + v]` (P-83). */
function sumBits(b, v) {
  floatBits(v, F32);
  need(Number.isFinite(b), "ENCODING", "an element of the base is not finite");
  return floatBits(Math.fround(b + v), F32);
}

const sumOf = (items, number) => items.reduce((sum, item) => sum + number(item), 0);

function decodeBlocks(encoding, body, rawBytes, base) {
  need(body.length >= 4, "ENCODING", "the body is shorter than its head");
  const based = body[0] === 1;
  need(body[0] <= 1 && body[1] === 0, "ENCODING", "the head is not 0 or 1 where it must be");
  need(based || encoding !== SIGN, "ENCODING", "signs without a base");
  const raw = based ? baseBytes(base, rawBytes) : Buffer.alloc(rawBytes);
  const runs = runsOf(body, based, rawBytes);
  const count = sumOf(runs, (run) => run.elements);
  const blocks = sumOf(runs, (run) => Math.ceil(run.elements / BLOCK));
  const { scaleBytes, bits } = BLOCK_FORMS.get(encoding);
  const sizes = [...Array(scaleBytes).fill(blocks), Math.ceil((count * bits) / 8)];
  const { planes, rest } = takePlanes(body, 4 + 8 * runs.length, sizes);
  const covered = sumOf(runs, (run) => run.end - run.first);
  need(rest.length === rawBytes - covered, "ENCODING", "the rest has another size");
  const codes = codesOf(planes.pop(), bits, count);
  const scales = scalesOf(planes);
  let [code, block, taken, end] = [0, 0, 0, 0];
  for (const run of runs) {
    taken += rest.copy(raw, end, taken, taken + run.first - end);
    end = run.end;
    for (let i = 0; i < run.elements; i++) {
      const value = codes[code++] * scales[block + Math.floor(i / BLOCK)] + 0;
      const at = run.first + run.width * i;
      if (run.width === 2) raw.writeUInt16LE(floatBits(value, run.type), at);
      else if (based) raw.writeUInt32LE(sumBits(raw.readFloatLE(at), value), at);
      else raw.writeUInt32LE(floatBits(value, F32), at);
    }
    block += Math.ceil(run.elements / BLOCK);
  }
  rest.copy(raw, end, taken);
  return raw;
}

/** Whether a chunk stands upon a base: always, or where its body is based (P-63, P-80). */
function needsBase(encoding, body) {
  return NEED_BASE.includes(encoding) || (MAY_NEED_BASE.includes(encoding) && body[0] === 1);
}

/** The raw bytes of one chunk (section 7); `base` is the base object from the chunk's place on. */
export function decodeChunk(encoding, body, rawBytes, base = null) {
  need(rawBytes >= 1 && rawBytes <= CHUNK, "LIMIT", `a chunk of ${rawBytes} bytes`);
  need(ENCODINGS.includes(encoding), "ENCODING", `encoding ${encoding} is not known`);
  if (encoding === RAW) {
    need(body.length === rawBytes, "ENCODING", "a raw body has another size than the chunk");
    return asBuffer(body);
  }
  need(body.length < rawBytes, "ENCODING", "a body is no shorter than the raw chunk");
  if (encoding === PLANES) return decodePlanes(asBuffer(body), rawBytes);
  if (encoding === DELTA) return decodeDelta(asBuffer(body), rawBytes, base);
  if (encoding === SPARSE) return decodeSparse(asBuffer(body), rawBytes, base);
  return decodeBlocks(encoding, asBuffer(body), rawBytes, base);
}

// Sections 8 and 9: packet, envelope, objects

const DESTINATION = check(
  (v) => v === null || isBytes(v, 32) || isText(v, 1, 512),
  "a destination",
);
const BASE = check((v) => v === null || isBytes(v, 32), "32 bytes or nothing");
const U8 = int(0, 255);

const ENVELOPE = [
  [0, "destination", DESTINATION],
  [2, "hop_limit", U8],
  [4, "traffic_class", U8],
  [6, "priority", U8],
  [8, "trace_id", bytesOf(16)],
  [10, "index", listOf(0, 257, row(bytesOf(32), U8, BASE, int(0, 2n * TIB), U32, int(1, TIB)))],
];
const ENTRY = ["digest", "encoding", "base", "encoded_bytes", "chunk_count", "raw_bytes"];

/** The fields of an envelope (section 8); `part` stays among the unknown ones (P-55). */
export function decodeEnvelope(bytes) {
  need(bytes.length <= ENVELOPE_LIMIT, "LIMIT", "the envelope is above 65,535 bytes");
  const envelope = readHeader(asBuffer(bytes), "envelope", ENVELOPE);
  envelope.index = envelope.index.map((entry) =>
    Object.fromEntries(ENTRY.map((name, i) => [name, entry[i]])),
  );
  needDistinct(
    envelope.index.map((entry) => entry.digest),
    "the objects of the index",
  );
  for (const entry of envelope.index) {
    const chunks = (entry.raw_bytes + BigInt(CHUNK - 1)) / BigInt(CHUNK);
    need(
      entry.chunk_count === chunks,
      "FIELD",
      `an object of ${entry.raw_bytes} bytes has ${chunks} chunks`,
    );
  }
  return envelope;
}

/** The digest, encoding and body of every chunk of an object (section 9). */
function chunkRows(region, entry) {
  const encoding = Number(entry.encoding);
  need(ENCODINGS.includes(encoding), "ENCODING", `encoding ${encoding} is not known`);
  need(
    entry.base || !NEED_BASE.includes(encoding),
    "ENCODING",
    `encoding ${encoding} without the name of a base`,
  );
  need(!entry.base?.equals(entry.digest), "ENCODING", "an object is its own base");
  const count = Number(entry.chunk_count);
  let at = upTo64(40 * count);
  need(at <= region.length, "TRUNCATED", "an object is shorter than its chunk table");
  needZeros(region, 40 * count, at);
  const rows = [];
  for (let i = 0; i < count; i++) {
    const head = region.subarray(40 * i, 40 * i + 40);
    needZeros(head, 33, 36);
    need(
      encoding === RAW ? head[32] === RAW : ENCODINGS.includes(head[32]),
      "ENCODING",
      `a chunk of encoding ${head[32]} in an object of encoding ${encoding}`,
    );
    const end = at + head.readUInt32LE(36);
    need(upTo64(end) <= region.length, "TRUNCATED", "a chunk ends after its object");
    needZeros(region, end, upTo64(end));
    rows.push({ digest: head.subarray(0, 32), encoding: head[32], body: region.subarray(at, end) });
    at = upTo64(end);
  }
  need(at === region.length, "TRAILING", "bytes follow the last chunk of an object");
  need(
    digestOfChunks(
      entry.raw_bytes,
      rows.map((r) => r.digest),
    ).equals(entry.digest),
    "DIGEST",
    "the chunks are not those of the object",
  );
  return rows;
}

/** The raw bytes of a chunk, which have the digest that the object's list says (P-62, P-92). */
function provenChunk({ encoding, body }, rawBytes, base, chunkDigest) {
  const raw = decodeChunk(encoding, body, rawBytes, base);
  need(Buffer.from(blake3(raw)).equals(chunkDigest), "DIGEST", "a chunk has another digest");
  return raw;
}

/**
 * The raw content of an object, every chunk checked (P-62); no copy where it is raw (P-61).
 * `bases` are raw objects by digest in hex, on which chunks may stand.
 */
function objectBytes(region, entry, bases) {
  const rawBytes = Number(entry.raw_bytes);
  const rows = chunkRows(region, entry);
  const base = entry.base && bases.get(hex(entry.base));
  need(base || !entry.base, "BASE", "the base of an object is not at hand");
  const pieces = rows.map((chunk, index) => {
    const at = index * CHUNK;
    const old = base && asBuffer(base).subarray(at);
    return provenChunk(chunk, Math.min(CHUNK, rawBytes - at), old, chunk.digest);
  });
  if (entry.encoding !== 0n) return Buffer.concat(pieces);
  const begin = upTo64(40 * rows.length);
  return region.subarray(begin, begin + rawBytes);
}

function needNamed(entry, manifest) {
  const layers = manifest.layers.filter(([, , name]) => name.equals(entry.digest));
  need(
    layers.length > 0 || manifest.plan.equals(entry.digest),
    "FIELD",
    "the manifest does not name an object",
  );
  need(
    layers.every((layer) => layer[3] === entry.raw_bytes),
    "FIELD",
    "an object has other raw bytes than the manifest says",
  );
}

const PACKET_MAGIC = Buffer.from("934d4644", "hex");

function packetHead(bytes) {
  needMagic(bytes, PACKET_MAGIC, 16, "packet");
  need(bytes[4] === 1 && bytes[5] === 0, "FORMAT", `format ${bytes[4]} with flags ${bytes[5]}`);
  const sizes = [bytes.readUInt16LE(6), bytes.readUInt32LE(8), bytes.readUInt16LE(12)];
  need(
    bytes.readUInt16LE(14) === 0 && [0, 64].includes(sizes[2]),
    "FORMAT",
    "the header is of no known format",
  );
  need(sizes[1] <= MANIFEST_LIMIT, "LIMIT", "the manifest is above 32 KiB");
  let at = 16;
  return sizes.map((size) => {
    need(at + size <= bytes.length, "TRUNCATED", "the packet ends before its objects");
    return bytes.subarray(at, (at += size));
  });
}

function regions(bytes, from, envelope, limit) {
  const begin = upTo64(from);
  const total = envelope.index.reduce((sum, entry) => sum + entry.encoded_bytes, BigInt(begin));
  need(total <= bytes.length, "TRUNCATED", "the packet ends before its objects do");
  need(total === BigInt(bytes.length), "TRAILING", "bytes follow the last object");
  needZeros(bytes, from, begin);
  const packed = envelope.index.filter((entry) => entry.encoding !== 0n);
  const decoded = packed.reduce((sum, entry) => sum + entry.raw_bytes, 0n);
  need(decoded <= limit, "LIMIT", `the objects decode to ${decoded} bytes`);
  let at = begin;
  return envelope.index.map((entry) => bytes.subarray(at, (at += Number(entry.encoded_bytes))));
}

/**
 * A whole packet: {manifest, envelope, objects, layers, planRecord, signed, version}. `objects` is
 * a Map of the raw objects that the packet carries by digest in hex; `layers` holds the layers
 * among them as {name: {tensor: {dtype, shape, bytes}}}; planRecord (for openRecord and
 * decodePlan) is null where it is not carried.
 *
 * verify: refuse a packet without a valid signature of its trainer (P-52).
 * need: names of layers that must be there (else OBJECT).
 * limit: bytes that encoded objects may decode to together (P-64).
 * bases: a Map of the raw objects that the reader holds, by digest in hex (P-63).
 */
export function decode(buffer, options = {}) {
  const { verify = false, need: needed = [], limit = DECODED_LIMIT, bases = new Map() } = options;
  const bytes = asBuffer(buffer);
  const [head, body, signature] = packetHead(bytes);
  const envelope = decodeEnvelope(head);
  const manifest = decodeManifest(body);
  if (verify) {
    need(signature.length === 64, "SIGNATURE", "the packet is not signed");
    needSignature("mfd.manifest.v1", manifest.trainer, signature, body);
  }
  envelope.index.forEach((entry) => needNamed(entry, manifest));
  const from = 16 + head.length + body.length + signature.length;
  const objects = new Map();
  regions(bytes, from, envelope, BigInt(limit)).forEach((region, i) => {
    const entry = envelope.index[i];
    objects.set(hex(entry.digest), objectBytes(region, entry, bases));
  });
  const signed = signature.length === 64;
  const contents = contentsOf(manifest, objects, needed);
  return { manifest, envelope, ...contents, signed, version: digest(body) };
}

/** Layers and plan record among the objects, of which those `needed` must be there (P-54). */
function contentsOf(manifest, objects, needed) {
  const layers = Object.create(null);
  for (const [, name, layerDigest] of manifest.layers) {
    const object = objects.get(hex(layerDigest));
    need(object || !needed.includes(name), "OBJECT", `the packet does not carry layer ${name}`);
    if (object) layers[name] = decodeLayer(object);
  }
  return { objects, layers, planRecord: objects.get(hex(manifest.plan)) ?? null };
}

// Section 16: pieces

const PIECE_MAGIC = Buffer.from("934d4650", "hex");
const LIST = 0;

/** The fields of a piece (P-90, P-91); `base` is null where it names none. */
export function decodePiece(buffer) {
  const bytes = asBuffer(buffer);
  needMagic(bytes, PIECE_MAGIC, 96, "piece");
  const [format, kind, encoding] = bytes.subarray(4, 7);
  need(format === 1 && kind <= 1, "FORMAT", `format ${format} with kind ${kind}`);
  needZeros(bytes, 7, 8);
  needZeros(bytes, 24, 32);
  const [index, bodyBytes, rawBytes] = [
    bytes.readUInt32LE(8),
    bytes.readUInt32LE(12),
    bytes.readBigUInt64LE(16),
  ];
  need(bodyBytes >= 1 && bodyBytes <= CHUNK, "LIMIT", `a body of ${bodyBytes} bytes`);
  need(bytes.length >= 96 + bodyBytes, "TRUNCATED", "the piece ends within its body");
  need(bytes.length === 96 + bodyBytes, "TRAILING", "bytes follow the body of the piece");
  need(isInt(rawBytes, 1n, TIB), "FIELD", `an object of ${rawBytes} bytes`);
  const chunks = Math.ceil(Number(rawBytes) / CHUNK);
  need(index < chunks, "FIELD", `piece ${index} of an object of ${chunks} chunks`);
  const [object, name, body] = [bytes.subarray(32, 64), bytes.subarray(64, 96), bytes.subarray(96)];
  const base = name.every((byte) => byte === 0) ? null : name;
  if (kind === LIST) {
    need(encoding === 0 && base === null, "FIELD", "a list that is encoded");
    need(bodyBytes % 32 === 0, "FIELD", "a list that ends within a digest");
    need(index + bodyBytes / 32 <= chunks, "FIELD", "a list of more digests than chunks");
  }
  return { kind, object, raw_bytes: rawBytes, index, encoding, base, body };
}

/**
 * What decode gives, out of the head of a packet and pieces, one by one: of each object its list
 * first, all else in any order (P-92). The options are those of decode; the limit is that of the
 * objects that the head carries encoded and those of which pieces of a list are held. A piece is
 * not copied.
 */
export class Assembly {
  constructor(head, options = {}) {
    const { need: needed = [], limit = DECODED_LIMIT, bases = new Map() } = options;
    this.head = decode(head, { ...options, need: [] });
    this.needed = needed;
    this.left = BigInt(limit);
    this.carried = new Map();
    for (const { digest: name, encoding, raw_bytes: rawBytes } of this.head.envelope.index) {
      this.carried.set(hex(name), rawBytes);
      if (encoding !== 0n) this.left -= rawBytes;
    }
    this.bases = bases;
    this.parts = new Map();
  }

  /** Take a piece, or throw; a piece that is refused changes nothing but a list that is wrong. */
  add(buffer) {
    const piece = decodePiece(buffer);
    const name = hex(piece.object);
    this.needWanted(piece);
    const carried = this.carried.get(name) ?? piece.raw_bytes;
    need(carried === piece.raw_bytes, "FIELD", "a piece tells other raw bytes");
    if (this.carried.has(name)) return;
    const object = this.parts.get(name) ?? {
      digest: piece.object,
      rawBytes: piece.raw_bytes,
      digests: new Map(),
      list: null,
      chunks: new Map(),
    };
    need(object.rawBytes === piece.raw_bytes, "FIELD", "a piece tells other raw bytes");
    if (piece.kind === LIST) this.addList(piece, object, name);
    else this.addChunk(piece, object);
  }

  needWanted({ object, raw_bytes: rawBytes }) {
    const { manifest } = this.head;
    needNamed({ digest: object, raw_bytes: rawBytes }, manifest);
    const plan = manifest.plan.equals(object);
    need(!plan || rawBytes <= 96 + PLAN_LIMIT, "FIELD", `a plan of ${rawBytes} bytes`);
  }

  addList({ index, body }, object, name) {
    if (object.list) return;
    if (!this.parts.has(name)) {
      need(object.rawBytes <= this.left, "LIMIT", "the objects are above the limit");
      this.left -= object.rawBytes;
      this.parts.set(name, object);
    }
    const { digest: wanted, digests, rawBytes } = object;
    for (let at = 0; at < body.length; at += 32) {
      digests.set(index + at / 32, body.subarray(at, at + 32));
    }
    const count = Math.ceil(Number(rawBytes) / CHUNK);
    if (digests.size < count) return;
    const list = Array.from({ length: count }, (_, number) => digests.get(number));
    if (!digestOfChunks(rawBytes, list).equals(wanted)) {
      this.left += rawBytes;
      this.parts.delete(name);
      throw new PacketError("DIGEST", "the chunks are not those of the object");
    }
    object.list = list;
    digests.clear();
  }

  addChunk(piece, { digest: name, rawBytes, list, chunks }) {
    need(list, "FIELD", "a chunk came before the list of its object");
    if (chunks.has(piece.index)) return;
    const named = needsBase(piece.encoding, piece.body) ? piece.base : null;
    need(!named?.equals(name), "ENCODING", "an object is its own base");
    const at = piece.index * CHUNK;
    const base = named && this.bases.get(hex(named));
    const old = base ? asBuffer(base).subarray(at) : null;
    const size = Math.min(CHUNK, Number(rawBytes) - at);
    chunks.set(piece.index, provenChunk(piece, size, old, list[piece.index]));
  }

  /** What decode gives. An object of which pieces are missing is one that is not carried. */
  packet() {
    const objects = new Map(this.head.objects);
    for (const [name, { list, chunks }] of this.parts) {
      if (list && chunks.size === list.length)
        objects.set(name, Buffer.concat(list.map((_, index) => chunks.get(index))));
    }
    return { ...this.head, ...contentsOf(this.head.manifest, objects, this.needed) };
  }
}

/** An Assembly of all `pieces`; one that must be refused refuses them all. */
export function assemble(head, pieces, options = {}) {
  const assembly = new Assembly(head, options);
  for (const piece of pieces) assembly.add(piece);
  return assembly.packet();
}

// Command line: node decoder.mjs [--verify] [--held FILE]... FILE...

/** JSON of a value with BigInt (a number), bytes (hex) and Map (an object). */
function json(value) {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Uint8Array) return JSON.stringify(hex(value));
  if (Array.isArray(value)) return `[${value.map(json).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const entries = value instanceof Map ? [...value] : Object.entries(value);
  const members = entries.map(([key, item]) => `${JSON.stringify(String(key))}:${json(item)}`);
  return `{${members.join(",")}}`;
}

function* packetLines(file, bytes, options) {
  const { manifest, envelope, layers, signed, version } = decode(bytes, options);
  const { other, ...fields } = manifest;
  yield { file, version, signed, destination: envelope.destination, manifest: fields };
  for (const [layer, tensors] of Object.entries(layers)) {
    for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
      yield { file, layer, name, dtype, shape, blake3: blake3(bytes) };
    }
  }
}

function* fileLines(file, options) {
  const bytes = readFileSync(file);
  if (bytes.subarray(0, 4).equals(PIECE_MAGIC)) yield { file, ...decodePiece(bytes) };
  else yield* packetLines(file, bytes, options);
}

const tensorValues = (tensors) =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, t]) => [name, [t.dtype, t.shape, t.bytes]]),
  );

const pick = (record, ...names) => Object.fromEntries(names.map((name) => [name, record[name]]));

/** How a vector of each kind is read (section 13). */
const VECTORS = {
  layer: (bytes) => tensorValues(decodeLayer(bytes)),
  manifest: (bytes) => ({ version: digest(bytes), ...pick(decodeManifest(bytes), "claims") }),
  plan: (bytes) => pick(decodePlan(bytes), "names", "recipe", "laps"),
  envelope: (bytes) => pick(decodeEnvelope(bytes), "destination"),
  record: (bytes, args) => openRecord(bytes, args.domain, args.limit),
  chunk: (bytes, args) => {
    const base = args.base === undefined ? null : Buffer.from(args.base, "hex");
    return decodeChunk(args.encoding, bytes, args.raw_bytes, base);
  },
  digest: (_, args) => digest(Uint8Array.from({ length: args.raw_bytes }, (__, i) => i % 251)),
  packet: (bytes, args) => {
    const held = Object.entries(args.held ?? {});
    const bases = new Map(held.map(([name, object]) => [name, Buffer.from(object, "hex")]));
    const { manifest, envelope, layers, version } = decode(bytes, { verify: true, bases });
    const layer = layers[manifest.layers[args.layer ?? 0][1]];
    need(layer, "OBJECT", "the packet does not carry this layer");
    return { version, layer: tensorValues(layer), destination: envelope.destination };
  },
  piece: decodePiece,
};

function* vectorLines(file) {
  const { kind, hex: digits, args } = JSON.parse(readFileSync(file, "utf8"));
  if (!Object.hasOwn(VECTORS, kind)) throw new Error("this is no vector of section 13");
  const bytes = Buffer.concat([Buffer.from(digits, "hex"), Buffer.alloc(args.zeros ?? 0)]);
  yield { file, value: VECTORS[kind](bytes, args) };
}

/** Read a held packet, which may itself stand on those held before it; it prints no line. */
function hold(file, bases) {
  for (const [name, object] of decode(readFileSync(file), { bases }).objects)
    bases.set(name, object);
  return [];
}

/**
 * Print one JSON line for each packet, tensor and piece, or {file, fault}; a file *.json is a
 * vector. The objects of packets after --held may be the bases of others.
 */
function main(words) {
  const options = { verify: false, bases: new Map() };
  const [held, files] = [[], []];
  for (let at = 0; at < words.length; at++) {
    if (words[at] === "--verify") options.verify = true;
    else if (words[at] === "--held" && at + 1 < words.length) held.push(words[++at]);
    else files.push(words[at]);
  }
  let exitCode = 0;
  const print = (file, lines) => {
    try {
      for (const line of lines(file)) stdout.write(`${json(line)}\n`);
    } catch (error) {
      if (error instanceof PacketError) {
        stdout.write(`${json({ file, fault: error.fault, error: error.message })}\n`);
      } else {
        stderr.write(`${file}: ${error.message}\n`);
        exitCode = 1;
      }
    }
  };
  held.forEach((file) => print(file, (name) => hold(name, options.bases)));
  for (const file of files)
    print(file, (name) =>
      name.endsWith(".json") ? vectorLines(name) : fileLines(name, options),
    );
  return exitCode;
}

if (argv[1] && import.meta.url === pathToFileURL(argv[1]).href) {
  process.exitCode = main(argv.slice(2));
}
