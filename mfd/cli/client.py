"""The HTTP API of a peer, from the side of the one who asks.

Rules of this file: the standard library alone, so that `mfd` starts fast; every failure is one
sentence.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from mfd.cli.errors import CommandError, Misuse

__all__ = ["API_DEFAULT", "Client", "Unreachable"]

API_DEFAULT = "http://127.0.0.1:47611"
TIMEOUT_SECONDS = 40.0  # above the 25 s of a long poll
ANSWER_BYTES_MAX = 64 << 20
READ_BYTES = 1 << 20
WAIT_SECONDS = 20
Json = dict[str, Any]
Parts = Sequence[bytes | bytearray | memoryview]


class Unreachable(CommandError):
    """Nobody answers at the address."""


class Client:
    """One peer's API. Every method raises CommandError with one sentence."""

    def __init__(
        self,
        url: str | None = None,
        token_file: Path | None = None,
        *,
        anonymous: bool = False,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.url = url or os.environ.get("MFD_API") or API_DEFAULT
        parts = urlsplit(self.url if "//" in self.url else f"http://{self.url}")
        self.url = self.url.rstrip("/")
        try:
            self._host, self._port = parts.hostname, parts.port
        except ValueError:
            self._host = None
        if parts.scheme not in ("http", "https") or not self._host or parts.path.strip("/"):
            raise Misuse(f"--api {self.url} is not an address: write http://HOST:PORT")
        self._secure = parts.scheme == "https"
        self._token = "" if anonymous else _read_token(token_file)
        self._timeout = timeout

    def get(self, path: str, **query: str | int) -> Json:
        """Fetch JSON."""
        text = f"?{urlencode(query)}" if query else ""
        with self._ask("GET", f"/api/{path}{text}") as answer:
            return self._json(answer)

    def post_walker(self, parts: Parts) -> str:
        """Send an injection file; return the walker's id."""
        size = sum(memoryview(part).nbytes for part in parts)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with self._ask("POST", "/api/walkers", body=parts, headers=headers) as answer:
            return str(self._json(answer)["walker"])

    def model(self, walker: str, size_max: int) -> bytearray:
        """Fetch the newest version of a walker that the peer holds, as a `.mfd` packet."""
        with self._ask("GET", f"/api/walkers/{quote(walker, safe='')}/model") as answer:
            if answer.status != 200:
                self._json(answer)
            size = int(answer.headers.get("Content-Length") or -1)
            if not 0 <= size <= size_max:
                raise CommandError(f"the model at {self.url} has {size} bytes, more than allowed")
            body = bytearray(size)
            view, done = memoryview(body), 0
            while done < size and (count := answer.readinto(view[done : done + READ_BYTES])):
                done += count
            if done < size:
                raise CommandError(f"{self.url} broke off in the middle of the model: try again")
            return body

    def follow(self, walker: str, after: int = 0, wait: int = WAIT_SECONDS) -> Iterator[list[Json]]:
        """Yield new reports of a walker as they come, an empty list after `wait` seconds."""
        while True:
            told = self.get("reports", after=after, walker=walker, wait=wait)
            after = int(told["last"])
            yield told["reports"]

    def reports(self, walker: str) -> list[Json]:
        """Return all reports that the peer still has of a walker, oldest first."""
        found: list[Json] = []
        last = -1
        while True:
            told = self.get("reports", after=max(last, 0), walker=walker)
            found += told["reports"]
            if told["last"] == last or not told["reports"]:
                return found
            last = int(told["last"])

    def find_walker(self, prefix: str) -> Json:
        """Return the one walker whose id begins with `prefix`, as this peer knows it."""
        walkers: list[Json] = self.get("walkers")["walkers"]
        found = [walker for walker in walkers if walker["walker"].startswith(prefix.lower())]
        if len(found) != 1:
            what = f"{len(found)} walkers have ids that begin" if found else "no walker's id begins"
            raise CommandError(f"{what} with {prefix!r} at {self.url}: `mfd status` lists them")
        return found[0]

    @contextmanager
    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Parts | None = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[HTTPResponse]:
        sent = dict(headers or {})
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        connection = self._connection()
        try:
            # a peer that refuses early may have answered all the same
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body=body, headers=sent)
            yield connection.getresponse()
        except (OSError, HTTPException) as exc:
            raise self._unreachable(exc) from exc
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        assert self._host is not None
        if not self._secure:
            return HTTPConnection(self._host, self._port, timeout=self._timeout)
        context = ssl.create_default_context()
        if self._host in ("127.0.0.1", "localhost", "::1"):  # a peer's own certificate names nobody
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)

    def _unreachable(self, error: Exception) -> CommandError:
        if isinstance(error, TimeoutError):
            return Unreachable(f"the peer at {self.url} does not answer in time: try again")
        if isinstance(error, ConnectionError | socket.gaierror):
            told = "" if self._port else ", which names no port"
            return Unreachable(
                f"no peer answers at {self.url}{told}: start one with mfd-peer, "
                "or give the status address that it prints with --api"
            )
        return Unreachable(f"the peer at {self.url} cannot be asked: {error}")

    def _json(self, answer: HTTPResponse) -> Json:
        body = answer.read(ANSWER_BYTES_MAX + 1)
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise CommandError(f"what answers at {self.url} is not a peer of MFD")
        if answer.status >= 400:
            raise CommandError(f"{value.get('error', 'refused without a reason')} ({self.url})")
        return value


def _read_token(path: Path | None) -> str:
    where = path or os.environ.get("MFD_API_TOKEN_FILE")
    if not where:
        return ""
    try:
        return Path(where).expanduser().read_text("utf-8").strip()
    except OSError as exc:
        raise Misuse(f"the token file {where} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise Misuse(f"the token file {where} is no text") from exc
