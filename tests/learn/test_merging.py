from __future__ import annotations

import numpy as np
import pytest
import torch

from mfd.learn.errors import LearnError
from mfd.learn.merging import merge_layer
from mfd.packet.objects import pack_layer, unpack_layer
from mfd.packet.task import LayerRef, Sibling

Arrays = dict[str, np.ndarray]


class Shelf:
    def __init__(self) -> None:
        self.objects: dict[bytes, bytes] = {}

    def put(self, tensors: Arrays) -> LayerRef:
        made = pack_layer(tensors)
        self.objects[made.digest] = made.tobytes()
        return LayerRef(0, "l", made.digest, made.raw_bytes)


def merged(shelf: Shelf, base: Arrays, *versions: tuple[Arrays, float]) -> Arrays | None:
    siblings = tuple(Sibling((shelf.put(v),), weight) for v, weight in versions)
    made = merge_layer(shelf.put(base), siblings, shelf.objects.__getitem__, parameters={"w"})
    return made and {k: t.array() for k, t in unpack_layer(made.tobytes()).items()}


def test_parameters_are_averaged_and_buffers_come_from_the_heaviest() -> None:
    rng = np.random.default_rng(1)
    a, b, c = (rng.normal(size=(3, 2)).astype(np.float32) for _ in range(3))
    base = {"w": a, "n": np.array(1), "mean": a}
    made = merged(
        Shelf(),
        base,
        ({"w": b, "n": np.array(5), "mean": b}, 30.0),
        ({"w": c, "n": np.array(7), "mean": c}, 10.0),
    )
    assert made is not None
    products = b.astype(float) * 0.75 + c.astype(float) * 0.25
    assert np.array_equal(made["w"], products.astype(np.float32))  # bit for bit
    assert made["n"] == 5
    assert np.array_equal(made["mean"], b)


def test_equal_layers_stay_bit_for_bit() -> None:
    a = {"w": np.array([0.1, 0.2, 0.7], np.float32)}
    b = {"w": np.array([1, 2, 3], np.float32)}
    assert merged(Shelf(), a, (a, 3.0), (a, 7.0)) is None
    made = merged(Shelf(), b, (a, 3.0), (a, 7.0), (a, 1.0))
    assert made is not None
    assert np.array_equal(made["w"], a["w"])


def test_half_precision_is_averaged_in_single() -> None:
    a = {"w": np.array([1, 1], np.float16)}
    b = {"w": np.array([1 + 2**-10, 3], np.float16)}
    made = merged(Shelf(), a, (a, 1.0), (b, 1.0), (b, 1.0))
    assert made is not None
    assert made["w"].dtype == np.float16
    third = torch.tensor(1 / 3)
    x, y = torch.from_numpy(a["w"]).float(), torch.from_numpy(b["w"]).float()
    assert np.array_equal(made["w"], (x * third + y * third + y * third).half().numpy())


def test_a_layer_that_no_sibling_names_stays() -> None:
    shelf = Shelf()
    ref = shelf.put({"w": np.zeros(2, np.float32)})
    assert (
        merge_layer(ref, (Sibling((), 1.0),), shelf.objects.__getitem__, parameters={"w"}) is None
    )


def test_wrong_siblings_are_one_sentence() -> None:
    a, b = {"w": np.zeros(2, np.float32)}, {"w": np.ones(2, np.float32)}
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(LearnError, match="weights above 0"):
            merged(Shelf(), a, (a, 1.0), (b, weight))
    with pytest.raises(LearnError, match="different tensors in layer 'l'"):
        merged(Shelf(), a, (a, 1.0), ({"w": np.ones(3, np.float32)}, 1.0))


def joined(
    base: Arrays, *versions: tuple[Arrays, float], rule: str = "mean", radius: float = 0.3
) -> list[float] | None:
    shelf = Shelf()
    own = shelf.put(base)
    siblings = tuple(Sibling((shelf.put(v),), 1.0, (share,)) for v, share in versions)
    made = merge_layer(
        own, siblings, shelf.objects.__getitem__, parameters={"w"}, rule=rule, radius=radius
    )
    return made and unpack_layer(made.tobytes())["w"].array().tolist()


def row(*values: float) -> Arrays:
    return {"w": np.array(values, np.float32)}


def test_a_layer_counts_by_its_share_and_one_without_share_not_at_all() -> None:
    """Rules: W-46"""
    own, other = row(0, 4), row(4, 0)
    assert joined(own, (own, 0.25), (other, 0.75)) == [3, 1]
    assert joined(own, (own, 0.0), (other, 1.0)) == [4, 0]
    assert joined(own, (own, 1.0), (other, 0.0)) is None
    assert joined(own, (own, 0.0), (other, 0.0)) is None


def test_rules_bound_what_one_sibling_can_do() -> None:
    """Rules: W-47"""
    own, far, near = row(0, 10), row(0, 110), row(0, 11)
    assert joined(own, (own, 0.5), (far, 0.5), rule="clip") == [0, 11.5]  # half of 0.3 x 10
    assert joined(own, (far, 1.0), rule="clip") == [0, 13]
    assert joined(own, (own, 0.5), (far, 0.25), (near, 0.25), rule="near") == pytest.approx(
        [0, 10 + 1 / 3]
    )
    assert joined(own, (own, 0.2), (far, 0.6), (near, 0.2), rule="median") == [0, 11]
    assert joined(own, (own, 0.2), (far, 0.6), (near, 0.2), rule="trim") == [0, 11]
    # of two there is no middle: the mean
    assert joined(own, (own, 0.5), (near, 0.5), rule="median") == [0, 10.5]


@pytest.mark.parametrize("rule", ["mean", "clip", "near", "median", "trim"])
def test_no_rule_changes_what_is_equal_or_hears_the_order(rule: str) -> None:
    """Rules: W-46"""
    rng = np.random.default_rng(3)
    own, *others = (row(*rng.normal(size=5)) for _ in range(4))
    assert joined(own, (own, 0.3), (own, 0.3), (own, 0.4), rule=rule) is None
    parts = [(own, 0.1), *zip(others, (0.2, 0.3, 0.4), strict=True)]
    one = joined(own, *parts, rule=rule, radius=5)
    assert joined(own, *reversed(parts), rule=rule, radius=5) == pytest.approx(one)
