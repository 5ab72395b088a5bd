"""`--version`, the same for every command."""

from __future__ import annotations

from typing import Annotated

import typer

from mfd import __version__

__all__ = ["Version"]


def _tell(asked: bool) -> None:
    if asked:
        print(f"mfd {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_tell, is_eager=True, help="Say which one this is.")
]
