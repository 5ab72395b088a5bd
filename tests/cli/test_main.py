"""What every command of `mfd` shares."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mfd import __version__
from mfd.cli.errors import EXIT_CODES
from mfd.cli.main import main
from mfd.cli.start import mfd, mfd_peer
from tests.cli.conftest import ENVIRONMENT

HEAVY = ("torch", "aiohttp", "asyncio", "networkx", "numpy", "pydantic", "cryptography")


def test_help_is_light_and_tells_the_exit_codes() -> None:
    script = (
        "import sys\nfrom mfd.cli.main import main\ncode = main(['--help'])\n"
        f"sys.exit(code or [m for m in {HEAVY!r} if m in sys.modules] or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert all(word in said for word in EXIT_CODES.split()[:8])
    for command in ("send", "get", "status", "peers", "routes", "trace", "layers", "demo"):
        assert f" {command} " in said


@pytest.mark.parametrize("start", [mfd, mfd_peer])
def test_the_version_is_told(
    start: Callable[[], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--version"])
    assert start() == 0
    assert capsys.readouterr().out == f"mfd {__version__}\n"


def test_ctrl_c_before_anything_is_loaded_is_one_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mfd.cli.start.import_module", interrupted)
    assert mfd() == 130
    assert capsys.readouterr().err == "mfd: stopped\n"


def test_a_client_verb_loads_no_server() -> None:
    script = (
        "import sys\nfrom mfd.cli.main import main\n"
        "code = main(['status', '--api', 'http://127.0.0.1:9'])\n"
        f"sys.exit([m for m in {HEAVY!r} if m in sys.modules] or code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("mfd: no peer answers at http://127.0.0.1:9")


def test_layers_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert main(["layers", "mlp:inputs=1x8x8,classes=10,hidden=32x16"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines()[1:4]] == ["fc1", "fc2", "head"]
    total = 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10
    assert f"{total} parameters" in said


def test_graphs_are_made_shown_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = str(tmp_path / "ring.toml")
    assert main(["topology", "make", "ring", "4", "--out", ring, "--port", "5000"]) == 0
    assert main(["topology", "check", ring]) == 0
    capsys.readouterr()
    assert main(["topology", "show", ring]) == 0
    said = capsys.readouterr().out
    assert "127.0.0.1:5003" in said
    assert said.count(" - peer") == 4
    islands = tmp_path / "islands.toml"
    islands.write_text("[nodes.a]\n[nodes.b]\n")
    assert main(["topology", "check", str(islands), "--no-addresses"]) == 1
    said = capsys.readouterr().out
    assert "2 islands" in said
    assert "address" not in said
    assert main(["topology", "make", "knot", "4", "--out", ring]) == 2
    assert main(["topology", "show", str(tmp_path / "none.toml")]) == 1
