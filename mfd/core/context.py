"""What the parts of a peer share within one call: the time, the keys, the dice, the effects.

Rules of this file: time comes from outside, chance from a seed. Effects leave in the order in which
they were made. An effect with an answer registers what to do then; the answer comes at most once.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from blake3 import blake3

from mfd.core.config import Config
from mfd.core.effects import Effect, Fetch, FetchTable, Keep, Learn, Report, Send, Store
from mfd.core.events import (
    Fetched,
    FetchFailed,
    KeepFailed,
    Kept,
    Learned,
    LearnFailed,
    Stored,
    StoreFailed,
)
from mfd.packet.objects import Buffer
from mfd.packet.signing import Signer, Verifier
from mfd.packet.task import LearnResult, LearnTask

__all__ = ["Context", "Dice", "Timer"]

Answer = Stored | StoreFailed | Fetched | FetchFailed | Kept | KeepFailed | Learned | LearnFailed


class Dice:
    """Chance as a value: BLAKE3 from a seed that every draw replaces.

    What was drawn, keys among it, cannot be found again from what is left.
    """

    def __init__(self, seed: bytes) -> None:
        self._seed = blake3(b"mfd.dice.v1" + seed).digest()

    def bytes(self, size: int) -> bytes:
        """Return `size` fresh bytes."""
        drawn = blake3(b"", key=self._seed).digest(32 + size)
        self._seed = drawn[:32]
        return drawn[32:]

    def below(self, bound: int) -> int:
        """Return a number in 0..bound-1, near enough to uniform for jitter."""
        return int.from_bytes(self.bytes(8), "little") % bound


class Timer:
    """Something to do later, unless cancelled."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Forget it; harmless when it has already run."""
        self.action = None


class Context:
    """The shared state of one peer's call of `handle`."""

    def __init__(self, *, signer: Signer, verify: Verifier, config: Config, seed: bytes) -> None:
        self.signer = signer
        self.verify = verify
        self.config = config
        self.me = signer.public_key
        self.dice = Dice(seed)
        self.now_us = 0
        self.counters: dict[str, int] = {}
        self._out: list[Effect] = []
        self._pending: dict[int, tuple[Callable[..., object], Callable[..., object]]] = {}
        self._next = 1
        self._heap: list[tuple[int, int, Timer]] = []

    # effects

    def emit(self, effect: Effect) -> None:
        """Append an effect that has no answer."""
        self._out.append(effect)

    def take(self) -> list[Effect]:
        """Return the effects made since the last call."""
        out, self._out = self._out, []
        return out

    def send(self, link: int, frame: Buffer) -> None:
        """Send a whole control frame."""
        self._out.append(Send(link, "control", (frame,)))

    def report(self, kind: str, /, **fields: str | int | float | bool | None) -> None:
        """Tell the owner what happened."""
        self._out.append(Report(kind, fields))

    def count(self, name: str, amount: int = 1) -> None:
        """Raise a counter that `status()` shows."""
        self.counters[name] = self.counters.get(name, 0) + amount

    def store(
        self,
        *,
        objects: tuple[bytes, ...] = (),
        put: tuple[tuple[str, bytes], ...] = (),
        drop: tuple[bytes, ...] = (),
        then: Callable[[], object],
        failed: Callable[[str], None],
    ) -> None:
        """Make things durable; only `then` may promise it to anybody."""
        op = self._expect(then, failed)
        self._out.append(Store(op, objects=objects, put=put, drop=drop))

    def fetch(
        self,
        digest: bytes,
        chunk: int,
        then: Callable[[int, Buffer], None],
        failed: Callable[[str], None],
        *,
        link_bytes_per_s: int = 0,
        base: bytes = b"",
    ) -> None:
        """Read one raw chunk, encoded for a link of a speed (0: not known), and upon a base."""
        op = self._expect(then, failed)
        self._out.append(Fetch(op, digest, chunk, link_bytes_per_s, base))

    def fetch_table(
        self, digest: bytes, then: Callable[[int, Buffer], None], failed: Callable[[str], None]
    ) -> None:
        """Read the chunk digests of an object."""
        self._out.append(FetchTable(self._expect(then, failed), digest))

    def keep(
        self,
        make: Callable[[int], Keep],
        then: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        """Hand a received chunk to the store."""
        self._out.append(make(self._expect(then, failed)))

    def learn(
        self,
        task: LearnTask,
        then: Callable[[LearnResult], None],
        failed: Callable[[str], None],
    ) -> int:
        """Hand a job to the learner; return its number."""
        job = self._expect(then, failed)
        self._out.append(Learn(job, task))
        return job

    def _expect(self, then: Callable[..., object], failed: Callable[..., object]) -> int:
        op, self._next = self._next, self._next + 1
        self._pending[op] = (then, failed)
        return op

    def answer(self, event: Answer) -> None:
        """Carry on where an effect left off; a second answer to one effect is ignored."""
        op = event.job if isinstance(event, Learned | LearnFailed) else event.op
        then, failed = self._pending.pop(op, (None, None))
        if then is None or failed is None:
            return
        match event:
            case Stored() | Kept():
                then()
            case Fetched(encoding=encoding, body=body):
                then(encoding, body)
            case Learned(result=result):
                then(result)
            case KeepFailed(fault=fault, reason=reason):
                failed(reason or fault.value)
            case StoreFailed(reason=reason) | FetchFailed(reason=reason):
                failed(reason)
            case LearnFailed(reason=reason):
                failed(reason)

    # time

    def at(self, when_us: int, action: Callable[[], None]) -> Timer:
        """Run `action` in the first call of `handle` at or after `when_us`."""
        timer = Timer(action)
        self._next += 1
        heappush(self._heap, (when_us, self._next, timer))
        return timer

    def after(self, delay_us: int, action: Callable[[], None]) -> Timer:
        """Run `action` once `delay_us` has passed."""
        return self.at(self.now_us + delay_us, action)

    def deadline_us(self) -> int | None:
        """When the next timer is due."""
        while self._heap and self._heap[0][2].action is None:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run_timers(self) -> None:
        """Run what is due, oldest first."""
        while self._heap and self._heap[0][0] <= self.now_us:
            timer = heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is not None:
                action()
