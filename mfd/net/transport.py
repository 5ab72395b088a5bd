"""Links over TCP: an HTTP request that becomes frames, twice, bound to one proven neighbour.

Rules of this file: it makes links and loses them; what the frames mean is the core's business. What
happens is posted as events. A neighbour can slow down or end its own link, nothing else.
Source: spec/link.md.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
from aiohttp import web

from mfd.core.effects import Send
from mfd.core.events import DialFailed, Event, LinkDown, LinkUp, Received
from mfd.net import handshake
from mfd.net.addresses import Address, parse_address
from mfd.net.emulation import Emulation, Wire
from mfd.net.frames import BufferPool, FrameConnection
from mfd.net.handshake import Refusal, Refused, Terms
from mfd.net.keys import KeyPair, verify
from mfd.net.links import Attempt, Link, bytes_of
from mfd.net.tls import Tls

__all__ = ["PATH", "UPGRADE", "Link", "Transport"]

PATH = "/mfd/link"
UPGRADE = "mfd/1"
HANDSHAKE_SECONDS = 5.0
UNFINISHED_PER_ADDRESS_MAX = 8
COST_DEFAULT = 100  # 1 ms
_HEADERS = {"Upgrade": UPGRADE, "Connection": "Upgrade"}


@dataclass(eq=False, slots=True)
class _Pending:
    """A proven neighbour whose bulk connection is still to come."""

    peer: bytes
    source: str
    token: bytes
    control: FrameConnection
    wire: Wire | None  # what the dialler wants emulated
    bound: asyncio.Future[None]


class Transport:
    """All links of one peer. Posts LinkUp, LinkDown, DialFailed and Received.

    `costs` maps a peer id in hexadecimal, or an address as dialled, to a link cost in 10 us units;
    `emulate` maps an address as dialled to what its link is to be like. Without it, what a dialler
    tells of emulation is ignored.
    """

    def __init__(
        self,
        keys: KeyPair,
        terms: Terms,
        post: Callable[[Event], None],
        *,
        tls: Tls | None = None,
        costs: Mapping[str, int] | None = None,
        emulate: Mapping[str, Wire] | None = None,
    ) -> None:
        self.links: dict[int, Link] = {}
        self._ended = Counter[str]()  # bytes over connections that have ended
        self._keys = keys
        self._terms = terms
        self._post = post
        self._tls = tls
        self._costs = costs or {}
        self._emulate = emulate
        self._pool = BufferPool()
        self._connections: set[FrameConnection] = set()
        self._unfinished: Counter[str] = Counter()
        self._pending: dict[bytes, _Pending] = {}
        self._dials: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._count = 0
        self._stopping = False

    def routes(self) -> list[web.RouteDef]:
        """What the HTTP server has to serve for links to begin."""
        return [web.get(PATH, self._serve, allow_head=False)]

    # the listening end

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != UPGRADE:
            text = f"this address speaks {UPGRADE}: dial it with mfd-peer --join\n"
            return web.Response(status=426, headers=_HEADERS, text=text)
        source = request.remote or ""
        if self._stopping:
            return web.Response(status=503, text="this peer is stopping\n")
        if self._unfinished[source] >= UNFINISHED_PER_ADDRESS_MAX:
            return web.Response(status=429, text="too many unfinished links from this address\n")
        deadline = asyncio.get_running_loop().time() + HANDSHAKE_SECONDS
        self._unfinished[source] += 1
        pending = None
        try:
            response = web.StreamResponse(status=101, headers=_HEADERS)
            await response.prepare(request)
            if request.transport is None:  # the dialler went away
                return response
            connection = self._take_over(request.transport, request.protocol)
            async with _refusing(connection, deadline):
                pending = await self._admit(connection, source)
        finally:
            self._unfinished[source] -= 1
            if not self._unfinished[source]:
                del self._unfinished[source]
        if pending is not None:
            async with _refusing(connection, deadline):
                await self._wait_bound(pending)
        # aiohttp would close the connection as idle if its handler ended before it
        await asyncio.wait((connection.lost,))
        return response

    async def _admit(self, connection: FrameConnection, source: str) -> _Pending | None:
        """Prove a dialler on a control connection, or bind a bulk one. Raises: Refused."""
        first = await connection.receive()
        if handshake.is_bulk(first):
            self._bind(connection, handshake.read_bulk(first), source)
            return None
        certificate = self._tls.certificate if self._tls else b""
        side = handshake.Listener(
            self._keys, verify, self._terms, nonce=_fresh(), certificate=certificate
        )
        connection.send([side.answer(first)])
        token = _fresh()
        answer = side.finish(await connection.receive(), token)
        self._check_room(side.peer, outbound=False)
        bound = asyncio.get_running_loop().create_future()
        wire = None if self._emulate is None else Wire.of_caps(side.caps)
        pending = _Pending(side.peer, source, token, connection, wire, bound)
        self._pending[token] = pending
        connection.send([answer])
        return pending

    async def _wait_bound(self, pending: _Pending) -> None:
        try:
            await asyncio.wait(
                (pending.bound, pending.control.lost), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._pending.pop(pending.token, None)

    def _bind(self, bulk: FrameConnection, token: bytes, source: str) -> None:
        pending = self._pending.get(token)
        if pending is None or pending.source != source or pending.control.lost.done():
            raise Refused(Refusal.TOKEN)
        del self._pending[token]
        try:
            self._check_room(pending.peer, outbound=False)
        except Refused as refused:
            pending.control.close(str(refused))
            raise
        bulk.send([handshake.bound()])
        pending.bound.set_result(None)
        connections = (pending.control, bulk)
        remote, wire = pending.control.remote, pending.wire
        self._stand(pending.peer, remote, connections, outbound=False, wire=wire)

    # the dialling end

    def dial(self, address: str) -> None:
        """Try to make a link; LinkUp or DialFailed is posted. One dial an address at a time."""
        if address not in self._dials and not self._stopping:
            task = asyncio.get_running_loop().create_task(self._dial(address))
            self._dials[address] = task
            task.add_done_callback(partial(self._dialled, address))

    def _dialled(self, address: str, task: asyncio.Task[None]) -> None:
        if self._dials.get(address) is task:
            del self._dials[address]

    async def _dial(self, text: str) -> None:
        attempt, standing = Attempt(), b""
        try:
            address = parse_address(text)
            if address.network not in (None, self._terms.network):
                raise Refused(Refusal.NETWORK)
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await self._connect(address, text, attempt)
            return
        except Refused as refused:
            reason = str(refused)
            if refused.code is Refusal.DUPLICATE:
                standing = attempt.peer
            elif refused.here:  # not of a duplicate, which may be up over there
                for connection in attempt.opened:
                    connection.send([handshake.refusal(refused.code)])
        except TimeoutError:
            reason = f"no answer within {HANDSHAKE_SECONDS:.0f} seconds"
        except (ConnectionRefusedError, aiohttp.ClientConnectorError):
            reason = "nobody listens there"
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            reason = str(exc)
        for connection in attempt.opened:
            connection.close(reason)
        self._dials.pop(text, None)  # before the core is told: it may dial again at once
        self._post(DialFailed(text, reason, standing))

    async def _connect(self, address: Address, text: str, attempt: Attempt) -> None:
        wire = (self._emulate or {}).get(text)
        control, certificate = await self._open(address, attempt.opened)
        side = handshake.Dialler(
            self._keys,
            verify,
            self._terms,
            nonce=_fresh(),
            certificate=certificate,
            expected=address.peer,
            caps=wire.caps() if wire else None,
        )
        control.send([side.hello()])
        answer = side.answer(await control.receive())
        attempt.peer = side.peer
        self._check_room(side.peer, outbound=True)
        control.send([answer])
        token = side.finish(await control.receive())
        bulk, again = await self._open(address, attempt.opened)
        if again != certificate:
            raise Refused(Refusal.PROOF)
        bulk.send([handshake.bind_bulk(token)])
        handshake.read_bound(await bulk.receive())
        self._dials.pop(text, None)  # before the core is told, as where a dial fails
        self._stand(side.peer, text, (control, bulk), outbound=True, wire=wire)

    async def _open(
        self, address: Address, opened: list[FrameConnection]
    ) -> tuple[FrameConnection, bytes]:
        """Make one connection; return it with the certificate that it shows (empty: no TLS)."""
        if self._session is None:  # made where a loop runs; without a limit, since links stay
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        scheme = "https" if self._tls else "http"
        response = await self._session.get(
            f"{scheme}://{address.authority}{PATH}",
            headers=_HEADERS,
            allow_redirects=False,
            ssl=self._tls.client if self._tls else True,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        below = response.connection
        if response.status != 101 or below is None or below.transport is None:
            response.close()
            if response.status == 503:
                raise Refused(Refusal.STOPPING, here=False)
            raise ConnectionError(
                f"{address.authority} answered with HTTP status {response.status} "
                "instead of a link: check the address, or try again later"
            )
        secure = below.transport.get_extra_info("ssl_object")
        connection = self._take_over(below.transport, below.protocol)
        connection.lost.add_done_callback(lambda _: response.close())
        opened.append(connection)
        return connection, secure.getpeercert(binary_form=True) if secure is not None else b""

    # links

    def _take_over(
        self, transport: asyncio.Transport, below: asyncio.BaseProtocol | None
    ) -> FrameConnection:
        connection = FrameConnection(transport, below, self._pool)
        connection.frame_bytes_max = handshake.MESSAGE_BYTES_MAX
        self._connections.add(connection)
        connection.lost.add_done_callback(lambda _: self._forget(connection))
        return connection

    def _forget(self, connection: FrameConnection) -> None:
        self._connections.discard(connection)
        self._ended += bytes_of(connection)

    def link_counters(self) -> dict[int, dict[str, int]]:
        """Bytes over the links that stand, by link, channel and direction."""
        return {
            link.number: dict(bytes_of(link.control) + bytes_of(link.bulk))
            for link in self.links.values()
        }

    def counters(self) -> Counter[str]:
        """Bytes over all connections so far, by channel and direction (L-23)."""
        return sum(map(bytes_of, self._connections), start=self._ended)

    def _yields(self, peer: bytes, *, outbound: bool) -> bool:
        """Say whether a new link to `peer` has to give way to the one that stands (L-19)."""
        old = next((link for link in self.links.values() if link.peer == peer), None)
        if old is None:
            return False
        me = self._keys.public_key
        if outbound:  # one way out is enough: a second address of the same peer brings nothing
            return old.outbound or peer < me
        return old.outbound and me < peer

    def _check_room(self, peer: bytes, *, outbound: bool) -> None:
        """Raise Refused where a new link to `peer` is not to come up here."""
        if self._stopping:
            raise Refused(Refusal.STOPPING)
        if self._yields(peer, outbound=outbound):
            raise Refused(Refusal.DUPLICATE)

    def _stand(
        self,
        peer: bytes,
        address: str,
        connections: tuple[FrameConnection, FrameConnection],
        *,
        outbound: bool,
        wire: Wire | None,
    ) -> None:
        """Bring a link up, or raise Refused where one to this peer stays."""
        self._check_room(peer, outbound=outbound)
        for old in [link for link in self.links.values() if link.peer == peer]:
            self.close_link(old.number, "another link to the same peer took its place")
        self._count += 1
        link = Link(self._count, peer, address, outbound, *connections)
        self.links[link.number] = link
        cost = self._costs.get(peer.hex(), self._costs.get(address, COST_DEFAULT))
        dice = random.Random(self._keys.public_key + peer)  # the same losses in every run
        link.stand(self._post, Emulation(wire, dice) if wire else None)
        private = self._tls is not None
        up = LinkUp(link.number, peer, address, outbound, cost, private=private, paced=True)
        self._post(up)
        for connection in connections:
            connection.lost.add_done_callback(partial(self._lost, link))
            connection.deliver(partial(self._received, link.number))

    def _received(self, link: int, frame: memoryview) -> None:
        self._post(Received(link, frame))

    def _lost(self, link: Link, reason: asyncio.Future[str]) -> None:
        self._drop(link, reason.result())

    def _drop(self, link: Link, reason: str) -> None:
        if self.links.pop(link.number, None) is not None:
            link.close(reason)
            self._post(LinkDown(link.number, reason))

    def send(self, effect: Send) -> None:
        """Write a frame; a link that is gone takes none."""
        link = self.links.get(effect.link)
        if link is not None:
            link.send(effect)

    def close_link(self, number: int, reason: str) -> None:
        """End a link after what was sent on it; LinkDown is posted."""
        if (link := self.links.get(number)) is not None:
            self._drop(link, reason)

    async def close(self) -> None:
        """End everything; takes little more than a second where neighbours do not read."""
        self._stopping = True
        dials = list(self._dials.values())
        for task in dials:
            task.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
        for number in list(self.links):
            self.close_link(number, "this peer stops")
        ends = [connection.lost for connection in self._connections]
        for connection in list(self._connections):
            connection.close("this peer stops")
        if ends:
            await asyncio.wait(ends)
        if self._session is not None:
            await self._session.close()


@asynccontextmanager
async def _refusing(connection: FrameConnection, deadline: float) -> AsyncIterator[None]:
    """Turn whatever goes wrong in a handshake into the end of this one connection (L-05, L-14)."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
        return
    except Refused as exc:
        refused = exc
    except TimeoutError:
        refused = Refused(Refusal.LATE)
    except ConnectionError:
        return
    if refused.here:
        connection.send([handshake.refusal(refused.code)])
    connection.close(str(refused))


def _fresh() -> bytes:
    return secrets.token_bytes(handshake.NONCE_BYTES)
