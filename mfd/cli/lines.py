"""Files of one JSON value a line, of which a killed process may have left a part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["read_lines"]

Json = dict[str, Any]


def read_lines(path: Path) -> Iterator[Json]:
    """The lines of a metrics file up to the first that is not whole; none without a file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            return
        if not isinstance(found, dict):
            return
        yield found
