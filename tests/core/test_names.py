"""Names and what lies beneath them."""

from __future__ import annotations

import pytest

from mfd.core.names import ancestors, announced, beneath, covers, peer_name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("digits", []),
        ("digits/train", ["digits"]),
        ("hospital/xray/train", ["hospital/xray", "hospital"]),
        ("a/b/c/d/e/f", ["a/b/c/d/e", "a/b/c/d", "a/b/c", "a/b"]),
        ("/a/b", ["/a"]),
        ("a//b/c", ["a//b"]),
        ("a/b/", ["a"]),
        ("@" + "00" * 32, []),
        ("@x/y", []),
    ],
)
def test_the_four_nearest_ancestors(name: str, found: list[str]) -> None:
    """Rules: R-24"""
    assert ancestors(name) == found


def test_a_name_covers_itself_and_what_is_beneath_but_no_mere_beginning() -> None:
    """Rules: R-24"""
    assert covers("digits", "digits/train")
    assert covers("digits/train", "digits/train")
    assert not covers("digits/train", "digits")
    assert not covers("dig", "digits/train")
    assert not covers("a", "a/b/c/d/e/f")


def test_ancestors_sum_up_the_samples_and_held_names_stand_for_themselves() -> None:
    """Rules: R-24"""
    held = {"h/xray/train": 10, "h/ct": 5, "h/xray": 3}
    assert announced(held) == {"h/xray/train": 10, "h/ct": 5, "h/xray": 3, "h": 18}


def test_what_a_plan_means_among_the_held_names() -> None:
    """Rules: W-14"""
    held = ["digits/train", "digits/test", "other", "digits/extra"]
    assert beneath(["digits"], held) == ["digits/extra", "digits/test", "digits/train"]
    assert beneath(["digits"], held, but=["digits/test"]) == ["digits/extra", "digits/train"]
    assert beneath(["other", "digits/train"], held) == ["other", "digits/train"]
    assert beneath(["digits/train"], held, but=["digits"]) == ["digits/train"]
    assert beneath(["nothing"], held) == []


def test_a_peers_own_name() -> None:
    assert peer_name(bytes(32)) == "@" + "0" * 64
