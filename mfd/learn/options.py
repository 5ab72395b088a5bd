"""How a stop learns: what the plan's `learn` may say, and what it means where it says nothing.

Rules of this file: torch is not loaded; a wrong option is refused before anything is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from mfd.learn.errors import LearnError

__all__ = ["DEFAULTS", "LEARN_NAMES", "SHARES", "Options", "Sharing", "rate"]

CHOICES = {
    "optimizer": ("adam", "adamw", "sgd", "sgd-nesterov"),
    "schedule": ("cosine", "linear", "constant"),
    "precision": ("full", "bf16"),
    "device": ("auto", "cpu", "cuda"),
}
KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
POSITIVE = ("batch", "lr", "temperature")
BELOW_ONE = ("ema", "momentum")
SHARES = ("proxy", "logits", "prototypes")
REPLAYS = ("snake", "walk")
NOT_IN_LESSONS = ("carry", "device", "micro", "precision", "seconds")
DIRECTIONS_MAX = 64  # each as large as a sample, for every class
PUBLIC = "public"  # last part of the name under which an owner holds what all may see answers to


@dataclass(frozen=True, slots=True)
class Options:
    """How a stop learns: the plan's `learn`; what it does not name has these values."""

    epochs: float = 10.0  # passes over the local data at one stop; may be a fraction
    steps: int = 0  # steps of the optimiser at one stop; above 0 it counts instead of epochs
    seconds: float = 0.0  # of training at one stop, instead of both; no two runs are alike then
    batch: int = 32
    micro: int = 0  # samples of a batch in memory at once; 0: as many as the peer's memory allows
    lr: float = 2e-3  # at the start of the journey
    schedule: str = "cosine"  # over the whole journey: to 0 as a cosine or a line, or constant
    optimizer: str = (
        "adam"  # adamw: decay apart from the gradient; sgd with momentum, or Nesterov's
    )
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.0
    carry: bool = False  # the optimiser's state travels with its layers; else it lasts one stop
    distill: float = 0.3  # weight of the received model's opinion
    temperature: float = 2.0
    anchor: float = 0.0  # L2 pull to the received parameters
    ema: float = 0.0  # decay a step of the average that is committed in place of the last weights
    warmup: int = 5  # steps at every stop, since Adam starts afresh
    clip: float = 5.0  # norm of the gradient; 0: none
    logit_adjustment: float = 1.0  # weight of the local label prior in the training loss
    replay: float = 0.0  # weight of the loss on draws of all classes, half as many as samples
    replay_directions: int = 10  # in which a class is told to spread
    precision: str = "full"  # bf16: autocast; weights and optimiser stay as they are
    device: str = "auto"  # cuda where there is one
    threads: int = 0  # of torch; 0: as the peer is set

    @classmethod
    def of(cls, learn: Mapping[str, Any], mode: str = "") -> Options:
        """`mode`: of the plan, where that is known.

        Raises: LearnError, one sentence, for an unknown name, a value out of range, or an option
        that plans of this mode do not have.
        """
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in learn.items():
            if key not in known:
                raise LearnError(_unknown(key, known))
            kind = type(known[key].default)
            if kind is float and type(value) in (int, bool):
                value = float(value)
            if type(value) is not kind:
                raise LearnError(f"plan.learn: {key} is {KINDS[kind]}, not {value!r}")
            values[key] = value
        options = cls(**values)
        options._check()
        if options.replay and mode not in ("", *REPLAYS):
            raise LearnError(
                f"plan.learn: replay is of plans of mode {' and '.join(REPLAYS)}, where one model "
                f"takes along what it is told; this one is of mode {mode}: leave it out"
            )
        return options

    def _check(self) -> None:
        for key, value in asdict(self).items():
            if key in CHOICES:
                if value not in CHOICES[key]:
                    *most, last = CHOICES[key]
                    one = f"{', '.join(most)} or {last}"
                    raise LearnError(f"plan.learn: {key} is {one}, not {value!r}")
            elif not 0 <= value <= 1e6:
                raise LearnError(f"plan.learn: {key} is out of range: {value!r}")
        for key in POSITIVE:
            if not getattr(self, key):
                raise LearnError(f"plan.learn: {key} must be above 0")
        for key in BELOW_ONE:
            if getattr(self, key) >= 1:
                raise LearnError(f"plan.learn: {key} must be below 1")
        if not (self.epochs or self.steps or self.seconds):
            raise LearnError("plan.learn: epochs must be above 0, or steps, or seconds")
        if self.optimizer == "sgd-nesterov" and not self.momentum:
            raise LearnError("plan.learn: sgd-nesterov needs a momentum above 0")
        if self.replay_directions > DIRECTIONS_MAX:
            raise LearnError(f"plan.learn: replay_directions is {DIRECTIONS_MAX} at most")


