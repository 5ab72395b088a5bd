"""Unlike models teach each other: what changes, what stays, what leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mfd.learn import Cancelled, Holding, Learner, LearnError, zoo
from mfd.learn.resident import FILE, Resident
from mfd.packet.objects import unpack_layer
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.task import LayerRef, LearnResult, LearnTask
from tests.learn.conftest import CNN, packed, state_bytes

MLP: dict[str, Any] = {"zoo": "mlp", "inputs": [1, 8, 8], "classes": 10, "hidden": [32, 16]}
VIT: dict[str, Any] = {"zoo": "vit", "inputs": [1, 8, 8], "classes": 10, "width": 16, "heads": 2}
PLAN = Plan(recipe=CNN, names=("d",), home=bytes(32), mode="distill", laps=1, learn={"epochs": 0.5})
LOGITS = replace(
    PLAN,
    recipe={"zoo": "logits", "samples": 60, "classes": 10},
    learn={"epochs": 0.5, "share": "logits", "public": "public"},
)
PROTOTYPES = replace(
    PLAN,
    recipe={"zoo": "prototypes", "classes": 10, "width": 16},
    learn={"epochs": 0.5, "share": "prototypes"},
)


def part(pictures: Holding, labels: range) -> Holding:
    rows = np.isin(pictures.y, list(labels))
    return Holding(pictures.x[rows], pictures.y[rows], 10)


class Home:
    """A learner with a resident, and the walker that visits it."""

    def __init__(self, holdings: dict[str, Holding], plan: Plan = PLAN, **options: Any) -> None:
        self.learner = Learner(holdings, **options)
        self.plan = plan
        self.store: dict[bytes, bytes] = {}
        self.model = packed(zoo.init(plan.recipe, 1), self.store)
        self.written: list[bytes] = []

    def perform(self, kind: Any = "train", **fields: Any) -> LearnResult:
        def write(made: Any) -> None:
            self.store[made.digest] = made.tobytes()
            self.written.append(made.tobytes())

        fields = {"layers": self.model, "name": "d", "seed": 3, **fields}
        if kind == "train":
            fields.setdefault("trained", ((0, len(self.model)),))
        task = LearnTask(kind, encode_plan(self.plan), **fields)
        return self.learner.perform(task, self.store.__getitem__, write)

    def resident(self) -> dict[str, bytes]:
        assert self.learner.resident is not None
        return state_bytes(self.learner.resident.module)


def renew(model: tuple[LayerRef, ...], result: LearnResult) -> tuple[LayerRef, ...]:
    changed = {ref.index: ref for ref in result.layers}
    return tuple(changed.get(ref.index, ref) for ref in model)


def tensors(home: Home, result: LearnResult) -> dict[str, np.ndarray[Any, Any]]:
    return {
        key: tensor.array()
        for ref in renew(home.model, result)
        for key, tensor in unpack_layer(home.store[ref.digest]).items()
    }


@pytest.mark.parametrize("plan", [PLAN, LOGITS, PROTOTYPES], ids=["proxy", "logits", "prototypes"])
def test_the_walker_changes_in_its_packet_and_the_resident_at_home(
    pictures: Holding, plan: Plan
) -> None:
    """No bytes of data and none of the resident leave. Rules: W-22, W-23"""
    home = Home({"d": pictures, "public": part(pictures, range(3))}, plan, resident=MLP)
    before = home.resident()
    result = home.perform()
    assert [ref.name for ref in result.layers] == [ref.name for ref in home.model]
    after = home.resident()
    assert all(before[key] != after[key] for key in before)
    sent = b"".join(home.written)
    kept = [value for one in (before, after) for value in one.values()]
    kept += [row.tobytes() for row in pictures.x]
    assert not any(value[:32] in sent or value[-32:] in sent for value in kept)
    claims = result.claims
    assert set(claims) >= {"loss", "accuracy", "resident_accuracy", "resident_accuracy_before"}
    assert claims["resident_accuracy"] > claims["resident_accuracy_before"]
    assert claims["resident_lessons"] == 1


def test_each_learns_from_the_other(pictures: Holding) -> None:
    """A walker that knows all labels teaches a resident those that its own data lacks."""
    few = part(pictures, range(4))
    wise = Home({"d": pictures}, replace(PLAN, mode="walk", learn={"epochs": 20}))
    known = renew(wise.model, wise.perform())

    def taught(teach: float, epochs: int) -> tuple[float, float]:
        learn = {"epochs": epochs, "teach": teach, "public": "public", "batch": 16}
        plan = replace(PLAN, learn=learn)
        home = Home({"d": few, "public": pictures, "all": pictures}, plan, resident=MLP)
        home.store.update(wise.store)
        home.perform(layers=known)
        claims = home.perform("measure", layers=known, name="all").claims
        return claims["resident_accuracy"], claims["accuracy"]

    alone, _ = taught(0.0, 20)
    helped, proxy = taught(4.0, 60)
    assert alone < 0.45
    assert helped > 0.75
    assert proxy > 0.9, "measured is the walker, and beside it the resident"


def test_a_walker_that_only_guesses_teaches_nothing(pictures: Holding) -> None:
    one = Home({"d": pictures}, resident=MLP)
    other = Home({"d": pictures}, replace(PLAN, learn={**PLAN.learn, "teach": 0.0}), resident=MLP)
    assert one.perform().claims["loss_before"] > 2.3
    other.perform()
    assert one.resident() == other.resident()


def test_a_peer_without_resident_trains_the_proxy_alone(pictures: Holding) -> None:
    """Rules: W-22"""
    home = Home({"d": pictures})
    claims = home.perform().claims
    assert claims["loss"] < claims["loss_before"]
    assert "resident_accuracy" not in claims
    table = Home({"d": pictures, "public": pictures}, LOGITS)
    with pytest.raises(LearnError, match="logits are shared by resident models, and this peer has"):
        table.perform()


def test_the_resident_outlives_its_process(pictures: Holding, tmp_path: Path) -> None:
    """Rules: W-22"""
    first = Home({"d": pictures}, resident=MLP, folder=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr("os.getpid", lambda: 7)  # another process than the one that goes on
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):  # as if it were killed before the file is whole
            first.perform()
    assert len(list(tmp_path.iterdir())) == 1
    first.perform()
    second = Home({"d": pictures}, resident=MLP, folder=tmp_path)
    assert second.resident() == first.resident()
    assert second.perform().claims["resident_lessons"] == 2
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with pytest.raises(LearnError, match=r"resident.safetensors is .*mlp.*, and this peer is set"):
        Home({"d": pictures}, resident=VIT, folder=tmp_path).perform()
    (tmp_path / FILE).write_bytes(b"half a file")
    with pytest.raises(LearnError, match=r"resident.safetensors cannot be read"):
        Home({"d": pictures}, resident=MLP, folder=tmp_path).perform()


def test_a_lesson_cut_short_leaves_the_resident_as_it_was(
    pictures: Holding, tmp_path: Path
) -> None:
    """Rules: W-22"""
    home = Home({"d": pictures}, resident=MLP, folder=tmp_path)
    home.perform()
    before, file = home.resident(), (tmp_path / FILE).read_bytes()
    steps = iter([False] * 3 + [True] * 9)
    task = LearnTask("train", encode_plan(PLAN), home.model, name="d", trained=((0, 6),), seed=3)
    with pytest.raises(Cancelled):
        home.learner.perform(
            task, home.store.__getitem__, pytest.fail, cancelled=lambda: next(steps)
        )
    assert home.resident() == before
    wild = replace(PLAN, learn={"epochs": 1, "lr": 1e6, "optimizer": "sgd", "clip": 0.0})
    home.plan = wild
    with pytest.raises(LearnError, match=r"no longer finite|the loss is (nan|inf) after"):
        home.perform()
    assert home.resident() == before
    assert (tmp_path / FILE).read_bytes() == file


@pytest.mark.parametrize("plan", [LOGITS, PROTOTYPES], ids=["logits", "prototypes"])
@pytest.mark.parametrize(("values", "counts"), [(np.nan, 1), (0, np.inf), (0, -2), (0, np.nan)])
def test_a_table_that_nobody_can_have_filled_is_refused(
    pictures: Holding, plan: Plan, values: float, counts: float
) -> None:
    """Else it would pass from here on under this peer's signature, spoilt."""
    home = Home({"d": pictures, "public": Holding(pictures.x[:60], pictures.y[:60], 10)}, plan,
                resident=MLP)  # fmt: skip
    module = zoo.init(plan.recipe, 1)
    with torch.no_grad():
        module[0].values.fill_(values)
        module[0].counts.fill_(counts)
    home.model = packed(module, home.store)
    before = home.resident()
    with pytest.raises(LearnError, match="no opinion of anybody"):
        home.perform()
    assert home.resident() == before
    assert not home.written


