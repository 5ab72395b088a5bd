"""Finding peers on the LAN, and being found: multicast DNS with service discovery.

    service _mfd._tcp.local.    instance NETWORK-PEER    TXT id=PEER

NETWORK are 8 hexadecimal digits of SHA-256(network), PEER 16 of the peer id; the TXT record has it
in full. Rules of this file: what is heard proves nothing and is only passed on; the package
zeroconf is loaded only where discovery is wanted.
Source: spec/membership.md, section "On the LAN".
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mfd.core.records import is_address
from mfd.net.addresses import is_any, is_ip
from mfd.net.keys import parse_peer_id

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

__all__ = ["SERVICE", "Discovery", "DiscoveryError", "instance_name"]

log = logging.getLogger("mfd")

SERVICE = "_mfd._tcp.local."
REQUEST_MS = 3_000
HEARD_MAX = 1_024  # instances looked at; a LAN full of lies must not fill our memory
Found = Callable[[bytes, str], None]


class DiscoveryError(RuntimeError):
    """The LAN cannot be searched; the sentence says why and what to do."""


def instance_name(network: str, peer: bytes) -> str:
    """Return the name under which a peer of a network announces itself."""
    return f"{_network_digits(network)}-{peer.hex()[:16]}.{SERVICE}"


def _network_digits(network: str) -> str:
    return hashlib.sha256(network.encode()).hexdigest()[:8]


class Discovery:
    """An async context manager: inside, this peer is announced and others are told of.

    `addresses` are those that others dial, host:port; the IP addresses among them that share the
    first one's port are announced. `found(peer, address)` is called for every other peer of the
    network, again when it changes. `host` is what this peer listens on: an IP address means that
    interface alone.
    Raises: DiscoveryError on entering.
    """

    def __init__(
        self,
        network: str,
        peer: bytes,
        addresses: Sequence[str],
        found: Found,
        *,
        host: str = "",
    ) -> None:
        self._network = network
        self._peer = peer
        self._addresses = addresses
        self._found = found
        self._interfaces = [host] if is_ip(host) and not is_any(host) else []
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None

    async def __aenter__(self) -> Self:
        try:
            from zeroconf import Error, InterfaceChoice
            from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf
        except ImportError as exc:
            raise DiscoveryError(
                "finding peers on the LAN needs the package zeroconf: install it with "
                "`pip install 'mfd[lan]'`, or start without --lan"
            ) from exc
        info = self._info()
        try:
            self._zeroconf = AsyncZeroconf(interfaces=self._interfaces or InterfaceChoice.All)
            await self._zeroconf.async_register_service(info)
            self._browser = AsyncServiceBrowser(
                self._zeroconf.zeroconf, SERVICE, handlers=[self._changed]
            )
        except (OSError, Error) as exc:
            await self.close()
            raise DiscoveryError(
                f"the LAN cannot be searched: {exc or type(exc).__name__}; "
                "check that multicast works here, or start without --lan"
            ) from exc
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Take the announcement back and listen no more."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()
        self._browser = self._zeroconf = None

    def _info(self) -> AsyncServiceInfo:
        from zeroconf.asyncio import AsyncServiceInfo

        parts = [address.rpartition(":") for address in self._addresses]
        hosts = [(_ip(host), int(port)) for host, _, port in parts]
        usable = [(host, port) for host, port in hosts if host is not None]
        if not usable:
            raise DiscoveryError(
                "this peer has no IP address to announce on the LAN: give it one with "
                "--listen or --advertise"
            )
        port = usable[0][1]
        return AsyncServiceInfo(
            SERVICE,
            instance_name(self._network, self._peer),
            addresses=[host.packed for host, own in usable if own == port],
            port=port,
            properties={"id": self._peer.hex()},
            server=f"mfd-{self._peer.hex()[:16]}.local.",
        )

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        """An instance has appeared or changed: ask for its address, if it is of our network."""
        from zeroconf import ServiceStateChange

        ours = name.startswith(f"{_network_digits(self._network)}-")
        if state_change is ServiceStateChange.Removed or not ours:
            return
        if name == instance_name(self._network, self._peer) or name in self._asking:
            return
        if len(self._asking) < HEARD_MAX:
            task = asyncio.get_running_loop().create_task(self._ask(zeroconf, name))
            self._asking[name] = task
            task.add_done_callback(lambda _: self._asking.pop(name, None))

    async def _ask(self, zeroconf: Zeroconf, name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(zeroconf, REQUEST_MS):
            return
        told = read_instance(self._network, name, info)
        if told is not None and told[0] != self._peer:
            self._found(*told)


def read_instance(network: str, name: str, info: Any) -> tuple[bytes, str] | None:
    """Return (peer, address) of what an instance says; None where it makes no sense."""
    digits = (info.properties or {}).get(b"id") or b""
    try:
        peer = parse_peer_id(digits.decode("ascii"))
    except ValueError:
        return None
    if name != instance_name(network, peer):
        return None
    for host in info.parsed_addresses():
        address = f"[{host}]:{info.port}" if ":" in host else f"{host}:{info.port}"
        found = _ip(host)
        if is_address(address) and found is not None and not found.is_link_local:
            return peer, address
    return None


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
