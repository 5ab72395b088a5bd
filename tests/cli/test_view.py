"""Lines that people read."""

from __future__ import annotations

import io

import pytest

from mfd.cli import reading
from mfd.cli.peer import _printer
from mfd.cli.view import brief, console, data_size, hop_line, print_table, report_line, span

PEER = "ab" * 32


def _plain(report: dict[str, object]) -> str:
    out = io.StringIO()
    console(out).print(report_line(report), soft_wrap=True)
    return out.getvalue()


def test_a_stop_is_one_line_with_what_matters() -> None:
    line = hop_line(
        {
            "kind": "stop",
            "peer": PEER,
            "lap": 1,
            "laps": 6,
            "layers": "2:4+5:6",
            "loss_before": 2.25,
            "loss": None,  # it diverged
            "came_bytes": 2048,
            "samples": 480.0,
            "seconds": 1.26,
        }
    )
    assert line is not None
    for part in ("abababab", "1/6", "2:4+5:6", "2.2500 -> -", "2.0 KiB", "480 samples", "1.3 s"):
        assert part in line


def test_a_stop_tells_what_part_of_the_model_was_trained() -> None:
    """A peer with little memory trains a version inside the model, and says which."""
    stop = {"kind": "stop", "peer": PEER, "lap": 1, "laps": 2, "seconds": 1.0}
    line = hop_line({**stop, "width": 0.5, "depth": 3.0, "bits": 8.0})
    assert line is not None
    assert line.endswith(" samples in 1.0 s  trained as width 0.5, depth 3, bits 8")
    assert str(hop_line({**stop, "width": 0.25})).endswith("  trained as width 0.25")
    for whole in ({}, {"width": 1.0, "depth": 0.0, "bits": 0.0}, {"width": "0.5"}):
        assert "trained as" not in str(hop_line({**stop, **whole}))
    assert "trained as width 0.5" in _plain({**stop, "width": 0.5})
    assert str(hop_line({**stop, "replayed": 3.0})).endswith("s  draws of 3 classes")
    assert str(hop_line({**stop, "replayed": 0.0})).endswith("no classes told of, so no draws")


def test_a_merge_tells_whom_with_which_weight_and_who_was_left_out() -> None:
    told = {"kind": "merged", "peer": PEER, "own": 0.5, "with": "3f2a91c0 version 7 (weight 0.50)"}
    line = hop_line(told)
    assert line == "abababab  itself (weight 0.50) with 3f2a91c0 version 7 (weight 0.50)"
    out = "77aa0011: its loss on the data here is worse"
    assert hop_line({**told, "left_out": out}) == f"{line}; left out: {out}"
    assert hop_line({**told, "with": "", "left_out": out}) == (
        f"abababab  with nobody; left out: {out}"
    )
    skipped = "lap 2 ends after 3 of 5 holders: the others stay away"
    assert hop_line({"kind": "skipped", "reason": skipped}) == skipped
    arrived = {"kind": "arrived", "stops": 8, "seq": 9, "siblings": 3}
    assert hop_line(arrived) == "home after 8 stops, version 9, with what 3 siblings have learned"


def test_numbers_stand_to_the_right_and_names_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ("12ab34cd", "10.0.0.1:7", "0.25 ms", "3/12"),
        ("5e6f7081", "10.0.0.10:70", "10 ms", "9"),
    ]
    print_table(("peer", "address", "cost", "n"), rows, "")
    assert capsys.readouterr().out.splitlines() == [
        "peer      address          cost     n",
        "12ab34cd  10.0.0.1:7    0.25 ms  3/12",
        "5e6f7081  10.0.0.10:70    10 ms     9",
    ]


def test_a_long_join_line_is_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    long = f"mfd://a-host-with-a-long-name.example:47621/{'12' * 32}?network=mfd"
    link = {"peer": "12" * 32, "address": long, "active": False, "outbound": True, "cost": 100}
    drop = {"peer": "12" * 32, "address": long, "ago_us": 10, "reason": "no"}
    told = {"known": [], "dropped": [drop], "unreachable": {}}

    class Peer:
        def get(self, _: str) -> dict[str, object]:
            return {"peers": [{**link, "silent_us": 200_000}], "members": told}

    reading.peers(Peer(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(
        "12121212  a-host-with-a-long-name.example:47621 (no neighbour yet)  "
    )
    assert lines[5].startswith("12121212  a-host-with-a-long-name.example:47621  ")


@pytest.mark.parametrize(
    "kind", ["stop", "merged", "skipped", "measured", "chosen", "handed", "arrived", "news"]
)
def test_reports_with_missing_fields_still_make_a_line(kind: str) -> None:
    assert kind in _plain({"kind": kind})
    assert _plain({"kind": kind}).count("\n") == 1


def test_text_of_strangers_cannot_steer_the_terminal() -> None:
    for kind in ("chosen", "refused", "stop"):
        said = _plain({"kind": kind, "reason": "\x1b[2J\nx", "layers": "\x1b]0;x\x07"})
        assert "\x1b" not in said
        assert said.count("\n") == 1
    assert "[red]" in _plain({"kind": "refused", "reason": "[red]x"})  # markup is text


def test_tables_in_a_pipe_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [("x" * 120, 1), ("[b]", 22)], "none")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "x" * 120 in lines[1]
    assert "[b]" in lines[2]
    print_table(("a",), [], "nothing here")
    assert capsys.readouterr().out == "nothing here\n"


def test_sizes_and_spans() -> None:
    assert [data_size(n) for n in (0, 1023, 1024, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "3.0 GiB",
    ]
    assert [span(s) for s in (1, 90, 7200, 2e5)] == ["1.0 s", "1.5 min", "2.0 h", "2.3 d"]
    assert (brief(PEER), brief("not an id at all")) == ("abababab", "not an id at all")


def test_a_table_shows_names_of_strangers_without_what_moves_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Names of tensors, layers and nodes come from files that others made."""
    print_table(("layer", "bytes"), [("\x1b[2Jevil\a", "7"), ("good", "8")], "none")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "?[2Jevil?" in out
    assert "good" in out


def test_a_peer_that_several_walkers_pass_tells_of_which_it_speaks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = _printer(json_lines=False)
    reason = {"peer": "b" * 64, "reason": "0 of 1 holders of x are known", "seq": 0}
    show({"n": 1, "at": 0, "kind": "parked", "walker": "a" * 64, **reason})
    show({"n": 2, "at": 0, "kind": "linked", "peer": "c" * 64, "address": "mfd://h:1/cc?network=x"})
    parked, linked = capsys.readouterr().out.splitlines()
    assert parked.endswith("aaaaaaaa parked          at bbbbbbbb: 0 of 1 holders of x are known")
    assert linked.endswith("linked          peer=cccccccc  address=h:1")