def test_a_walker_cannot_undo_what_a_resident_knows(pictures: Holding) -> None:
    """Rules: W-22. Prototypes in the wrong places, taught with all the weight that a plan has."""
    home = Home({"d": pictures}, PROTOTYPES, resident=MLP)
    module = zoo.init(PROTOTYPES.recipe, 1)
    with torch.no_grad():
        module[0].values.normal_(generator=torch.Generator().manual_seed(1)).mul_(1e3)
        module[0].counts.fill_(100.0)
    home.model = packed(module, home.store)
    wild = {"teach": 1e6, "optimizer": "sgd", "lr": 5.0, "clip": 50.0}
    home.plan = replace(PROTOTYPES, learn={**PROTOTYPES.learn, **wild})
    before = home.resident()
    with pytest.raises(LearnError, match="far worse than a guess"):
        home.perform()
    assert home.resident() == before


def test_consensus_is_the_mean_opinion_of_a_lap(pictures: Holding) -> None:
    """Rules: W-23"""
    open_ = Holding(pictures.x[:60], pictures.y[:60], 10)
    plan = replace(LOGITS, laps=2)
    homes = [Home({"d": pictures, "public": open_}, plan, resident=r) for r in (MLP, VIT)]
    tables = []
    for stop in range(4):
        home = homes[stop % 2]
        if stop:
            home.model, _ = homes[stop - 1 & 1].model, home.store.update(homes[stop - 1 & 1].store)
        result = home.perform(journey=(stop / 4, (stop + 1) / 4))
        tables.append(tensors(home, result))
        home.model = renew(home.model, result)
    assert [float(t["logits.counts"][0]) for t in tables] == [1, 1.5, 1.75, 1.875]
    resident = homes[0].learner.resident
    assert resident is not None
    with torch.no_grad():
        own = torch.log_softmax(resident.module(torch.from_numpy(open_.x)), -1).numpy()
    mean = (0.75 * tables[1]["logits.values"] + own) / 1.75
    np.testing.assert_allclose(tables[2]["logits.values"], mean, rtol=1e-5, atol=1e-5)


