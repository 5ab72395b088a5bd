"""The plan: what a walker is to do, signed once by its creator and never changed.

Rules of this file: the walk reads the top-level fields, a learner reads `recipe` and `learn`.
Source: spec/packet.md, section "Plan".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from mfd.packet.errors import Fault, PacketError
from mfd.packet.fields import INT_MAX, Fields, as_text, as_uint, pack_header
from mfd.packet.limits import (
    LAPS_MAX,
    LAYERS_MAX,
    LEARN_MAX,
    NAME_BYTES_MAX,
    NAMES_MAX,
    PLAN_BYTES_MAX,
    TEXT_BYTES_MAX,
)
from mfd.packet.objects import Buffer

__all__ = ["HOLDERS_MAX", "MODES", "ORDERS", "PLAN_DOMAIN", "Plan", "decode_plan", "encode_plan"]

PLAN_DOMAIN = "mfd.plan.v1"
MODES = ("snake", "walk", "fedavg", "gossip", "distill")
ORDERS = ("lap", "stop", "sweep", "boustrophedon")
TASK_BYTES_MAX = 64
HOLDERS_MAX = (1 << 16) - 1

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a model goes and how it learns there."""

    recipe: Mapping[str, Any]  # {"zoo": "cnn", "inputs": [1, 8, 8], ...}: how to build the module
    names: tuple[str, ...]  # data names whose holders are visited
    home: bytes  # peer id to which the walker returns
    mode: str = "snake"
    task: str = "classification"
    verify: tuple[str, ...] = ()  # data names whose holders measure the model after each lap
    laps: int = 6
    order: str = "lap"  # of the blocks: by laps, by stops, all at each stop, or there and back
    layers_per_stop: int = 3  # of a block; 0: as many as the memory of each peer allows
    head: bool = True  # the last layer trains at every stop too
    full_laps: int = 1  # the first laps train every layer
    min_holders: int = 1  # wait at home until so many holders are known
    seed: int = 0
    learn: Mapping[str, Scalar] = field(default_factory=dict)  # epochs, batch, lr, distill, ...
    first: bool = False  # the first layer trains at every stop too
    body: tuple[int, int] | None = None  # layers low..high-1 are cut into blocks; None: all
    extra: Mapping[int, Any] = field(default_factory=dict)  # unknown odd fields, copied through


FIELD_NAMES = {
    0: "recipe",
    2: "names",
    4: "home",
    6: "mode",
    8: "task",
    10: "verify",
    12: "laps",
    14: "order",
    16: "layers_per_stop",
    18: "head",
    20: "full_laps",
    22: "min_holders",
    24: "seed",
    26: "learn",
}


FIRST_KEY, BODY_KEY = 31, 33  # left out where they have their defaults


def encode_plan(plan: Plan) -> bytes:
    """Return the canonical bytes, of which `seal(PLAN_DOMAIN, ...)` makes a signed record.

    Raises: ValueError or TypeError where the plan breaks a rule of the format.
    """
    known: dict[int, object] = {key: getattr(plan, name) for key, name in FIELD_NAMES.items()}
    known |= {key: list(value) for key, value in known.items() if isinstance(value, tuple)}
    known |= {FIRST_KEY: plan.first} if plan.first else {}
    known |= {BODY_KEY: list(plan.body)} if plan.body is not None else {}
    body = pack_header(known, plan.extra)
    try:
        decode_plan(body)
    except PacketError as exc:
        number = exc.where.rpartition(" ")[2]
        place = f"{FIELD_NAMES[int(number)]!r}" if number in map(str, FIELD_NAMES) else exc.where
        raise ValueError(f"this plan cannot travel: {place}: {exc.fault.value}") from exc
    return body


def decode_plan(buffer: Buffer) -> Plan:
    """Read a plan. Lists inside `recipe` come back as lists, whatever they were.

    Raises: PacketError, whatever the bytes.
    """
    fields = Fields(buffer, where="plan", limit=PLAN_BYTES_MAX)
    order = _read_choice(fields, 14, ORDERS)
    return Plan(
        recipe=_read_recipe(fields),
        names=_read_names(fields, 2, least=1),
        home=fields.bytes(4),
        mode=_read_choice(fields, 6, MODES),
        task=fields.text(8, TASK_BYTES_MAX),
        verify=_read_names(fields, 10, least=0),
        laps=fields.uint(12, LAPS_MAX, 1),
        order=order,
        layers_per_stop=_read_layers_per_stop(fields, order),
        head=fields.flag(18),
        full_laps=fields.uint(20, LAPS_MAX),
        min_holders=fields.uint(22, HOLDERS_MAX, 1),
        seed=fields.uint(24),
        learn=_read_learn(fields),
        first=_read_first(fields),
        body=_read_body(fields),
        extra=fields.rest(),
    )


def _read_recipe(fields: Fields) -> dict[str, Any]:
    recipe = fields.any(0)
    if not isinstance(recipe, dict) or not _is_plain(recipe):
        raise fields.fail(0)
    return recipe


def _is_plain(value: object) -> bool:
    match value:
        case dict():
            return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
        case list():
            return all(_is_plain(item) for item in value)
        case float():
            return isfinite(value)
        case int():
            return abs(value) <= INT_MAX
        case _:
            return value is None or isinstance(value, str)


def _read_names(fields: Fields, key: int, *, least: int) -> tuple[str, ...]:
    names = fields.list(key, NAMES_MAX, lambda item: as_text(item, NAME_BYTES_MAX))
    if len(names) < least:
        raise fields.fail(key)
    if len(set(names)) != len(names):
        raise fields.fail(key, Fault.ORDER)
    return names


def _read_choice(fields: Fields, key: int, choices: tuple[str, ...]) -> str:
    value = fields.text(key, TASK_BYTES_MAX)
    if value not in choices:
        raise fields.fail(key)
    return value


def _read_layers_per_stop(fields: Fields, order: str) -> int:
    """There is no way back from a block whose size nobody has fixed."""
    count = fields.uint(16, LAYERS_MAX)
    if not count and order == "boustrophedon":
        raise fields.fail(16)
    return count


def _read_first(fields: Fields) -> bool:
    value = fields.maybe(FIRST_KEY, None)
    if value is not None and value is not True:
        raise fields.fail(FIRST_KEY)
    return value is True


def _read_body(fields: Fields) -> tuple[int, int] | None:
    match fields.maybe(BODY_KEY, None):
        case None:
            return None
        case [int() as low, int() as high]:
            if as_uint(low, high - 1) is not None and as_uint(high, LAYERS_MAX) is not None:
                return low, high
    raise fields.fail(BODY_KEY)


def _read_learn(fields: Fields) -> dict[str, Scalar]:
    learn = fields.any(26)
    if not isinstance(learn, dict) or len(learn) > LEARN_MAX:
        raise fields.fail(26)
    for name, value in learn.items():
        if as_text(name, TASK_BYTES_MAX) is None or isinstance(value, dict | list):
            raise fields.fail(26)
        if not _is_plain(value) or len(str(value)) > TEXT_BYTES_MAX:
            raise fields.fail(26)
    return learn
