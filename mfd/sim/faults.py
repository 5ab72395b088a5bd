"""What can go wrong in a world, as values: rates, shares and appointments; read from text, drawn.

    crash=0.5,loss=1%,delay=20ms,partition@30s-60s,storm@10s=0.3

Rules of this file: values only; trouble.py makes them happen.
Source: spec/rationale.md, section "The simulator".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mfd.sim.chance import Chance

__all__ = ["APPOINTMENTS", "RATES", "Appointment", "FaultError", "Faults", "draw", "parse"]

RATES = {  # name -> (what, highest value)
    "crash": ("a peer goes off and comes back with what was synced; times a minute and peer", 60.0),
    "kill": ("a peer goes off for good; times a minute and peer", 60.0),
    "amnesia": ("a peer comes back with an empty disk; times a minute and peer", 60.0),
    "leave": ("a peer says goodbye and comes back later; times a minute and peer", 60.0),
    "pause": ("a peer stands still, its sockets open; times a minute and peer", 60.0),
    "slow": ("a peer is ten times slower for a while; times a minute and peer", 60.0),
    "move": ("all links of a peer change within 2 s; times a minute and peer", 60.0),
    "full": ("a disk is full until the peer restarts; times a minute and peer", 60.0),
    "rot": ("an object on a disk decays; times a minute and peer", 60.0),
    "cut": ("a link carries nothing for a while; times a minute and link", 60.0),
    "half": ("a link carries nothing in one direction; times a minute and link", 60.0),
    "stall": ("a link stands still for up to 5 s; times a minute and link", 60.0),
    "loss": ("part of the datagrams that is lost", 0.5),
    "duplicate": ("part of the datagrams that comes twice", 0.5),
    "reorder": ("part of the datagrams that others overtake", 0.5),
    "drift": ("part by which clocks run wrong, at most", 0.1),
    "liars": ("part of the peers that lie; from 1 on: so many of them", 0.5),
}
APPOINTMENTS = {  # name -> what, whether it takes a share
    "partition": "the network falls into two halves, share: of the smaller one",
    "storm": "a share of the peers leaves, and joins again",
    "swizzle": "links stop one by one and come back in another order, share: of the links",
    "power": "a share of the peers is switched off at once and comes back",
}
SHARES = {"partition": 0.5, "storm": 0.3, "swizzle": 0.5, "power": 1.0}
LENGTH_US = 10_000_000  # of an appointment that names no end
LIARS_MAX = 16  # told by their number
DELAY_US_MAX = 10_000_000
BANDWIDTH_BPS_MIN = 8_000
TIME = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)?")
UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
BANDWIDTH = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)bit/s")


class FaultError(ValueError):
    """A text that tells no faults; one sentence says what is wrong."""


@dataclass(frozen=True, slots=True)
class Appointment:
    """Something that goes wrong at a certain time."""

    kind: str
    start_us: int
    end_us: int
    share: float

    def __str__(self) -> str:
        return f"{self.kind}@{_time(self.start_us)}-{_time(self.end_us)}={self.share:g}"


@dataclass(frozen=True, slots=True)
class Faults:
    """Everything that goes wrong in a world. Names and units: `RATES`."""

    crash: float = 0.0
    kill: float = 0.0
    amnesia: float = 0.0
    leave: float = 0.0
    pause: float = 0.0
    slow: float = 0.0
    move: float = 0.0
    full: float = 0.0
    rot: float = 0.0
    cut: float = 0.0
    half: float = 0.0
    stall: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    drift: float = 0.0
    liars: float = 0.0
    delay_us: int = 0  # further time on the way of a frame, uniform from 0
    bandwidth_bps: int = 0  # of every link; 0: as the graph says
    appointments: tuple[Appointment, ...] = ()

    def __str__(self) -> str:
        """Word the faults so that `parse` reads them back."""
        words = [f"{name}={getattr(self, name):g}" for name in RATES if getattr(self, name)]
        if self.delay_us:
            words.append(f"delay={_time(self.delay_us)}")
        if self.bandwidth_bps:
            words.append(f"bandwidth={self.bandwidth_bps}bit/s")
        return ",".join(words + [str(each) for each in self.appointments]) or "none"

    @property
    def names(self) -> tuple[str, ...]:
        """What goes wrong at all."""
        given = [f.name for f in fields(self) if f.name != "appointments" and getattr(self, f.name)]
        return (*given, *(each.kind for each in self.appointments))


def parse(text: str) -> Faults:
    """Read faults from a text. Raises: FaultError."""
    faults, rates = Faults(), dict[str, float]()
    if text.strip() in ("", "none"):
        return faults
    for word in (part.strip() for part in text.split(",")):
        if "@" in word:
            faults = replace(faults, appointments=(*faults.appointments, _appointment(word)))
            continue
        name, equals, value = word.partition("=")
        if not equals:
            raise FaultError(f"the fault {word!r} needs a value, as {name or 'loss'}=0.01")
        if name == "delay":
            faults = replace(faults, delay_us=_read_time(value, word))
            if faults.delay_us > DELAY_US_MAX:
                raise FaultError(f"{word!r}: at most {_time(DELAY_US_MAX)}")
        elif name == "bandwidth":
            faults = replace(faults, bandwidth_bps=_read_bandwidth(value, word))
        elif name in RATES:
            count = name == "liars" and value.isdecimal() and int(value) >= 1
            rates[name] = _read_number(value, word, LIARS_MAX if count else RATES[name][1])
        else:
            known = ", ".join((*RATES, "delay", "bandwidth"))
            at = ", ".join(APPOINTMENTS)
            raise FaultError(f"there is no fault {name!r}; there are {known}; with @: {at}")
    return _with_rates(faults, rates)


def _with_rates(faults: Faults, rates: Mapping[str, float]) -> Faults:
    changed: dict[str, Any] = {name: rate for name, rate in rates.items() if name in RATES}
    return replace(faults, **changed)


def _appointment(word: str) -> Appointment:
    kind, _, rest = word.partition("@")
    if kind not in APPOINTMENTS:
        raise FaultError(f"{word!r}: only {', '.join(APPOINTMENTS)} happen at a time")
    when, _, share = rest.partition("=")
    first, dash, last = when.partition("-")
    start_us = _read_time(first, word)
    end_us = _read_time(last, word) if dash else start_us + LENGTH_US
    if end_us <= start_us:
        raise FaultError(f"{word!r} ends before it begins")
    part = _read_number(share, word, 1.0) if share else SHARES[kind]
    return Appointment(kind, start_us, end_us, part)


def _read_time(text: str, word: str) -> int:
    match = TIME.fullmatch(text)
    if match is None:
        raise FaultError(f"{word!r}: {text!r} is not a time, as 20ms or 30s")
    return round(float(match[1]) * UNITS_US[match[2] or "s"])


def _read_bandwidth(text: str, word: str) -> int:
    match = BANDWIDTH.fullmatch(text)
    if match is None:
        raise FaultError(f"{word!r}: {text!r} is not a bandwidth, as 10Mbit/s")
    scale = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]]
    bps = round(float(match[1]) * scale)
    if bps < BANDWIDTH_BPS_MIN:
        raise FaultError(f"{word!r}: at least {BANDWIDTH_BPS_MIN // 1000} kbit/s")
    return bps


def _read_number(text: str, word: str, highest: float) -> float:
    body, scale = (text[:-1], 0.01) if text.endswith("%") else (text, 1.0)
    try:
        value = float(body) * scale
    except ValueError:
        raise FaultError(f"{word!r}: {text!r} is not a number, as 0.01 or 1%") from None
    if not 0 <= value <= highest:
        raise FaultError(f"{word!r}: from 0 to {highest:g}")
    return value


def _time(us: int) -> str:
    for unit in ("s", "ms"):
        if us % UNITS_US[unit] == 0:
            return f"{us // UNITS_US[unit]}{unit}"
    return f"{us}us"


HIGHEST = {  # of what a swarm draws
    "crash": 3.0,
    "kill": 0.2,
    "amnesia": 0.3,
    "leave": 2.0,
    "pause": 2.0,
    "slow": 1.0,
    "move": 0.6,
    "full": 0.2,
    "rot": 0.3,
    "cut": 1.0,
    "half": 1.0,
    "stall": 2.0,
    "loss": 0.1,
    "duplicate": 0.2,
    "reorder": 0.2,
    "drift": 0.01,
}


def draw(chance: Chance, seconds: float) -> Faults:
    """Draw the faults of one run: each is exactly zero in half of all runs."""
    rates = {
        name: round(chance.unit() ** 2 * high, 4)
        for name, high in HIGHEST.items()
        if chance.hit(0.5)
    }
    if chance.hit(0.25):
        rates["liars"] = round(chance.unit() * 0.2, 3)
    delay_us = chance.below(50) * 1_000 if chance.hit(0.5) else 0
    appointments = []
    for kind, probability in (("partition", 0.4), ("storm", 0.2), ("swizzle", 0.2), ("power", 0.1)):
        if chance.hit(probability):
            start_us = chance.below(max(1, int(seconds * 0.7e6)))
            length_us = chance.between(500_000, max(1_000_000, int(seconds * 0.5e6)))
            share = round(0.1 + chance.unit() * (SHARES[kind] - 0.1), 2)
            appointments.append(Appointment(kind, start_us, start_us + length_us, share))
    return _with_rates(Faults(delay_us=delay_us, appointments=tuple(appointments)), rates)