def test_residents_follow_the_consensus(pictures: Holding) -> None:
    """Labels that are not here are learned from what others answer to the public set."""
    open_ = Holding(pictures.x[:60], pictures.y[:60], 10)
    says = torch.nn.functional.one_hot(torch.from_numpy(open_.y[:60].astype("int64")), 10) * 6.0
    found = []
    for teach in (0.0, 1.0):
        learn = {**LOGITS.learn, "epochs": 6, "lr": 0.01, "teach": teach}
        held = {"d": part(pictures, range(4)), "public": open_}
        home = Home(held, replace(LOGITS, learn=learn), resident=MLP)
        module = zoo.init(LOGITS.recipe, 1)
        with torch.no_grad():
            module[0].values.copy_(torch.log_softmax(says, -1))
            module[0].counts.fill_(3.0)
        home.model = packed(module, home.store)
        home.perform()
        assert home.learner.resident is not None
        with torch.no_grad():
            said = home.learner.resident.module(torch.from_numpy(open_.x)).argmax(-1)
        found.append(float((said == says.argmax(-1)).float().mean()))
    assert found[1] > found[0] + 0.2


def test_prototypes_are_means_of_what_the_head_is_given(pictures: Holding) -> None:
    """Rules: W-23"""
    few = part(pictures, range(4))
    home = Home({"d": few}, PROTOTYPES, resident=MLP)
    made = tensors(home, home.perform())
    assert made["prototypes.counts"].tolist() == [20, 20, 20, 20, 0, 0, 0, 0, 0, 0]
    assert not made["prototypes.values"][4:].any()
    resident = home.learner.resident
    assert resident is not None
    front = list(resident.module.children())[:-1]
    with torch.no_grad():
        seen = torch.nn.Sequential(*front)(torch.from_numpy(few.x)).numpy()
    for label in range(4):
        mean = seen[few.y == label].mean(0)
        np.testing.assert_allclose(made["prototypes.values"][label], mean, rtol=1e-4, atol=1e-5)


