"""Data names and what lies beneath them: `hospital/xray/train` is found as `hospital` too.

Rules of this file: pure functions of text; a name is not split where an empty part would remain.
Source: spec/routing.md, section "Names".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ["ANCESTORS_MAX", "ancestors", "announced", "beneath", "covers", "peer_name"]

ANCESTORS_MAX = 4


def peer_name(peer: bytes) -> str:
    """The name under which a peer itself is found; it has one holder."""
    return "@" + peer.hex()


def ancestors(name: str) -> list[str]:
    """Return the at most four nearest ancestors of a name, nearest first."""
    if name.startswith("@"):
        return []
    inner = range(len(name) - 2, 0, -1)
    cuts = [at for at in inner if name[at] == "/" and "/" not in (name[at - 1], name[at + 1])]
    return [name[:at] for at in cuts][:ANCESTORS_MAX]


def covers(wanted: str, name: str) -> bool:
    """Say whether whoever asks for `wanted` means `name` too."""
    return name == wanted or wanted in ancestors(name)


def announced(held: Mapping[str, int]) -> dict[str, int]:
    """Return every name to be announced, with its samples: ancestors sum up what is beneath."""
    out = dict(held)
    for name, samples in held.items():
        for ancestor in ancestors(name):
            if ancestor not in held:
                out[ancestor] = out.get(ancestor, 0) + samples
    return out


def beneath(wanted: Sequence[str], held: Collection[str], but: Sequence[str] = ()) -> list[str]:
    """Return the held names that `wanted` means, in the order of `wanted`, then of text.

    Names that `but` means are left out, unless `wanted` has them word by word: what a plan
    measures on is no data to train on.
    """
    spared = {name for name in held if any(covers(b, name) for b in but)} - set(wanted)
    found = [n for want in wanted for n in sorted(held) if covers(want, n) and n not in spared]
    return list(dict.fromkeys(found))
