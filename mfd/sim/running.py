"""One scenario from its first event to its verdict: trouble, then a healed core that must recover.

Rules of this file: no clock but the world's; how long it took in seconds is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from blake3 import blake3

from mfd.core.config import Config
from mfd.core.events import Ticked
from mfd.core.messages import Kind
from mfd.sim import insight
from mfd.sim.checks.liveness import Recovery
from mfd.sim.checks.watch import Watch
from mfd.sim.scenario import Scenario, Stage, stage
from mfd.sim.violation import Violation
from mfd.sim.world import Log, World

__all__ = ["Outcome", "run"]

SLICE_S = 1.0
QUIET_S = 10.0


@dataclass(slots=True)
class Outcome:
    """What happened in one run."""

    seed: int
    events: int = 0
    seconds: float = 0.0  # virtual
    trace: str = ""  # digest of every event, in order
    violation: str = ""  # which invariant, where and when; empty: none
    peers: int = 0
    core: int = 0  # peers healed
    liars: int = 0
    faults: dict[str, int] = field(default_factory=dict)  # what happened how often
    born: int = 0  # walkers that reached a disk
    home: int = 0
    expected: int = 0  # walkers that had to come home
    excused: int = 0  # lost together with all copies that they were promised
    handovers: int = 0
    stops: int = 0
    merges: int = 0  # of siblings that met
    reissued: int = 0
    fenced: int = 0
    forks: int = 0  # walkers with two unfenced owners in the core at the end
    links: int = 0  # made
    route_changes: int = 0
    route_entries: int = 0
    circuits: int = 0
    control_bytes: int = 0
    bulk_bytes: int = 0
    idle_rate: float = 0.0  # most control bytes/s and link of a quiet peer
    signatures: int = 0  # checked
    signatures_peak: float = 0.0  # most checks/s of one peer, over the whole run
    checked: int = 0  # events looked at
    sampled: bool = False

    @property
    def sound(self) -> bool:
        """Whether no invariant was broken."""
        return not self.violation


def run(scenario: Scenario, *, checks: bool = True, log: Log | None = None) -> Outcome:
    """Run a scenario to its end. Never raises for what the peers do wrong: see `violation`."""
    staged = stage(scenario)
    world, trouble = staged.world, staged.trouble
    world.log = log
    outcome = Outcome(scenario.seed, peers=len(world.hosts), liars=len(trouble.liars))
    watch = Watch(world, trouble.liars)
    if checks:
        world.observers.append(watch)
        trouble.bereaved.append(watch.custody.bereave)
        trouble.buried.append(watch.custody.bury)
    try:
        world.run(seconds=scenario.warm)
        trouble.begin()
        world.run(seconds=scenario.seconds)
        core = trouble.heal(part=scenario.part) if scenario.calm > 0 else set[str]()
        outcome.core = len(core)
        if not core:
            pass  # safety alone was asked for
        elif checks:
            _recover(scenario, staged, watch, core, outcome)
        else:
            _come_home(staged, scenario.calm)
    except Violation as violation:
        outcome.violation = str(violation)
    _tell(staged, watch, outcome)
    return outcome


def settling(config: Config) -> float:
    """Seconds until a healed network must have routes: silence seen, redialled, asked anew."""
    most_us = config.dial_max_us + config.promote_us if config.open_network else 0
    dial_s = 5 + 1.25 * max(config.redial_max_us, most_us) / 1e6
    starved_s = (7 * config.seqno_retry_us + config.seqno_lazy_us) / 1e6
    return (config.down_us + config.heartbeat_us) / 1e6 + dial_s + starved_s


def _recover(
    scenario: Scenario, staged: Stage, watch: Watch, core: set[str], outcome: Outcome
) -> None:
    """The liveness phase. Raises: Violation."""
    world = staged.world
    honest = [name for name in staged.holders if name not in staged.trouble.liars]
    judge = Recovery(world, watch.custody, core, staged.births, honest)
    judge.auto = scenario.reissue == "auto"
    settle_s = settling(replace(Config(**dict(scenario.config)), open_network=scenario.open))
    world.run(seconds=settle_s)
    _check_routes(scenario, world, judge)
    if not scenario.faults.names:
        judge.check_nearest()
    judge.mark()
    said = _say_to_all(world, min(core))
    left = max(scenario.calm - settle_s, 0.0)
    while left > 0 and not judge.settled():
        world.run(seconds=min(SLICE_S, left))
        left -= SLICE_S
    outcome.expected = len(judge.expected())
    judge.check_walkers()
    if judge.auto:
        judge.check_forks()
    if not scenario.faults.names:
        judge.check_visits()
    outcome.forks = judge.forks()
    world.run(seconds=QUIET_S)
    judge.check_broadcast(said)
    judge.measure()
    world.run(seconds=QUIET_S)
    outcome.idle_rate = judge.check_control()
    _check_routes(scenario, world, judge)
    judge.check_disks()


def _check_routes(scenario: Scenario, world: World, judge: Recovery) -> None:
    """L2, which a network that goes on choosing its neighbours may break for a moment, no longer.

    Raises: Violation.
    """
    try:
        judge.check_routes()
    except Violation:
        if not scenario.open:
            raise  # there, links are given
        world.run(seconds=SLICE_S)
        judge.check_routes()


def _say_to_all(world: World, name: str) -> bytes:
    """Let a peer ask everybody for a walker that nobody knows; return the id of that."""
    host = world.hosts[name]
    assert host.peer is not None
    members, known = insight.members(host.peer), blake3(name.encode()).digest()
    before = set(members.gossip.held)
    world.deliver(host, host.life, Ticked())  # what it says is of this instant
    members.tidings.spread(Kind.RECLAIM, known, known)
    (ident,) = members.gossip.held.keys() - before
    world.deliver(host, host.life, Ticked())  # lets it out
    return ident


def _come_home(staged: Stage, seconds: float) -> None:
    """Without checkers: until every walker has arrived, or time is up."""
    wanted = set(staged.births)

    def arrived() -> bool:
        return wanted <= _arrived(staged)

    left = seconds
    while left > 0 and not arrived():
        staged.world.run(seconds=min(SLICE_S, left))
        left -= SLICE_S


def _arrived(staged: Stage) -> set[bytes]:
    kinds = _reports(staged, "arrived")
    return {bytes.fromhex(str(fields["walker"])) for fields in kinds}


def _reports(staged: Stage, kind: str) -> list[dict[str, object]]:
    hosts: Iterable[str] = staged.world.hosts
    return [
        dict(report.fields)
        for name in hosts
        for _, report in staged.world.hosts[name].reports
        if report.kind == kind
    ]


def _tell(staged: Stage, watch: Watch, outcome: Outcome) -> None:
    world, hosts = staged.world, staged.world.hosts.values()
    count: Callable[[str], int] = lambda kind: len(_reports(staged, kind))  # noqa: E731
    outcome.events, outcome.seconds = world.events, world.now_us / 1e6
    outcome.trace = world.trace_hash()
    outcome.faults = dict(sorted(staged.trouble.counts.items()))
    outcome.born = len({str(f["walker"]) for f in _reports(staged, "injected")})
    outcome.home = len(_arrived(staged))
    outcome.excused = len(watch.custody.excused)
    outcome.handovers = count("handed")
    outcome.stops = len({(f["walker"], f["seq"]) for f in _reports(staged, "stop")})
    merged = {(f["walker"], f["seq"]) for f in _reports(staged, "merged") if f["with"]}
    outcome.merges = len(merged)
    outcome.reissued, outcome.fenced = count("reissued"), count("fenced")
    outcome.links = world.wires.made
    outcome.route_changes = watch.routing.changes
    outcome.route_entries = watch.routing.entries
    outcome.circuits = watch.circuits.opened
    outcome.control_bytes = sum(host.sent_bytes["control"] for host in hosts)
    outcome.bulk_bytes = sum(host.sent_bytes["bulk"] for host in hosts)
    outcome.signatures = sum(host.signatures for host in hosts)
    most = max((host.signatures for host in hosts), default=0)
    outcome.signatures_peak = most / max(outcome.seconds, 1e-6)
    outcome.checked, outcome.sampled = watch.looked, watch.sampled