def test_prototypes_teach_a_head_labels_that_are_not_here(pictures: Holding) -> None:
    """The head answers right on the prototypes of labels that its peer has no samples of."""
    plan = replace(PROTOTYPES, learn={**PROTOTYPES.learn, "epochs": 20, "lr": 0.02})
    first = Home({"d": part(pictures, range(4, 10))}, plan, resident=MLP)
    told = first.perform()
    second = Home({"d": part(pictures, range(4))}, plan, resident=VIT)
    second.store.update(first.store)
    second.perform(layers=renew(first.model, told))
    values = torch.from_numpy(tensors(first, told)["prototypes.values"].copy())
    assert second.learner.resident is not None
    head = list(second.learner.resident.module.modules())[-1]
    with torch.no_grad():
        assert (head(values).argmax(-1)[4:] == torch.arange(4, 10)).all()


def test_embeddings_gather_around_the_prototypes_of_their_labels(pictures: Holding) -> None:
    """Not the head alone learns: what it is given comes nearer to the means that travel."""
    values = torch.randn(10, 16, generator=torch.Generator().manual_seed(2)).abs()
    apart = []
    for teach in (0.0, 2.0):
        learn = {**PROTOTYPES.learn, "epochs": 3, "lr": 0.01, "teach": teach}
        home = Home({"d": pictures}, replace(PROTOTYPES, learn=learn), resident=MLP)
        module = zoo.init(PROTOTYPES.recipe, 1)
        with torch.no_grad():
            module[0].values.copy_(values)
            module[0].counts.fill_(20.0)
        home.model = packed(module, home.store)
        home.perform()
        assert home.learner.resident is not None
        front = list(home.learner.resident.module.children())[:-1]
        with torch.no_grad():
            seen = torch.nn.Sequential(*front)(torch.from_numpy(pictures.x))
        wanted = values[torch.from_numpy(pictures.y.astype("int64"))]
        apart.append(float((seen - wanted).square().mean()))
    assert apart[1] < 0.9 * apart[0]


