"""One part of a peer alone: a context whose time a test moves, and what the part sends."""

from __future__ import annotations

from mfd.core.config import Config
from mfd.core.context import Context
from mfd.core.effects import Effect, Send
from mfd.core.frames import Frame, Member, decode_frame
from mfd.core.memberframes import MemberFrame, decode_member
from mfd.sim.keys import SimKey, sim_verify

SECOND = 1_000_000


class Lone:
    """A context, and a record of its effects with their times."""

    def __init__(self, config: Config | None = None, seed: bytes = b"lone") -> None:
        self.key = SimKey(seed)
        self.ctx = Context(signer=self.key, verify=sim_verify, config=config or Config(), seed=seed)
        self.effects: list[tuple[int, Effect]] = []

    def step(self, us: int = 0) -> list[Effect]:
        """Let time jump, run what is due, and return what has come out."""
        self.ctx.now_us += us
        self.ctx.run_timers()
        out = self.ctx.take()
        self.effects += [(self.ctx.now_us, effect) for effect in out]
        return out

    def run(self, seconds: float) -> list[Effect]:
        """Let time pass as a punctual driver does."""
        end_us, out = self.ctx.now_us + round(seconds * SECOND), self.step()
        while (due_us := self.ctx.deadline_us()) is not None and due_us <= end_us:
            out += self.step(max(0, due_us - self.ctx.now_us))
        return out + self.step(end_us - self.ctx.now_us)


def sent(effects: list[Effect]) -> list[tuple[int, Frame | MemberFrame]]:
    """(link, frame) of all frames among effects."""
    out: list[tuple[int, Frame | MemberFrame]] = []
    for effect in effects:
        if isinstance(effect, Send):
            frame: Frame | MemberFrame = decode_frame(b"".join(effect.frame))
            if isinstance(frame, Member):
                frame = decode_member(frame.kind, frame.body)
            out.append((effect.link, frame))
    return out
