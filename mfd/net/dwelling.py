"""At which addresses this machine is, and when that changes.

Rules of this file: it asks the kernel and sends nothing. What the owner says stands above it.
Source: spec/membership.md, M-40.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from mfd.core.events import Addressed
from mfd.core.records import is_address
from mfd.net.addresses import Address, is_any

__all__ = ["Dwelling", "own_addresses"]

LOOK_SECONDS = 10.0
# destinations that a default route leads to and that are nobody's (RFC 5737, RFC 3849)
NOBODY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def own_addresses(listens: str, port: int) -> tuple[str, ...]:
    """The addresses from which this machine would reach others, host:port; none without a route.

    `listens` is the host listened on: 0.0.0.0 takes IPv4 alone.
    """
    found = []
    for family, nobody in NOBODY:
        if family == socket.AF_INET6 and ":" not in listens:
            continue
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((nobody, 9))  # of a datagram socket: only a route is looked up
                host = probe.getsockname()[0]
        except OSError:
            continue
        if not host.startswith("127.") and host != "::1":
            found.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return tuple(found)


def _by_name(port: int) -> tuple[str, ...]:
    """Where there is no route outside, as on a switch alone: what this machine is called."""
    told = f"{socket.gethostname()}:{port}"
    return (told,) if is_address(told) else ()


class Dwelling:
    """Tells the core where others dial, now and whenever the machine has moved."""

    def __init__(
        self,
        listens: Address,
        told: Sequence[str],
        post: Callable[[Addressed], None],
        look: Callable[[str, int], tuple[str, ...]] = own_addresses,
    ) -> None:
        self._listens = listens
        self._post = post
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        if told or not is_any(listens.host):
            here = (listens.authority,) if is_address(listens.authority) else ()
            self.addresses = tuple(told) or here
            post(Addressed(self.addresses))
        else:
            self.addresses = look(listens.host, listens.port) or _by_name(listens.port)
            post(Addressed(self.addresses))
            self._later()

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._again)

    def _again(self) -> None:
        self.look_again()
        self._later()

    def look_again(self) -> None:
        """Look now; a machine without any address keeps those that it had."""
        found = self._look(self._listens.host, self._listens.port)
        if found and found != self.addresses:
            self.addresses = found
            self._post(Addressed(found))

    def cancel(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
