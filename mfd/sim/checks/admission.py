"""Who is believed, where owners have named issuers, and what kind of versions travel.

    S17 nobody goes by the word of a holder that has no token, or one that was called back as far as
        this peer has been told, in an earlier life too
    S18 who takes only parts keeps no whole model, and no scaled version is ever a walker's own
    S19 a difference builds upon objects of the walker's own lineage alone

Rules of this package: see its __init__. Source: spec/routing.md, section "Tokens"; spec/custody.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from mfd.core.ages import walkers_of
from mfd.core.sources import Record
from mfd.packet.extent import FULL
from mfd.sim import insight
from mfd.sim.checks.custody import Custody
from mfd.sim.disk import Disk
from mfd.sim.violation import Violation
from mfd.sim.world import Host, World

__all__ = ["Admission"]

DURABLE_US = 1_000_000  # what a peer was told so long before it went off is on its disk


@dataclass(slots=True)
class _Told:
    """What one host was told of tokens that are void, for as long as it has its disk."""

    disk: Disk
    life: int
    read: int = 0  # reports
    seen_us: int = 0  # when it was last looked at
    void: dict[tuple[bytes, bytes], tuple[int, int]] = field(default_factory=dict)  # serial, when


class Admission:
    """Looks at all honest hosts."""

    def __init__(self, world: World, custody: Custody) -> None:
        self._world = world
        self._custody = custody
        self._told: dict[int, _Told] = {}
        self._right: dict[bytes, bool] = {}  # record -> whether its token is an issuer's
        self._read = 0  # versions of walkers
        self._named: dict[bytes, set[bytes]] = {}  # object -> walkers of which it was a layer

    def look(self, host: Host) -> None:
        """Check one host. Raises: Violation."""
        if host.peer is None:
            return
        if host.config.issuers:
            told = self._heed(host)
            for record in insight.believed(host.peer):
                self._check_holder(host, told, record)
        if host.config.whole_bytes_max:
            self._check_sizes(host)
        self._read_versions()
        while host.disk.based:
            self._check_difference(host, *host.disk.based.pop())

    # members

    def _heed(self, host: Host) -> _Told:
        """Take in what the host has told its owner since."""
        now_us, told = self._world.now_us, self._told.get(host.index)
        if told is None or told.disk is not host.disk:
            told = self._told[host.index] = _Told(host.disk, host.life, len(host.reports))
        if told.life != host.life:
            told.life = host.life
            told.void = {
                k: v for k, v in told.void.items() if self._is_durable(host, told, k, v[1])
            }
        told.seen_us = now_us
        for when_us, report in host.reports[told.read :]:
            if report.kind == "revoked":
                fields = report.fields
                key = bytes.fromhex(str(fields["issuer"])), bytes.fromhex(str(fields["peer"]))
                told.void[key] = int(fields["serial"] or 0), when_us
        told.read = len(host.reports)
        return told

    @staticmethod
    def _is_durable(host: Host, told: _Told, key: tuple[bytes, bytes], when_us: int) -> bool:
        """Whether the disk says so, or had time enough to."""
        row = f"revoked/{key[0].hex()}/{key[1].hex()}"
        return row in host.disk.records or when_us < told.seen_us - DURABLE_US

    def _check_holder(self, host: Host, told: _Told, record: Record) -> None:
        token = record.token
        if record.sealed not in self._right:
            issuers, network = host.config.issuers, host.config.network
            verify = self._world.signatures.verify
            right = token is not None and token.admits(record.holder, network, issuers, verify, {})
            self._right[record.sealed] = right
        if token is None or not self._right[record.sealed]:
            raise self._violation("S17", f"{host.name} goes by a holder that nobody has admitted")
        serial, _ = told.void.get((token.issuer, record.holder), (-1, 0))
        if token.serial <= serial:
            raise self._violation("S17", f"{host.name} goes by a holder whose token is void")

    # versions

    def _check_sizes(self, host: Host) -> None:
        assert host.peer is not None
        for walker in insight.walkers(host.peer):
            version, most = walker.version, host.config.whole_bytes_max
            if version is None or walker.plan.home == host.key.public_key:
                continue
            if sum(version.objects.values()) > most:
                raise self._violation("S18", f"{host.name} owns a whole model of over {most} B")

    def _read_versions(self) -> None:
        """Take in the versions that rows have named since."""
        versions = self._custody.versions
        if len(versions) == self._read:
            return
        for manifest in islice(versions.values(), self._read, None):
            if manifest.scale != FULL:
                raise self._violation("S18", f"a part of {manifest.walker.hex()[:12]} is owned")
            for ref in manifest.layers:
                self._named.setdefault(ref.digest, set()).add(manifest.walker)
        self._read = len(versions)

    def _check_difference(self, host: Host, digest: bytes, base: bytes) -> None:
        assert host.peer is not None
        of, under = self._named.get(digest, set()), self._named.get(base, set())
        merging = any(w.id in of and walkers_of(w.plan) > 1 for w in insight.walkers(host.peer))
        if of and under and not of & under and not merging:  # siblings that meet are one lineage
            raise self._violation("S19", f"{host.name} builds upon what is another walker's")

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")
