#!/usr/bin/env node
// A decoder of MFD packets, written from packet.md alone. P-nn are the rules of that text.
//
//   import { decode } from "./decoder.mjs";
//   const { manifest, envelope, layers } = decode(bytes, { verify: true });
//
// Whatever the bytes, decode gives a value or throws a PacketError whose `fault` is a name of
// section 11.
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
const RAW = 0;
const PLANES = 1;
const DELTA = 2;
const ENCODINGS = [RAW, PLANES, DELTA];

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

const PLAN = [
  [0, "recipe", recipe],
  [2, "names", listOf(1, 64, NAME)],
  [4, "home", bytesOf(32)],
  [6, "mode", oneOf("snake", "walk", "fedavg")],
  [8, "task", text(1, 64)],
  [10, "verify", listOf(0, 64, NAME)],
  [12, "laps", int(1, 10000)],
  [14, "order", oneOf("lap", "stop")],
  [16, "layers_per_stop", int(1, 256)],
  [18, "head", boolean],
  [20, "full_laps", int(0, 10000)],
  [22, "min_holders", int(1, 65535)],
  [24, "seed", int(0, INT63)],
  [26, "learn", learn],
];

/** The fields of a plan (section 6), from the body of its record. */
export function decodePlan(bytes) {
  need(bytes.length <= PLAN_LIMIT, "LIMIT", "the plan is above 64 KiB");
  const plan = readHeader(asBuffer(bytes), "plan", PLAN);
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

/** Planes and tail of a PLANES or DELTA body, and what its first two bytes tell (P-42, P-43). */
function readPlanes(body, rawBytes) {
  need(body.length >= 4, "ENCODING", "the body is shorter than its head");
  const [width, code] = body;
  need([1, 2, 4, 8].includes(width), "ENCODING", `elements of ${width} bytes`);
  need(body.readUInt16LE(2) === 0, "ENCODING", "the head is not zero where it must be");
  let at = 4 + 4 * width;
  need(body.length >= at, "ENCODING", "the body is shorter than its head");
  const count = Math.floor(rawBytes / width);
  const planes = [];
  for (let i = 0; i < width; i++) {
    const head = body.readUInt32LE(4 + 4 * i);
    const plane = body.subarray(at, (at += head & 0x7fffffff));
    need(at <= body.length, "ENCODING", "a plane ends after the body");
    if (head >>> 31) planes.push(unpackPlane(plane, count));
    else need(planes.push(plane) && plane.length === count, "ENCODING", "a plane has another size");
  }
  const tail = body.subarray(at);
  need(tail.length === rawBytes - count * width, "ENCODING", "the tail has another size");
  return { width, code, planes, count, tail };
}

function decodePlanes(body, rawBytes) {
  const { width, code, planes, count, tail } = readPlanes(body, rawBytes);
  need(code === 0, "ENCODING", "the head is not zero where it must be");
  const raw = joinPlanes(planes, width, count);
  if (width > 1) rotateRight(raw, width);
  return Buffer.concat([raw, tail]);
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

function decodeDelta(body, rawBytes, base) {
  need(base, "BASE", "the base of a chunk is not at hand");
  const { width, code, planes, count, tail } = readPlanes(body, rawBytes);
  need(code === 1 || code === 2, "ENCODING", `code ${code} of a delta is not known`);
  const raw = joinPlanes(planes, width, count);
  const padded = Buffer.alloc(rawBytes);
  asBuffer(base).copy(padded);
  addBase(raw, padded, width, code === 2);
  return Buffer.concat([raw, tail]);
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
  return decodeDelta(asBuffer(body), rawBytes, base);
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

/** The fields of an envelope (section 8). */
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
  need(encoding !== DELTA || entry.base, "ENCODING", "a delta that names no base");
  const count = Number(entry.chunk_count);
  let at = upTo64(40 * count);
  need(at <= region.length, "TRUNCATED", "an object is shorter than its chunk table");
  needZeros(region, 40 * count, at);
  const rows = [];
  for (let i = 0; i < count; i++) {
    const head = region.subarray(40 * i, 40 * i + 40);
    needZeros(head, 33, 36);
    need(
      head[32] === RAW || head[32] === encoding,
      "ENCODING",
      "a chunk is not of its object's encoding",
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

/**
 * The raw content of an object, every chunk checked (P-62); no copy where it is raw (P-61).
 * `bases` are raw objects by digest in hex, against which deltas may be decoded.
 */
function objectBytes(region, entry, bases) {
  const rawBytes = Number(entry.raw_bytes);
  const rows = chunkRows(region, entry);
  const base = entry.base && bases.get(hex(entry.base));
  need(base || !entry.base, "BASE", "the base of an object is not at hand");
  const pieces = rows.map((chunk, index) => {
    const at = index * CHUNK;
    const old = base && asBuffer(base).subarray(at);
    const raw = decodeChunk(chunk.encoding, chunk.body, Math.min(CHUNK, rawBytes - at), old);
    need(
      Buffer.from(blake3(raw)).equals(chunk.digest),
      "DIGEST",
      `chunk ${index} has another digest`,
    );
    return raw;
  });
  if (entry.encoding !== 0n) return Buffer.concat(pieces);
  const begin = upTo64(40 * rows.length);
  return region.subarray(begin, begin + rawBytes);
}

function needNamed(entry, manifest) {
  const layer = manifest.layers.find(([, , name]) => name.equals(entry.digest));
  if (layer)
    need(
      layer[3] === entry.raw_bytes,
      "FIELD",
      "an object has other raw bytes than the manifest says",
    );
  else need(manifest.plan.equals(entry.digest), "FIELD", "the manifest does not name an object");
}

function packetHead(bytes) {
  need(bytes.length >= 4, "TRUNCATED", "the packet is shorter than its header");
  need(bytes.readUInt32BE(0) === 0x934d4644, "MAGIC", "this is no packet");
  need(bytes.length >= 16, "TRUNCATED", "the packet is shorter than its header");
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
 * A whole packet: {manifest, envelope, layers, planRecord, signed, version}. `layers` holds, as
 * {name: {tensor: {dtype, shape, bytes}}}, the layers that the packet carries; planRecord (for
 * openRecord and decodePlan) is null where it is not carried.
 *
 * verify: refuse a packet without a valid signature of its trainer (P-52).
 * need: names of layers that must be there (else OBJECT).
 * limit: bytes that encoded objects may decode to together (P-64).
 * bases: a Map of raw objects by digest in hex, against which deltas are decoded (P-63).
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
  const layers = Object.create(null);
  for (const [, name, layerDigest] of manifest.layers) {
    const object = objects.get(hex(layerDigest));
    need(object || !needed.includes(name), "OBJECT", `the packet does not carry layer ${name}`);
    if (object) layers[name] = decodeLayer(object);
  }
  const planRecord = objects.get(hex(manifest.plan)) ?? null;
  const signed = signature.length === 64;
  return { manifest, envelope, layers, planRecord, signed, version: digest(body) };
}

// Command line: node decoder.mjs [--verify] FILE...

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

function* packetLines(file, verify) {
  const { manifest, envelope, layers, signed, version } = decode(readFileSync(file), { verify });
  const { other, ...fields } = manifest;
  yield { file, version, signed, destination: envelope.destination, manifest: fields };
  for (const [layer, tensors] of Object.entries(layers)) {
    for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
      yield { file, layer, name, dtype, shape, blake3: blake3(bytes) };
    }
  }
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
    const { manifest, envelope, layers, version } = decode(bytes, { verify: true });
    const layer = layers[manifest.layers[args.layer ?? 0][1]];
    need(layer, "OBJECT", "the packet does not carry this layer");
    return { version, layer: tensorValues(layer), destination: envelope.destination };
  },
};

function* vectorLines(file) {
  const { kind, hex: digits, args } = JSON.parse(readFileSync(file, "utf8"));
  if (!Object.hasOwn(VECTORS, kind)) throw new Error("this is no vector of section 13");
  const bytes = Buffer.concat([Buffer.from(digits, "hex"), Buffer.alloc(args.zeros ?? 0)]);
  yield { file, value: VECTORS[kind](bytes, args) };
}

/** Print one JSON line for each packet and tensor, or {file, fault}; a file *.json is a vector. */
function main(words) {
  const verify = words.includes("--verify");
  let exitCode = 0;
  for (const file of words.filter((word) => word !== "--verify")) {
    try {
      for (const line of file.endsWith(".json") ? vectorLines(file) : packetLines(file, verify)) {
        stdout.write(`${json(line)}\n`);
      }
    } catch (error) {
      if (error instanceof PacketError) {
        stdout.write(`${json({ file, fault: error.fault, error: error.message })}\n`);
      } else {
        stderr.write(`${file}: ${error.message}\n`);
        exitCode = 1;
      }
    }
  }
  return exitCode;
}

if (argv[1] && import.meta.url === pathToFileURL(argv[1]).href) {
  process.exitCode = main(argv.slice(2));
}