DEFAULTS: Mapping[str, Any] = asdict(Options())


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a `distill` plan shares: these keys of the plan's `learn`, beside those of Options."""

    share: str = "proxy"
    public: str = ""  # name/public of a set that every holder has; its labels are not used
    teach: float = 1.0  # weight of the walker's opinion in the resident's loss
    follow: float = 1.0  # weight of the resident's opinion in the proxy's loss

    @classmethod
    def of(cls, learn: Mapping[str, Any], mode: str = "") -> tuple[Sharing, Options]:
        """`mode`: as in Options.of. Raises: LearnError, one sentence."""
        known = {f.name: f for f in fields(cls)}
        if strange := [key for key in learn if key not in LEARN_NAMES]:
            raise LearnError(_unknown(strange[0], LEARN_NAMES))
        own: dict[str, Any] = {k: v for k, v in learn.items() if k in known}
        for key, value in own.items():
            if isinstance(known[key].default, float) and type(value) is int:
                own[key] = value = float(value)
            kind = "text" if isinstance(known[key].default, str) else "number from 0"
            fits = isinstance(value, str) if kind == "text" else _is_weight(value)
            if not fits:
                raise LearnError(f"plan.learn: {key} is a {kind}, not {value!r}")
        sharing = cls(**own)
        if sharing.share not in SHARES:
            raise LearnError(f"plan.learn: share is {', '.join(SHARES)}, not {sharing.share!r}")
        if sharing.share == "logits" and not sharing.public:
            raise LearnError('plan.learn: logits are shared on a public set: say public = "NAME"')
        if sharing.public and sharing.public.rpartition("/")[2] != PUBLIC:
            raise LearnError(
                f"plan.learn: {sharing.public!r} is no public set: answers to private samples tell "
                f"of them, so a set is public by its owner's name for it, such as digits/{PUBLIC}"
            )
        rest = {k: v for k, v in learn.items() if k not in known}
        options = Options.of(rest, mode)
        for key in NOT_IN_LESSONS if mode == "distill" else ():
            if getattr(options, key) not in (DEFAULTS[key], "cpu"):
                raise LearnError(
                    f"plan.learn: {key} is not for plans of mode distill, whose lessons would go "
                    "on without it: leave it out"
                )
        return sharing, options


LEARN_NAMES = (*DEFAULTS, *(f.name for f in fields(Sharing)))  # all that `learn` may say


def _is_weight(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= 1e6


def _unknown(key: str, known: Iterable[str]) -> str:
    """Say that there is no such option, and which is nearest."""
    names = list(known)
    if key in LEARN_NAMES:
        return f"plan.learn: {key} is of plans of mode distill alone: leave it out"
    close = get_close_matches(key, names, n=1)
    meant = f"did you mean {close[0]!r}? It" if close else "it"
    return f"plan.learn has no {key!r}; {meant} has {', '.join(names)}"


def rate(options: Options, journey: tuple[float, float], step: int, part: float) -> float:
    """Learning rate of a step, `part` (0 to 1) of this stop being done.

    The schedule runs over the whole journey, of which this stop is a part; the warm-up is this
    stop's own.
    """
    first, last = journey
    done = first + (last - first) * part
    warm = min(1.0, (step + 1) / (options.warmup + 1))
    match options.schedule:
        case "cosine":
            left = 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            left = 1 - done
        case _:
            left = 1.0
    return options.lr * warm * left
