"""Who has gone silent: failure is judged per link, from silence alone, with a second opinion.

Rules of this file: any frame proves that a neighbour lives. Before a link is given up, neighbours
are asked whether they hear it, which tells a dead link from a dead peer. A peer that was itself
asleep blames nobody: what it slept counts as hearing, and it becomes more patient for a while.
Source: spec/membership.md, section "Liveness"; Lifeguard (arXiv 1707.00788), own words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from mfd.core.context import Context, Timer
from mfd.core.frames import Ping, encode_frame
from mfd.core.memberframes import Probe, ProbeReply, encode_member

__all__ = ["Liveness"]

LAG_US = 250_000  # a timer this late means that we were asleep or overloaded
CALM_US = 10_000_000  # without lag, after which the patience shrinks by one step
SCORE_MAX = 7  # patience is 1 + score
HELPERS_MAX = 8
NO_LINK, HEARD, SILENT = 0, 1, 2


@dataclass(slots=True)
class _Watch:
    """What is known of one neighbour's life."""

    peer: bytes
    heard_us: int
    idle_us: int  # silence after which we ping
    pings: int = 0
    suspect: bool = False
    opinions: list[int] = field(default_factory=list)
    askers: list[int] = field(default_factory=list)  # links that want to know whether it lives
    timer: Timer | None = None
    due_us: int = 0


class Liveness:
    """One watch a link. `silent(link, reason)` is called once for a link that is to be given up."""

    def __init__(
        self,
        ctx: Context,
        silent: Callable[[int, str], None],
        active: Callable[[int], bool] = lambda link: True,
    ) -> None:
        self._ctx = ctx
        self._silent = silent
        self._active = active  # only neighbours are asked about others
        self._watches: dict[int, _Watch] = {}
        self._score = 0
        self._lagged_us = 0

    @property
    def patience(self) -> int:
        """By how much every wait is stretched, 1 to 8."""
        return 1 + self._score

    def up(self, link: int, peer: bytes, *, outbound: bool) -> None:
        """Watch a link. The dialler pings first, so that an idle link carries one ping, not two."""
        heartbeat_us = self._ctx.config.heartbeat_us
        idle_us = heartbeat_us if outbound else heartbeat_us * 5 // 4
        watch = self._watches[link] = _Watch(peer, self._ctx.now_us, idle_us)
        self._arm(link, watch, idle_us)

    def down(self, link: int) -> None:
        """Watch it no more."""
        watch = self._watches.pop(link, None)
        if watch is not None:
            if watch.timer is not None:
                watch.timer.cancel()
            self._tell(watch, SILENT)

    def heard(self, link: int) -> None:
        """Any frame proves that the neighbour lives."""
        watch = self._watches[link]
        watch.heard_us = self._ctx.now_us
        if watch.suspect:
            watch.suspect = False
            watch.opinions.clear()
        if watch.askers:
            self._tell(watch, HEARD)

    def silent_us(self, link: int) -> int:
        """How long nothing has come over a link."""
        return self._ctx.now_us - self._watches[link].heard_us

    def _arm(self, link: int, watch: _Watch, delay_us: int) -> None:
        watch.due_us = self._ctx.now_us + delay_us
        watch.timer = self._ctx.at(watch.due_us, partial(self._look, link, watch))

    def _look(self, link: int, watch: _Watch) -> None:
        """Ping when idle, ask around when suspect, give up after that."""
        self._notice_lag(self._ctx.now_us - watch.due_us)
        config, patience = self._ctx.config, self.patience
        suspect_us = config.suspect_us * patience
        down_us = suspect_us + (config.down_us - config.suspect_us) * patience
        silent_us = self._ctx.now_us - watch.heard_us
        if silent_us >= down_us and watch.suspect:
            self._silent(link, _verdict(silent_us, watch.opinions))
            return
        if silent_us >= suspect_us and not watch.suspect:
            watch.suspect = True
            self._ask_around(link, watch)
        if silent_us < watch.idle_us:
            self._arm(link, watch, watch.idle_us - silent_us)
            return
        watch.pings += 1
        self._ctx.send(link, encode_frame(Ping(watch.pings)))
        ends = (suspect_us - silent_us, down_us - silent_us)
        self._arm(link, watch, min((config.heartbeat_us, *(end for end in ends if end > 0))))

    def _notice_lag(self, late_us: int) -> None:
        """Be patient with others as long as we are late ourselves."""
        now_us = self._ctx.now_us
        if late_us > LAG_US:
            for watch in self._watches.values():
                watch.heard_us = min(now_us, watch.heard_us + late_us)
                # the other watches are as late: their lag is told now, not once more each
                watch.due_us = max(watch.due_us, now_us)
            self._harder()
        elif now_us - self._lagged_us > CALM_US and self._score:
            self._score -= 1
            self._lagged_us = now_us

    def _harder(self) -> None:
        self._score = min(self._score + 1, SCORE_MAX)
        self._lagged_us = self._ctx.now_us
        self._ctx.count("patience_raised")

    # second opinions

    def _ask_around(self, link: int, watch: _Watch) -> None:
        watches = self._watches.items()
        others = [n for n, w in watches if n != link and not w.suspect and self._active(n)]
        silent = sum(w.suspect for w in self._watches.values())
        if silent > 1 and 2 * silent > len(self._watches) and self._score == 0:
            self._harder()  # several at once: it may be us; one step, since it may be them too
        for other in others[:HELPERS_MAX]:
            self._ctx.send(other, encode_member(Probe(watch.peer)))

    def on_probe(self, link: int, frame: Probe) -> None:
        """Say whether we hear a peer; ask it first where that is not fresh."""
        found = next(((n, w) for n, w in self._watches.items() if w.peer == frame.target), None)
        if found is None or found[0] == link:
            self._ctx.send(link, encode_member(ProbeReply(frame.target, NO_LINK)))
            return
        other, watch = found
        if self.silent_us(other) < self._ctx.config.heartbeat_us // 4:
            self._ctx.send(link, encode_member(ProbeReply(frame.target, HEARD)))
        elif link not in watch.askers and len(watch.askers) < HELPERS_MAX:
            watch.askers.append(link)
            watch.pings += 1
            self._ctx.send(other, encode_frame(Ping(watch.pings)))
            # half of the time that the asker waits
            wait_us = (self._ctx.config.down_us - self._ctx.config.suspect_us) // 2
            self._ctx.after(wait_us, partial(self._tell, watch, SILENT))

    def _tell(self, watch: _Watch, heard: int) -> None:
        askers, watch.askers = watch.askers, []
        for link in askers:
            if link in self._watches:
                self._ctx.send(link, encode_member(ProbeReply(watch.peer, heard)))

    def on_probe_reply(self, link: int, frame: ProbeReply) -> None:
        """Take a second opinion on a suspect."""
        for watch in self._watches.values():
            if watch.peer == frame.target and watch.suspect and len(watch.opinions) < HELPERS_MAX:
                watch.opinions.append(frame.heard)


def _verdict(silent_us: int, opinions: list[int]) -> str:
    """One phrase: what is wrong, and what others say."""
    told = f"silent for {silent_us / 1e6:.1f} s"
    if HEARD in opinions:
        return f"{told}, though a common neighbour hears it: the link is broken, not the peer"
    deaf = opinions.count(SILENT)
    return f"{told}, as {deaf} common neighbour(s) confirm" if deaf else told
