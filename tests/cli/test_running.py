"""Settings become a peer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mfd.cli.client import Client
from mfd.cli.errors import CommandError, Misuse
from mfd.cli.running import default_state, settle_port
from tests.cli.conftest import RunningPeer


def test_a_free_port_is_chosen_once_and_names_the_state() -> None:
    chosen = settle_port("127.0.0.1:0")
    port = chosen.rpartition(":")[2]
    assert int(port) > 0
    assert settle_port(chosen) == chosen
    assert default_state(chosen, "") == Path("mfd-state") / port
    assert default_state(chosen, "lab/one") == Path("mfd-state/lab_one")
    with pytest.raises(Misuse, match="cannot be listened on: it is not this machine's"):
        settle_port("192.0.2.1:0")


def test_a_closed_network_with_tls_and_a_token(
    start: Callable[..., RunningPeer], tmp_path: Path
) -> None:
    (tmp_path / "mfd.toml").write_text(
        'listen = "0.0.0.0:0"\ntls = true\nnetwork = "lab"\n'
        'network_key_file = "net.key"\napi_token_file = "token"\n'
    )
    for name in ("net.key", "token"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(f"0123456789abcdef {name}\n")
    first = start("--config", "mfd.toml")
    told = first.told
    assert "0.0.0.0" not in told["join"] + told["status"]  # others cannot dial that
    assert told["join"].endswith(f"/{told['peer']}?network=lab")
    assert told["status"].startswith("https://127.0.0.1:")
    local = told["status"].removeprefix("https://").rstrip("/")
    second = start("--config", "mfd.toml", "--join", local)
    client = Client(first.api, tmp_path / "token")
    seen = [r for reports in _until_linked(client) for r in reports]
    assert seen[0]["peer"] == second.told["peer"]
    with pytest.raises(CommandError, match="API token"):
        Client(first.api).get("status")


def _until_linked(client: Client) -> list[list[dict[str, object]]]:
    found = []
    for reports in client.follow(""):
        found.append(reports)
        if any(report["kind"] == "linked" for report in reports):
            break
    return found
