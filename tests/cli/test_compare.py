"""mfd compare: real training in the simulator, written down, gone on with, reported."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfd.cli.comparing import (
    Cell,
    Order,
    Study,
    open_study,
    parse_seeds,
    read_config,
    read_lines,
    resolve,
)
from mfd.cli.contest import opened, uneven_samples
from mfd.cli.errors import Misuse
from mfd.cli.main import main
from mfd.cli.page import csv_text
from mfd.cli.view import hop_line

pytest.importorskip("torch", reason="comparing trains for real")
pytestmark = pytest.mark.skipif(
    find_spec("sklearn") is None, reason="the digits come with scikit-learn"
)

DIGITS = ("--data", "sklearn:digits?limit=240", "--topology", "line:3", "--skew", "0.5")
QUICK = (*DIGITS, "--recipe", "cnn:width=4", "--laps", "2", "--set", "epochs=1")

PLANS = ("snake", "fedavg=fedavg:laps=2", "centralised", "local")


def compare(folder: Path, *args: str) -> int:
    return main(["compare", *args, "--folder", str(folder), "--name", "a"])


def study_of(folder: Path) -> Study:
    return open_study(folder / "a")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plans that travel and two baselines, one seed."""
    folder = tmp_path_factory.mktemp("runs")
    assert compare(folder, *PLANS, *QUICK) == 0
    return folder


def test_every_plan_ends_with_its_totals_and_a_packet(done: Path) -> None:
    study = study_of(done)
    ends = {cell.label: study.outcome(cell) for cell in study.cells}
    snake, fedavg, pooled, local = (ends[k] for k in ("snake", "fedavg", "centralised", "local"))
    assert snake
    assert fedavg
    assert pooled
    assert local
    assert snake["objects_bytes"] < snake["links_bytes"]
    assert fedavg["objects_bytes"] > snake["objects_bytes"]
    assert sum(size for _, _, size in snake["by_link"]) == snake["links_bytes"]
    assert sum(snake["received"].values()) == snake["objects_bytes"]
    assert (local["links_bytes"], local["objects_bytes"]) == (0, 0)
    assert set(local["by_holder"]) == {"peer1", "peer2", "peer3"}
    for label, end in ends.items():
        assert end is not None
        assert end["samples"] == pytest.approx(2 * 240, rel=0.2), label
        for packet in end["packets"]:
            assert main(["packet", "verify", "--signed", str(done / "a" / packet)]) == 0


def test_centralised_pays_for_its_data(done: Path) -> None:
    """64 floats and a label of 8 bytes a sample; peer1 is home, peer3 two links away."""
    study = study_of(done)
    begin, *_, end = read_lines(study.metrics(Cell("centralised", 1)))
    samples = {name: peer["samples"] for name, peer in begin["peers"].items()}
    each = 64 * 4 + 8
    assert end["objects_bytes"] == each * (samples["peer2"] + samples["peer3"])
    assert end["links_bytes"] == each * (samples["peer2"] + 2 * samples["peer3"])


def test_held_out_accuracy_is_measured_after_every_lap(done: Path) -> None:
    study = study_of(done)
    for label, laps in (("snake", 2), ("fedavg", 2), ("centralised", 2), ("local", 2)):
        lines = list(read_lines(study.metrics(Cell(label, 1))))
        measured = [line for line in lines if line["kind"] == "measured"]
        assert [line["lap"] for line in measured] == list(range(1, laps + 1)), label
        assert measured[-1]["accuracy"] == pytest.approx(lines[-1]["accuracy"])
        for key in ("samples", "links_bytes", "objects_bytes", "second"):
            assert measured[0][key] <= measured[-1][key] <= lines[-1][key] * 1.000001, (label, key)


def results(folder: Path) -> list[Any]:
    """What must be the same in every run: all but the time that this machine took."""
    study = study_of(folder)
    ends = [dict(study.outcome(cell) or {}) for cell in study.cells]
    return [{k: v for k, v in end.items() if k != "cpu_seconds"} for end in ends]


