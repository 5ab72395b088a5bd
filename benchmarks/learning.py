r"""Every table on learning, a section a claim; each section is a script of its own beside this one.

    python benchmarks/learning.py                     which sections there are
    python benchmarks/learning.py memory --help       one of them
    python benchmarks/learning.py all                 one after the other, each as it is by default

Sets of data lie in ../shared/data or where a section's own flag says; a section that lacks its data
says so and is left out.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PREFIX = "learning_"


def sections() -> dict[str, str]:
    """Name of each section and the first line of what it says of itself."""
    told = {}
    for path in sorted(HERE.glob(f"{PREFIX}*.py")):
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        told[path.stem.removeprefix(PREFIX)] = first.strip('r"')
    return told


def run(section: str, argv: list[str]) -> None:
    """Run one section's `main`."""
    sys.path.insert(0, str(HERE))
    print(f"\n## learning.py {section}\n", flush=True)
    started = time.perf_counter()
    importlib.import_module(PREFIX + section).main(argv)
    print(f"\n{section}: {time.perf_counter() - started:.0f} s", flush=True)


def main(argv: list[str]) -> None:
    """Choose sections by name."""
    told = sections()
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        for name, line in told.items():
            print(f"  {name:10} {line}")
    elif argv[0] == "all":
        for name in told:
            run(name, [])
    elif argv[0] in told:
        run(argv[0], argv[1:])
    else:
        sys.exit(f"there is no section {argv[0]!r}; there are {', '.join(told)}")


if __name__ == "__main__":
    main(sys.argv[1:])