def test_what_does_not_fit_is_one_sentence(pictures: Holding) -> None:
    learn = PLAN.learn
    cases: list[tuple[dict[str, Any], str]] = [
        ({"learn": {**learn, "public": "public"}}, "public set: this peer does not hold 'public'"),
        ({"learn": {**learn, "share": "gossip"}}, "share is proxy, logits, prototypes, not 'gossi"),
        ({"learn": {**learn, "share": "logits"}}, "logits are shared on a public set: say public"),
        # private data, whatever a stranger's plan calls it
        ({"learn": {**LOGITS.learn, "public": "d"}}, "'d' is no public set: answers to private"),
        ({"learn": {**learn, "public": "public/d"}}, "'public/d' is no public set"),
        ({"learn": {**learn, "teach": "much"}}, "teach is a number from 0, not 'much'"),
        ({"learn": {**learn, "theach": 1.0}}, "plan.learn has no 'theach'"),
        ({"learn": {**learn, "precision": "bf16"}}, "precision is not for plans of mode distill"),
        ({"learn": {**learn, "carry": True}}, "carry is not for plans of mode distill"),
        (
            {"learn": {**learn, "public": "odd/public"}},
            r"'odd/public' has samples of shape \[4\], 'd' of",
        ),
        ({"learn": PROTOTYPES.learn}, "a plan that shares prototypes has the recipe prototypes"),
        (
            {"learn": {**LOGITS.learn, "public": "d/public"}, "recipe": LOGITS.recipe},
            r"answers of shape \[60, 10\], but the public set has 200 samples",
        ),
        (
            {"learn": PROTOTYPES.learn, "recipe": {**PROTOTYPES.recipe, "width": 8}},
            r"prototypes of \[10, 8\], the resident model's head takes 16 values",
        ),
    ]
    odd = Holding(np.zeros((9, 4), np.float32), np.zeros(9, np.int64), 10)
    held = {"d": pictures, "odd/public": odd, "d/public": pictures}
    for changes, words in cases:
        home = Home(held, replace(PLAN, **changes), resident=MLP)
        with pytest.raises(LearnError, match=words):
            home.perform()
    with pytest.raises(LearnError, match="the resident model: no recipe 'gnn' in the zoo"):
        Home({"d": pictures}, resident={"zoo": "gnn"}).perform()
    with pytest.raises(LearnError, match="resident model: logits is what walkers bring, not a mo"):
        Home({"d": pictures}, resident=LOGITS.recipe).perform()
    with pytest.raises(LearnError, match="the resident model does not fit this peer's data"):
        Home({"d": pictures}, resident={**MLP, "inputs": [3]}).perform()
    with pytest.raises(LearnError, match="a table of logits or prototypes answers no samples"):
        Home({"d": pictures}, replace(LOGITS, mode="walk", learn={})).perform()


def test_a_lesson_that_does_not_fit_into_memory_is_refused_before_it_begins(
    pictures: Holding,
) -> None:
    home = Home({"d": pictures}, resident=MLP, memory=200_000)
    before = home.resident()
    with pytest.raises(LearnError, match=r"takes .* for the walker and .* for the resident model"):
        home.perform()
    assert home.resident() == before
    assert not home.written
    with pytest.raises(LearnError, match=r"this peer allows .* smaller batches or models"):
        Home({"d": pictures}, memory=100_000).perform()  # the walker alone
    open_set = {"d": pictures, "public": Holding(pictures.x[:60], pictures.y[:60], 10)}
    with pytest.raises(LearnError, match=r"takes [^;]* for the resident model, and this peer"):
        Home(open_set, LOGITS, resident=MLP, memory=30_000).perform()
    assert Home({"d": pictures}, resident=MLP, memory=64 << 20).perform().claims["steps"] > 0
    tight = Learner({"d": pictures}, resident=MLP, memory=10_000)
    with pytest.raises(LearnError, match="the resident model takes 2"):
        tight.check_resident()


def test_the_estimate_of_a_lesson_covers_what_it_takes(pictures: Holding) -> None:
    """The smallest memory in which a lesson is let begin is at least what its tensors take."""
    weights = sum(p.nbytes for m in (zoo.init(CNN, 1), zoo.init(MLP, 0)) for p in m.parameters())
    memory = weights
    while True:
        try:
            Home({"d": pictures}, resident=MLP, memory=memory).perform()
            break
        except LearnError:
            memory *= 2
    # weights, gradients, two moments and a copy of both models, before any activation
    assert memory > 5 * weights


def test_a_module_may_be_resident(pictures: Holding) -> None:
    module = zoo.init(VIT, 5)
    resident = Resident(module)
    resident.adopt(zoo.init(VIT, 6))
    assert state_bytes(resident.module) == state_bytes(zoo.init(VIT, 6))
    assert state_bytes(module) == state_bytes(zoo.init(VIT, 5)), "the one given stays as it was"
