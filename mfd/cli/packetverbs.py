"""`mfd packet`: what can be done with packet files.

Rules of this file: flags and their help only, as in main.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["packet_app"]

packet_app = typer.Typer(no_args_is_help=True, help="Look into packet files (.mfd).")

File = Annotated[Path, typer.Argument(help="Packet file (.mfd).")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@packet_app.command("inspect")
def packet_inspect(file: File, as_json: Json = False) -> None:
    """Show what a packet says of itself."""
    from mfd.cli import packets

    packets.inspect(file, as_json=as_json)


Base = Annotated[Path | None, typer.Option(help="Packet file upon whose layers another may build.")]


@packet_app.command("verify")
def packet_verify(
    file: File,
    base: Base = None,
    signed: Annotated[
        bool, typer.Option("--signed", help="Refuse a packet that nobody signed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check content chunk by chunk, and the signature; exit code 1 if anything is wrong."""
    from mfd.cli import damage

    damage.verify_file(file, base=base, signed_only=signed, as_json=as_json)


@packet_app.command("convert")
def packet_convert(
    source: Annotated[Path, typer.Argument(help="File to read: .mfd or .safetensors.")],
    out: Annotated[Path, typer.Argument(help="File to write: .mfd or .safetensors.")],
    encoding: Annotated[
        str | None,
        typer.Option(help="raw, planes (default), delta, int8, int4, sign, sparse, or auto."),
    ] = None,
    base: Base = None,
    link: Annotated[
        str | None, typer.Option(help="For auto: the speed of the link, as 100Mbit/s.")
    ] = None,
    one_layer: Annotated[
        bool, typer.Option("--one-layer", help="From safetensors: do not cut into layers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a packet as safetensors, safetensors as a packet, or a packet encoded anew.

    Safetensors have names and no layers: blocks such as h.0 and h.1 become layers, with what lies
    before and after them.
    """
    from mfd.cli import packets

    packets.convert(
        source,
        out,
        encoding=encoding,
        base=base,
        link=link,
        one_layer=one_layer,
        as_json=as_json,
    )


@packet_app.command("diff")
def packet_diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="Packet file (.mfd).")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Packet file (.mfd).")],
    as_json: Json = False,
) -> None:
    """Show in which layers and tensors two packets differ, and what would travel."""
    from mfd.cli import differences

    differences.diff(first, second, as_json=as_json)


@packet_app.command("split")
def packet_split(
    file: File,
    by: Annotated[str | None, typer.Option(help="layer: one packet an object.")] = None,
    chunk_bytes: Annotated[
        int | None, typer.Option(min=1, help="Slices of so many bytes instead.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: beside the file.")] = None,
    as_json: Json = False,
) -> None:
    """Write a packet as several files; `mfd packet join` makes the same file of them again."""
    from mfd.cli import parts

    parts.split(file, by=by, slice_bytes=chunk_bytes, out=out, as_json=as_json)


@packet_app.command("join")
def packet_join(
    files: Annotated[list[Path], typer.Argument(help="All parts, in any order.")],
    out: Annotated[Path, typer.Option(help="File to write (.mfd).")],
    as_json: Json = False,
) -> None:
    """Make one packet of the files that `mfd packet split` wrote."""
    from mfd.cli import parts

    parts.join(files, out, as_json=as_json)
