"""`mfd data show`: what each part of a data set gets, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mfd.cli import charts
from mfd.cli.errors import CommandError, Misuse
from mfd.cli.saving import write_whole
from mfd.cli.view import data_size, print_json, print_table

__all__ = ["show"]

PLAIN = (  # the colours of a page, for a picture that stands alone
    "svg{--c0:#0067a5;--cell:#f1f3f4;background:#fff;font-family:sans-serif}text{font-size:13px}"
    "text.small{font-size:11px;fill:#5a656d}text.num{fill:#111}text.on{fill:#fff}.cell{fill:var(--cell)}"
)


def show(
    address: str, parts: int, *, partition: str, seed: int, out: Path | None, as_json: bool
) -> None:
    """Print samples and labels of every part. Raises: Misuse, CommandError."""
    from mfd.cli.dealing import part_address
    from mfd.learn.errors import HoldingError
    from mfd.learn.holdings import load, parse

    if out is not None and out.suffix.lower() != ".svg":
        raise Misuse(f"--out {out}: the picture ends in .svg")
    try:
        alone = parts == 1 and not partition
        if not alone and "part" in parse(address).options:
            raise Misuse(f"{address} names a part already: leave --parts out")
        config = {"data": address, "partition": partition, "holders": range(parts)}
        texts = [address] if alone else [part_address(config, i, seed) for i in range(parts)]
        found = [load(text, allow_py=True) for text in texts]
    except HoldingError as exc:
        raise CommandError(str(exc)) from exc
    rows: list[dict[str, Any]] = [
        {
            "part": f"{i}/{parts}",
            "samples": len(h.x),
            "shape": list(h.x.shape[1:]),
            "classes": h.classes,
            "raw_bytes": h.raw_bytes,
            "labels": h.labels(),
        }
        for i, h in enumerate(found, 1)
    ]
    names = [str(n) for n in range(found[0].classes)] if found[0].y.ndim == 1 else []
    if as_json:
        print_json(rows)
    else:
        table = [
            (
                row["part"],
                row["samples"],
                data_size(row["raw_bytes"]),
                *(row["labels"].get(n, "-") for n in names),
            )
            for row in rows
        ]
        shape = "x".join(map(str, rows[0]["shape"]))
        kinds = "classes" if names else "tokens to choose from"
        print(f"samples of {shape or 'one value'}, {found[0].classes} {kinds}\n")
        print_table(("part", "samples", "size", *names), table, "no parts")
    if out is not None:
        counts = [[r["labels"].get(n, 0) for n in names] or [r["samples"]] for r in rows]
        picture = charts.cells([r["part"] for r in rows], names or ["samples"], counts)
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="720" <style>{PLAIN}</style>'
        head, _, style = head.partition("<style>")
        body = picture.replace("<svg ", head, 1).replace(">", f"><style>{style}", 1)
        write_whole(out, [body.encode()])
        if not as_json:
            print(f"\n{out}: {len(rows)} part{'s' * (len(rows) != 1)}")
