"""The HTTP API of a peer, and its status page.

    GET  /api/status   /api/peers   /api/routes   /api/walkers
    GET  /api/reports?after=N&walker=PREFIX&wait=SECONDS       -> {"reports": [...], "last": N}
    POST /api/walkers              an injection file           -> 201 {"walker": id}
    GET  /api/walkers/PREFIX/model                             -> a .mfd packet
    POST /api/join                 {"address": "..."}          -> {"joined": address}

Rules of this file: it shows what a `Face` tells and decides nothing. Every error is JSON:
{"error": one sentence}. Who is answered: see guard.py.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from math import isfinite
from typing import Any

from aiohttp import web

from mfd.core.events import CommandFailed
from mfd.web.face import Face
from mfd.web.guard import Refused, admit, harden

__all__ = ["REPORTS_PER_ANSWER", "WAIT_SECONDS_MAX", "dumps", "routes"]

log = logging.getLogger("mfd.web")

WAIT_SECONDS_MAX = 25.0  # below the patience of browsers and proxies
REPORTS_PER_ANSWER = 1_000  # a client asks again from the last one
PREFIX_DIGITS_MAX = 64
JOIN_BYTES_MAX = 4 << 10
PARTS = {"peers": "links", "routes": "routes", "walkers": "walkers"}  # path -> key of the status
STATIC = {
    "/": ("index.html", "text/html"),
    "/static/app.js": ("app.js", "text/javascript"),
    "/static/style.css": ("style.css", "text/css"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(face: Face, *, token: str = "") -> list[web.AbstractRouteDef]:
    """The routes of one peer. With `token`, every API request must carry it as a bearer token."""
    api = _Api(face)
    known: list[tuple[str, str, Handler]] = [
        ("GET", "/api/status", api.status),
        ("GET", "/api/reports", api.reports),
        ("POST", "/api/walkers", api.inject),
        ("GET", "/api/walkers/{prefix}/model", api.model),
        ("POST", "/api/join", api.join),
        *(("GET", f"/api/{path}", api.part(path)) for path in PARTS),
        ("*", "/api/{tail:.*}", _nothing_here),
    ]
    guarded = [web.route(method, path, _guarded(handler, token)) for method, path, handler in known]
    pages = [web.get(path, _page(name, kind)) for path, (name, kind) in STATIC.items()]
    return [*guarded, *pages]


def _guarded(handler: Handler, token: str) -> Handler:
    """Check who asks, and turn whatever goes wrong into a sentence."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            admit(request, token)
            return await handler(request)
        except Refused as exc:
            return _answer({"error": str(exc)}, exc.status)
        except CommandFailed as exc:
            return _answer({"error": str(exc)}, 409)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:  # task boundary: one request must not end the peer
            log.exception("%s %s failed", request.method, request.path)
            return _answer({"error": "the peer failed to answer; its log tells why"}, 500)

    return handle


def _page(name: str, kind: str) -> Handler:
    body = files("mfd.web").joinpath("static", name).read_bytes()

    async def handle(_: web.Request) -> web.StreamResponse:
        response = web.Response(body=body, content_type=kind, charset="utf-8")
        harden(response)
        return response

    return handle


async def _nothing_here(request: web.Request) -> web.StreamResponse:
    raise Refused(404, f"there is no {request.method} {request.path} here")


class _Api:
    def __init__(self, face: Face) -> None:
        self._face = face

    async def status(self, _: web.Request) -> web.StreamResponse:
        return _answer(self._face.status())

    def part(self, path: str) -> Handler:
        async def handle(_: web.Request) -> web.StreamResponse:
            told = self._face.status()
            more = {"members": told["members"]} if path == "peers" else {}
            return _answer({path: told[PARTS[path]], **more})

        return handle

    async def reports(self, request: web.Request) -> web.StreamResponse:
        """Long poll: answer at once where there is something to tell, else when there is."""
        after = int(_number(request, "after", 0))
        wait = min(_number(request, "wait", 0), WAIT_SECONDS_MAX)
        walker = _prefix(request.query.get("walker", ""))
        end = time.monotonic() + wait
        last = after
        while True:
            found = self._face.reports(after=last, walker=walker)
            if found or (left := end - time.monotonic()) <= 0:
                break
            newest = self._face.reports(after=last, walker="")
            last = newest[-1]["n"] if newest else last
            await self._face.wait_reports(after=last, seconds=left)
        found = found[:REPORTS_PER_ANSWER]
        return _answer({"reports": found, "last": found[-1]["n"] if found else last})

    async def inject(self, request: web.Request) -> web.StreamResponse:
        walker = await self._face.inject(request.content.iter_any())
        return _answer({"walker": walker}, 201)

    async def model(self, request: web.Request) -> web.StreamResponse:
        prefix = _prefix(request.match_info["prefix"])
        try:
            parts = await self._face.model(prefix)
        except CommandFailed as exc:
            raise Refused(404, str(exc)) from exc
        response = web.StreamResponse()
        harden(response)
        response.content_type = "application/octet-stream"
        response.content_length = sum(memoryview(part).nbytes for part in parts)
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        await response.write_eof()
        return response

    async def join(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            raise Refused(415, 'send JSON: {"address": "host:port"}')
        body = bytearray()
        async for data in request.content.iter_any():
            body += data
            if len(body) > JOIN_BYTES_MAX:
                raise Refused(413, f"this request has more than {JOIN_BYTES_MAX} bytes")
        try:
            address = json.loads(body)["address"]
        except (ValueError, KeyError, TypeError, RecursionError):
            address = None
        if not isinstance(address, str):
            raise Refused(400, 'send JSON: {"address": "host:port"}')
        try:
            self._face.join(address)
        except CommandFailed as exc:
            raise Refused(400, str(exc)) from exc
        return _answer({"joined": address})


def _number(request: web.Request, key: str, default: float) -> float:
    text = request.query.get(key)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 2**53:
        raise Refused(400, f"{key}={text} is not a number from 0 on")
    return value


def _prefix(text: str) -> str:
    text = text.lower()
    if len(text) > PREFIX_DIGITS_MAX or not set(text) <= set("0123456789abcdef"):
        raise Refused(400, f"{text[:80]!r} is not the beginning of a walker's id: hexadecimal only")
    return text


def _answer(value: Any, status: int = 200) -> web.Response:
    response = web.Response(text=dumps(value), status=status, content_type="application/json")
    harden(response)
    return response


def dumps(value: Any) -> str:
    """Write JSON on one line."""
    return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    """JSON knows no infinity and no NaN, but a loss may be either: then it is null."""
    match value:
        case float():
            return value if isfinite(value) else None
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