def test_a_killed_comparison_goes_on_and_ends_as_if_nothing_had_been(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run is whole, one was cut in the middle of a line, one has not begun."""
    args = (*PLANS, *QUICK)
    assert compare(tmp_path, "snake", *QUICK) == 0
    whole = (tmp_path / "a/metrics/snake-1.jsonl").stat().st_mtime_ns
    text = (done / "a/metrics/fedavg-1.jsonl").read_bytes()
    (tmp_path / "a/metrics/fedavg-1.jsonl").write_bytes(text[: len(text) // 2])
    capsys.readouterr()
    assert compare(tmp_path, *args) == 0
    assert re.search(r"snake-1 .*\(known\)", capsys.readouterr().out)
    assert (tmp_path / "a/metrics/snake-1.jsonl").stat().st_mtime_ns == whole
    assert results(tmp_path) == results(done)
    for name in ("snake-1.mfd", "fedavg-1.mfd"):
        ours, theirs = (folder / "a/packets" / name for folder in (tmp_path, done))
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_resolved_config_runs_it_again(done: Path, tmp_path: Path) -> None:
    config = done / "a/compare.json"
    args = ["compare", "--config", str(config), "--folder", str(tmp_path), "--name", "a"]
    assert main([*args, "--jobs", "2"]) == 0
    assert results(tmp_path) == results(done)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"topology": "../../x.toml"}, "its topology is not topology.toml"),
        ({"plans": {"../../x": {"mode": "snake"}}}, r"'\.\./\.\./x' is no label of a plan"),
        ({"plans": {"a": 1}}, "its plans are not tables"),
        ({"seeds": ["../x"]}, "its seeds are not whole numbers"),
        ({"holders": 3}, "its holders are not names"),
        ({"data": None}, "one of data, test, partition, home is no text"),
        ({"data": "py:os:getcwd"}, "runs code of yours, py:os:getcwd: say so with --allow-py"),
        ({"test": "py:os:getcwd"}, "runs code of yours, py:os:getcwd: say so with --allow-py"),
        ({"public": "py:os:getcwd"}, "runs code of yours, py:os:getcwd: say so with --allow-py"),
        ({"public": 3}, "its public set is no address"),
        ({"resident": ["mlp"]}, "its residents are no recipes"),
    ],
)
def test_a_config_of_somebody_else_neither_leaves_its_folder_nor_runs_code(
    done: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    config = json.loads((done / "a/compare.json").read_text()) | change
    (theirs / "compare.json").write_text(json.dumps(config))
    (theirs / "topology.toml").write_bytes((done / "a/topology.toml").read_bytes())
    with pytest.raises(Misuse, match=words):
        read_config(theirs / "compare.json")
    if "py:" not in words:
        with pytest.raises(Misuse, match=words):
            open_study(theirs)


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "-x"])
def test_a_name_is_one_folder_below(name: str, tmp_path: Path) -> None:
    order = Order(["snake"], data="sklearn:digits")
    with pytest.raises(Misuse, match="letters, digits and"), opened(order, tmp_path, name, None):
        raise AssertionError("it was taken")


def test_plans_that_saw_unlike_numbers_of_samples_are_told() -> None:
    rows = [{"plan": "a", "samples": 1000.0}, {"plan": "b", "samples": 1040.0}]
    assert uneven_samples(rows) == uneven_samples([]) == ""
    told = uneven_samples([*rows, {"plan": "c", "samples": 1500.0}])
    assert "a from 1,000, c from 1,500" in told


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    text = csv_text(["node", "bytes"], [["=cmd()", -1], ["@x", 2.5], ["plain-1", 3]])
    assert text == "node,bytes\n'=cmd(),-1\n'@x,2.5\nplain-1,3\n"


class Links(HTMLParser):
    """Everything that a page could load, and all of its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [
            v or "" for k, v in attrs if k in ("href", "src", "srcset", "data", "action")
        ]


def test_the_report_is_one_file_that_loads_nothing(done: Path) -> None:
    html = (done / "a/report.html").read_text()
    page = Links()
    page.feed(html)
    assert page.found
    assert all(link.startswith("data:text/csv;base64,") for link in page.found)
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert "://" not in html.replace("&quot;", "")
    assert "@import" not in html
    assert "url(" not in html.replace("url(#tip)", "")
    assert "&plusmn;" not in html  # one seed has no spread
    assert "laps=" in html.partition("Plans</dt><dd>")[2].partition("</dd>")[0]
    assert ("of FedAvg's" in html) == ("fedavg" in html.partition("</h1>")[0])


def test_beside_every_plot_lies_a_csv_with_its_numbers(done: Path) -> None:
    html = (done / "a/report.html").read_text()
    names = re.findall(r'download="([^"]+)"', html)
    assert {n.partition("-")[0] for n in names} >= {"accuracy", "node", "layers", "route", "labels"}
    assert html.count("<figure") == len(names) == len(set(names))
    for name in names:
        with (done / "a/csv" / name).open(newline="") as file:
            rows = list(csv.reader(file))
        assert len(rows) > 1, name
        assert all(len(row) == len(rows[0]) for row in rows), name
    with (done / "a/csv/accuracy-links-bytes.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    last = [row for row in table if row["plan"] == "snake"][-1]
    end = study_of(done).outcome(Cell("snake", 1))
    assert end is not None
    assert float(last["accuracy"]) == pytest.approx(end["accuracy"])


def test_the_serpentine_shows_one_block_a_lap(tmp_path: Path) -> None:
    plan = "snake:full_laps=0,layers_per_stop=2,head=false,laps=3"
    assert compare(tmp_path, f"s={plan}", *QUICK) == 0
    with (tmp_path / "a/csv/layers-s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    blocks = [(int(r["layer_low"]), int(r["layer_high"])) for r in rows]
    assert blocks == [(0, 2)] * 3 + [(2, 4)] * 3 + [(4, 6)] * 3
    assert {r["node"] for r in rows} == {"peer1", "peer2", "peer3"}


def test_names_from_outside_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    graph = tmp_path / "g.toml"
    nasty = "<script>alert(1)</script>"
    graph.write_text(f'[nodes."{nasty}"]\n[nodes.b]\n[[edges]]\na = "{nasty}"\nb = "b"\n')
    args = ("--data", "sklearn:iris", "--topology", str(graph), "--laps", "1", "--set", "epochs=1")
    assert compare(tmp_path, "walk", *args) == 0
    html = (tmp_path / "a/report.html").read_text()
    assert nasty not in html
    assert "&lt;script&gt;" in html


def test_another_comparison_is_not_mixed_in(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(done, "snake", *QUICK[:-6], "--laps", "2", "--set", "epochs=1") == 2
    assert "has another plan 'snake': call this one LABEL=PLAN" in capsys.readouterr().err
    assert compare(done, "snake", "--data", "sklearn:wine", "--topology", "line:3") == 2
    assert "holds a comparison with data 'sklearn:digits?limit=240" in capsys.readouterr().err
    assert compare(done, "snake", *QUICK[:2], "--topology", "ring:4", *QUICK[4:]) == 2


def test_the_data_tells_of_its_classes_whatever_the_test_set_does() -> None:
    order = Order(
        ["snake:replay=0.5"],
        "sklearn:iris?split=train&tell=classes",
        test="sklearn:iris?split=test",
    )
    (plan,) = resolve(order)[0]["plans"].values()
    assert plan["learn"]["replay"] == 0.5


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["snake"], "say what is learned"),
        (["--data", "sklearn:digits"], "say what is compared"),
        (["snake", "--data", "sklearn:digit"], "no set 'digit'"),
        (["snale", "--data", "sklearn:iris"], "did you mean 'snake'?"),
        (["snake:epoch=3", "--data", "sklearn:iris"], "did you mean 'epochs'?"),
        (["snake:epochs=1,lasp=2", "--data", "sklearn:iris"], "did you mean 'laps'?"),
        (
            ["a=walk", "--data", "sklearn:digits", "--recipe", "vgg11"],
            "plan a: vgg11 does not take samples of shape 1x8x8 (sklearn:digits?split=train): it "
            "takes pictures from 1x32x32 on; what does is cnn:inputs=1x8x8,classes=10",
        ),
        (
            ["walk", "--data", "sklearn:digits", "--set", "scales=1:2"],
            "it has no blocks that could be left out without exits=true",
        ),
        (
            ["distill", "--data", "sklearn:digits", "--resident", "prototypes:width=8"],
            "--resident: prototypes is no model but what peers share",
        ),
        (["a=snake", "a=walk", "--data", "sklearn:iris"], "two plans are called 'a'"),
        (["snake", "--data", "sklearn:iris", "--topology", "rind:5"], "no topology 'rind'"),
        (["snake", "--data", "sklearn:iris", "--partition", "odd=1"], "write one of skew"),
        (["a=snake:seconds=2", "--data", "sklearn:iris"], "plan a: seconds end a stop by this"),
        (["a=snake:replay=1", "--data", "sklearn:iris"], "add tell=classes to the address of"),
        (["centralised:replay=1", "--data", "sklearn:iris"], "of mode centralised: leave it out"),
        (["snake", "--data", "sklearn:iris", "--set", "seconds=1"], "no run would be like another"),
        (["distill", "--data", "sklearn:iris"], "teaches models of the holders: say which"),
        (
            ["distill:share=logits", "--data", "sklearn:iris", "--resident", "mlp"],
            "a plan shares on a public set: say which, --public ADDRESS",
        ),
        (
            [
                "distill:public=d/public",
                "--data",
                "sklearn:iris",
                "--resident",
                "mlp",
                "--public",
                "sklearn:wine",
            ],
            "--public sklearn:wine: its samples have the shape [13], those of the data [4]",
        ),
        (
            [
                "distill:share=logits",
                "--data",
                "sklearn:iris",
                "--resident",
                "mlp",
                "--public",
                "sklearn:iris?split=all",
            ],
            "30 of its samples are held out for measuring, too",
        ),
        (
            [
                "distill:share=prototypes",
                "--data",
                "sklearn:iris",
                "--resident",
                "mlp",
                "--resident",
                "mlp:hidden=8x",
            ],
            "have heads of one width, these have 8 and 64",
        ),
        (["distill:scales=0.5", "--data", "sklearn:iris", "--resident", "mlp"], "leave scales out"),
        (["walk:order=stop", "--data", "sklearn:iris"], "order is for plans of mode snake, which"),
        (["alone", "--data", "sklearn:iris"], "teaches models of the holders: say which"),
        (["walk", "--data", "sklearn:iris?part=1/2"], "says part, and a comparison deals the data"),
        (["walk", "--data", "sklearn:iris?skew=1"], "says skew, and a comparison deals the data"),
        (["walk", "--data", "sklearn:iris", "--test", "sklearn:iris"], "is what is learned: give"),
        (
            ["snake", "--data", "sklearn:iris", "--partition", "shard=2", "--skew", "1"],
            "--skew 1 and --partition shard=2 deal out the data: give one",
        ),
        (["snake", "--data", "sklearn:iris", "--partition", "shard=x"], "shard is a whole number"),
        (["snake", "--data", "sklearn:iris", "--seed", "3-1"], "write 1,2,3 or 1-3"),
        (["nowhere.toml", "--data", "sklearn:iris"], "plan nowhere.toml cannot be read"),
        (["snake", "--data", "sklearn:iris", "--samples-per-s", "0"], "numbers above 0"),
        (["snake", "--data", "sklearn:iris?split=all"], "say with --test what is held out"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(
    args: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *args, "--folder", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_two_at_once_in_one_folder_are_refused(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (done / "a").glob("*.json")}
    descriptor = os.open(done / "a" / "lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        capsys.readouterr()
        assert compare(done, "walk", *QUICK) == 2
    finally:
        os.close(descriptor)
    said = capsys.readouterr().err
    assert f"in use by another mfd compare (process {os.getpid()})" in said
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in (done / "a").glob("*.json")} == before


def test_a_plan_that_teaches_residents_is_compared_too(tmp_path: Path) -> None:
    args = (*QUICK, "--resident", "mlp")
    plans = ("distill=distill:laps=1,epochs=6", "walk=walk:laps=1")
    assert compare(tmp_path, *plans, *args) == 0
    study = study_of(tmp_path)
    taught, plain = (study.outcome(Cell(k, 1)) for k in ("distill", "walk"))
    assert taught
    assert plain
    assert set(taught["residents"]) == {"peer1", "peer2", "peer3"}
    each = taught["residents"].values()
    assert taught["residents_accuracy"] == pytest.approx(sum(each) / 3)
    assert sum(each) / 3 > 0.2  # of ten labels: they have learned something
    assert "residents" not in plain
    fitted = {"zoo": "mlp", "inputs": [1, 8, 8], "classes": 10}
    assert study.config["resident"] == fitted
    assert "proxy" in (tmp_path / "a/report.html").read_text()


def test_plans_that_share_no_model_are_judged_by_the_residents(tmp_path: Path) -> None:
    """Unlike residents, alone and taught by answers to one part more of the data."""
    args = (*QUICK, "--resident", "mlp", "--resident", "cnn:width=4", "--public", "part")
    plans = ("l=distill:share=logits", "p=distill:share=prototypes", "alone")
    assert compare(tmp_path, *plans, *args, "--flops", "1e6") == 0
    study = study_of(tmp_path)
    logits, prototypes, alone = (study.outcome(Cell(k, 1)) for k in ("l", "p", "alone"))
    assert logits
    assert prototypes
    assert alone
    for end in (logits, prototypes):
        assert set(end["residents"]) == {"peer1", "peer2", "peer3"}
        assert end["accuracy"] == end["residents_accuracy"]
        assert 0 < end["objects_bytes"] < 60_000  # a resident weighs more than all of it
    assert alone["objects_bytes"] == 0
    assert alone["residents"].keys() == logits["residents"].keys()
    assert alone["samples"] == pytest.approx(logits["samples"], rel=0.2)
    begin, *lines, _ = read_lines(study.metrics(Cell("l", 1)))
    recipe = begin["plan"]["recipe"]
    held = sum(peer["samples"] for peer in begin["peers"].values())
    assert recipe == {"zoo": "logits", "samples": 240 - held, "classes": 10}
    last = [line for line in lines if line["kind"] == "measured"][-1]
    assert last["accuracy"] == pytest.approx(logits["accuracy"])
    # an MLP and two small CNNs: time is that of what learns, not of the table
    trained = [w for w in lines if w["kind"] == "work" and w["task"] == "train"]
    by_peer = {w["peer"]: w["seconds"] / w["samples"] for w in trained}
    assert by_peer["peer1"] == pytest.approx(by_peer["peer3"], rel=0.3)  # MLPs
    assert by_peer["peer2"] > 2 * by_peer["peer1"] > 0
    before = results(tmp_path)
    (tmp_path / "a/metrics/p-1.jsonl").unlink()
    assert compare(tmp_path, *plans, *args, "--flops", "1e6") == 0
    assert results(tmp_path) == before
    state = {w["peer"]: w["state_bytes"] for w in trained}
    assert state["peer1"] > 5 * 4 * (64 * 64 + 64 * 64)  # the resident, its copy, gradients, Adam


def test_adapters_learn_by_blocks_and_their_base_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a model of Hugging Face that has learned before: its values are where all plans start."""
    pytest.importorskip("peft", reason="adapters are peft's")
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 1, "vocab_size": 256, "n_positions": 16}
    made: Any = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    made.save_pretrained(tmp_path / "gpt")
    text = tmp_path / "t.txt"
    text.write_text("the model travels in packets, toward the data; " * 60)
    plan = "laps = 2\n[learn]\nsteps = 1\n"
    lora = '[recipe.lora]\nr = 2\ntargets = ["c_attn"]\n'
    for mode, blocks in (("snake", "layers_per_stop = 1\n"), ("centralised", "")):
        (tmp_path / f"{mode}.toml").write_text(f'mode = "{mode}"\n{blocks}{plan}{lora}')
    plans = [str(tmp_path / f"{mode}.toml") for mode in ("snake", "centralised")]
    data = ("--data", f"text:{text}?length=8", "--topology", "line:2")
    args = (*plans, "walk:laps=1,steps=1", *data, "--hf", str(tmp_path / "gpt"))
    assert compare(tmp_path, *args) == 0
    study = study_of(tmp_path)
    trained = [
        work["trained"]
        for work in read_lines(study.metrics(Cell("snake", 1)))
        if work["kind"] == "work" and work["task"] == "train"
    ]
    assert trained == [[[4, 6]]] * 4  # layers 0 to 3 are the base
    before = made.state_dict()["transformer.h.0.mlp.c_fc.weight"].numpy()
    for label in ("snake", "centralised"):
        packet = packet_of(tmp_path / f"a/packets/{label}-1.mfd")
        (after,) = [
            tensor.array()
            for layer in range(4)
            for key, tensor in packet.layer(layer).items()
            if key.endswith("h.0.mlp.c_fc.weight")
        ]
        assert (after == before).all()  # it was there, and has not learned
    full = packet_of(tmp_path / "a/packets/walk_laps_1_steps_1-1.mfd").layer(1)
    moved = abs(full["transformer.h.0.mlp.c_fc.weight"].array() - before)
    assert 0 < moved.max() < 0.01
    made.transformer.wpe.weight.data.mul_(2)
    made.save_pretrained(tmp_path / "gpt")
    assert compare(tmp_path, *args) == 2
    assert "holds a comparison with hf" in capsys.readouterr().err


def packet_of(path: Path) -> Any:
    from mfd.packet import decode

    return decode(path.read_bytes())


def test_lists_are_written_inline_and_baselines_are_as_well_off() -> None:
    plans = ["a=snake:scales=0.5,0.5:2,laps=3", "fedavg", "local", "centralised"]
    order = Order(
        plans, "sklearn:digits", recipe="cnn:exits=true,norm=fours", sets=["steps=24", "replay=0"]
    )
    tables = resolve(order)[0]["plans"]
    assert tables["a"]["scales"] == ["0.5", "0.5:2"]
    assert tables["a"]["laps"] == 3
    # 6 laps of 24 steps, and 12 rounds of 12
    assert tables["fedavg"]["learn"]["steps"] * tables["fedavg"]["laps"] == 6 * 24
    for table in tables.values():
        assert table["learn"].get("logit_adjustment", 1.0) == 1.0


def test_a_run_that_fails_is_told_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Learning that explodes at every holder."""
    wild = tmp_path / "wild.toml"
    wild.write_text('mode = "walk"\n[learn]\noptimizer = "sgd"\nlr = 100.0\nclip = 0.0\n')
    args = ("--data", "sklearn:iris", "--topology", "line:2", "--laps", "1", "--set", "epochs=1")
    assert compare(tmp_path, str(wild), "walk", *args) == 1
    told = capsys.readouterr()
    assert "could not learn" in told.err
    assert re.search(r"walk-1 +accuracy", told.out)
    assert "wild-1: failed: " in (tmp_path / "a/report.html").read_text()


def test_the_device_model_decides_the_time(tmp_path: Path) -> None:
    order = Order(["centralised"], "sklearn:iris", topology="line:1", laps=1, sets=["epochs=2"])
    seconds = {}
    for name, device in (("slow", {"samples_per_s": 100.0}), ("work", {"flops": 1e6})):
        config, graph = resolve(order)
        config["device"] |= device
        study = open_study(tmp_path / name, config, graph)
        from mfd.cli.cells import run_cell

        seconds[name] = run_cell(study, Cell("centralised", 1))["second"]
        begin = next(read_lines(study.metrics(Cell("centralised", 1))))
    samples = 240  # two passes over 120 flowers
    assert seconds["slow"] == pytest.approx(samples / 100, rel=0.1)
    # 4-64-64-3: a multiplication and an addition for each weight
    assert sum(begin["flops"]) == 2 * (4 * 64 + 64 * 64 + 64 * 3)
    assert seconds["work"] == pytest.approx(3 * samples * sum(begin["flops"]) / 1e6, rel=0.1)


def test_seeds_as_people_write_them() -> None:
    assert parse_seeds("1,2,5") == [1, 2, 5]
    assert parse_seeds("2-4,4,9") == [2, 3, 4, 9]
    with pytest.raises(Misuse):
        parse_seeds("a")


def test_data_show_prints_and_draws_the_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "split.svg"
    args = ["data", "show", "sklearn:digits", "--parts", "4", "--partition", "shard=5"]
    assert main([*args, "--json", "--out", str(picture)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [len(row["labels"]) for row in rows] == [5, 5, 5, 5]
    assert sum(row["samples"] for row in rows) == 1438
    assert picture.read_text().startswith("<svg xmlns=")
    assert main([*args, "--out", str(picture)]) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"{picture}: 4 parts\n")
    assert "4/4" in said
    assert "10 classes\n" in said
    assert main(["data", "show", "csv:nowhere.csv?label=a"]) == 1
    assert "no file 'nowhere.csv'" in capsys.readouterr().err


def test_a_play_is_dealt_out_by_role_and_nothing_held_out_is_learned(tmp_path: Path) -> None:
    letters = np.random.default_rng(1).choice(list("abcdefghij"), (180, 24))  # no line twice
    said = (f"{'ABC'[i % 3]}:\n{''.join(line)}.\n" for i, line in enumerate(letters))
    play = tmp_path / "play.txt"
    play.write_text("\n".join(said))
    order = Order(["walk"], f"text:{play}?length=16", partition="by=role", topology="line:3")
    config, _ = resolve(order)
    assert config["plans"]["walk"]["task"] == "language"
    from mfd.cli.comparing import part_address
    from mfd.learn.holdings import load

    parts = [load(part_address(config, i, 1)) for i in range(3)]
    learned = {row.tobytes() for part in parts for row in part.x}
    held_out = {row.tobytes() for row in load(config["test"]).x}
    assert learned.isdisjoint(held_out)
    assert len(held_out) == pytest.approx((len(learned) + len(held_out)) / 5, rel=0.1)
    args = ("--data", f"text:{play}?length=16", "--partition", "by=role", "--topology", "line:3")
    recipe = ("--recipe", "transformer:width=8,depth=1,heads=1", "--set", "epochs=1")
    assert compare(tmp_path, "walk", "local", *args, *recipe, "--laps", "1") == 0
    assert "perplexity" in (tmp_path / "a/report.html").read_text()


def test_weak_nodes_train_a_half_and_strong_ones_all(tmp_path: Path) -> None:
    """By memory at their nodes in the topology, and the history of the run says who did what."""
    from mfd.learn import Holding
    from mfd.learn.axes import scaled_recipe
    from mfd.learn.memory import need_of
    from mfd.learn.options import Options
    from mfd.learn.zoo import build
    from mfd.packet.extent import Scale

    recipe = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 8, "norm": "fours"}
    some = Holding(np.zeros((80, 1, 8, 8), np.float32), np.arange(80) % 10, 10)
    needs = [
        need_of(build(r), some, range(6), Options.of({})).total(1)
        for r in (scaled_recipe(recipe, Scale(0.5)), recipe)
    ]
    assert needs[0] < needs[1]
    graph = tmp_path / "graph.toml"
    weak = f"memory_bytes = {sum(needs) // 2}"
    nodes = "".join(f"[nodes.{n}]\n{weak if n == 'b' else ''}\n" for n in "abc")
    graph.write_text(f'{nodes}[[edges]]\na = "a"\nb = "b"\n[[edges]]\na = "b"\nb = "c"\n')
    plan = tmp_path / "part.toml"
    data = ("--data", "sklearn:digits?limit=240", "--topology", str(graph))
    model = ("--recipe", "cnn:width=8,norm=fours", "--set", "epochs=0.5")
    for mode in ("walk", "fedavg"):
        plan.write_text(f'mode = "{mode}"\nscales = ["0.5"]\nlaps = 1\n')
        study = tmp_path / mode
        args = [f"p={plan}", *data, *model]
        assert main(["compare", *args, "--folder", str(study), "--name", "a"]) == 0
        lines = list(read_lines(study_of(study).metrics(Cell("p", 1))))
        trained = {
            line["peer"]: line.get("width", 1.0)
            for line in lines
            if line["kind"] == "work" and line["trained"]
        }
        assert trained == {"a": 1.0, "b": 0.5, "c": 1.0}
        stops = [line for line in lines if line["kind"] == "stop"]
        told = [hop_line(stop) or "" for stop in stops]
        if mode == "fedavg":
            assert [line.startswith("3 clients, 1 of them a part") for line in told] == [True]
        else:
            half = {stop["peer"]: line.endswith("trained as width 0.5") for stop, line in
                    zip(stops, told, strict=True)}  # fmt: skip
            assert half == {"a": False, "b": True, "c": False}
