"""What is held, as routing announces it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfd.core.config import Config
from mfd.core.frames import Class
from mfd.core.holding import Holdings
from mfd.core.routing import Routes, Source
from mfd.core.sources import label_shares
from tests.core.routing_world import KeyedHash, verify

ME = KeyedHash(1)


def make(config: Config | None = None) -> tuple[Holdings, Routes]:
    config = config or Config()
    return Holdings(), Routes(ME.public_key, config, signer=ME, verify=verify, boot=1)


def told(routes: Routes, name: str) -> Source | None:
    found = routes.holders(name)
    return found[0] if found else None


def seqno(routes: Routes, name: str) -> int:
    hop = routes.next_hop(name, ME.public_key, Class.THIN)
    assert hop is not None
    return hop.seqno


def test_ancestors_are_announced_and_only_changes_are_announced_anew() -> None:
    """Rules: R-24"""
    held, routes = make()
    held.hold(routes, "h/xray/train", 10, 0)
    held.hold(routes, "h/ct/train", 5, 1)
    assert dict(held) == {"h/xray/train": 10, "h/ct/train": 5}
    samples = {
        name: source.samples
        for name in ("h/xray/train", "h/ct/train", "h/xray", "h/ct", "h")
        if (source := told(routes, name))
    }
    assert samples == {"h/xray/train": 10, "h/ct/train": 5, "h/xray": 10, "h/ct": 5, "h": 15}
    before = {name: seqno(routes, name) for name in samples}
    held.hold(routes, "h/ct/train", 6, 2)
    changed = {name for name in samples if seqno(routes, name) != before[name]}
    assert changed == {"h/ct/train", "h/ct", "h"}


def test_withdrawing_takes_back_what_nothing_else_stands_for() -> None:
    """Rules: R-24"""
    held, routes = make()
    held.hold(routes, "h/xray/train", 10, 0)
    held.hold(routes, "h/ct/train", 5, 0)
    held.unhold(routes, "h/xray/train", 1)
    assert told(routes, "h/xray/train") is None
    assert told(routes, "h/xray") is None
    assert told(routes, "h").samples == 5
    held.unhold(routes, "h/xray/train", 2)
    held.unhold(routes, "h/ct/train", 3)
    assert told(routes, "h") is None
    assert dict(held) == {}


def test_a_histogram_is_told_of_the_data_and_not_of_its_ancestors() -> None:
    """Rules: R-25"""
    held, routes = make()
    held.hold(routes, "h/train", 10, 0, labels=label_shares({0: 5, 1: 5}))
    assert told(routes, "h/train").labels == bytes([10, 10])
    assert told(routes, "h").labels == b""
    held.hold(routes, "h/train", 10, 1)
    assert told(routes, "h/train").labels == b""


def test_ancestors_that_do_not_fit_are_left_out() -> None:
    """Rules: R-16, R-24"""
    held, routes = make(replace(Config(), names_max=2))
    held.hold(routes, "a/b/c", 1, 0)
    assert (told(routes, "a/b") is None, told(routes, "a") is None) == (False, True)
    with pytest.raises(ValueError, match="one name too many"):
        held.hold(routes, "other", 1, 0)
    with pytest.raises(ValueError, match="not a data name"):
        held.hold(routes, "@me", 1, 0)
    assert dict(held) == {"a/b/c": 1}
