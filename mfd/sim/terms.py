"""What owners set for single hosts of a world: who is a member, who is not, who takes only parts.

Rules of this file: whom it concerns is the seed's choice; all others run with the world's Config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mfd.core.config import Config
from mfd.core.tokens import issue, revoke
from mfd.sim.chance import Streams
from mfd.sim.host import Host
from mfd.sim.keys import Signatures
from mfd.sim.world import World

if TYPE_CHECKING:
    from mfd.sim.scenario import Scenario

__all__ = ["Terms"]

SERIAL = 1
SMALL_BYTES = 1  # no model is smaller
OFF_US = 500_000  # a host whose owner has news for it is restarted in so long


class Terms:
    """The terms of every host of one scenario.

    With `members` all owners name one issuer, and all hosts have its token but `strangers`, who
    announce data all the same; of `revoked` members the token is called back half-way through the
    trouble, by one owner who restarts a peer with the revocations.
    """

    def __init__(
        self,
        scenario: Scenario,
        config: Config,
        signatures: Signatures,
        homes: Mapping[str, object],
    ) -> None:
        chance, names = Streams(scenario.seed).of("terms"), list(scenario.topology.nodes)
        self._config = config
        self._signatures = signatures
        self._issuer = signatures.key(b"issuer")
        self._members = scenario.members
        others = [name for name in names if name not in homes]
        self.strangers = frozenset(chance.sample(others, scenario.strangers))
        members = [name for name in names if name not in self.strangers]
        self.revoked = tuple(chance.sample(list(homes), scenario.revoked))
        self._teller = next((name for name in members if name not in self.revoked), "")
        self._small = frozenset(chance.sample(list(homes), scenario.small))
        self._when_us = int((scenario.warm + scenario.seconds / 2) * 1e6)

    def config(self, name: str) -> Config:
        """Return what a host runs with."""
        config = self._config
        if name in self._small:
            config = replace(config, whole_bytes_max=SMALL_BYTES)
        if not self._members or name in self.strangers:
            return config
        key = self._signatures.key(name.encode()).public_key
        token = issue(config.network, key, SERIAL, self._issuer)
        return replace(config, issuers=frozenset({self._issuer.public_key}), token=token)

    def begin(self, world: World) -> None:
        """Make what comes later come."""
        if self.revoked and self._members:
            world.at(self._when_us, partial(self._call_back, world, world.hosts[self._teller]))

    def _call_back(self, world: World, teller: Host) -> None:
        """An owner hears from the issuer and restarts its peer with that."""
        members = [world.hosts[name].key.public_key for name in self.revoked]
        network = self._config.network
        told = tuple(revoke(network, member, SERIAL, self._issuer) for member in members)
        teller.config = replace(teller.config, revoked=told)
        if teller.peer is not None:
            world.kill(teller, synced=True)
        world.at(world.now_us + OFF_US, partial(self._on, world, teller))

    @staticmethod
    def _on(world: World, host: Host) -> None:
        if host.peer is None:
            world.start(host)
