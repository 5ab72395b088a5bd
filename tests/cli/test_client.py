"""The client against servers that are no peers, or bad ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mfd.cli.client import Client
from mfd.cli.errors import CommandError, Misuse


class _Server(HTTPServer):
    answer = (200, b"{}")
    length: int | None = None
    seen: list[tuple[str, dict[str, str]]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(self.server.length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()  # answers without reading, as a peer that refuses does

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: _Server) -> Client:
    return Client(f"http://127.0.0.1:{server.server_port}")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff", b"[" * 100_000, b""])
def test_answers_of_other_programs_are_no_peers(
    server: _Server, client: Client, body: bytes
) -> None:
    server.answer = (200, body)
    with pytest.raises(CommandError, match="not a peer of MFD"):
        client.get("status")


def test_the_peers_own_sentence_is_passed_on(server: _Server, client: Client) -> None:
    server.answer = (409, b'{"error": "the plan says no"}')
    with pytest.raises(CommandError, match="the plan says no"):
        client.get("status")
    with pytest.raises(CommandError, match="the plan says no"):
        client.post_walker([bytes(1 << 20)] * 8)  # the peer closes while this is being sent
    with pytest.raises(CommandError, match="the plan says no"):
        client.model("ab", 10)


def test_models_are_bounded_and_whole(server: _Server, client: Client) -> None:
    server.answer = (200, b"12345")
    assert client.model("ab/..", 5) == b"12345"
    assert server.seen[-1][0] == "/api/walkers/ab%2F../model"
    with pytest.raises(CommandError, match="more than allowed"):
        client.model("ab", 4)
    server.length = 9
    with pytest.raises(CommandError, match="broke off"):
        client.model("ab", 10)


def test_a_walker_must_be_one(server: _Server, client: Client) -> None:
    server.answer = (200, b'{"walkers": [{"walker": "ab1"}, {"walker": "ab2"}]}')
    assert client.find_walker("AB2") == {"walker": "ab2"}
    for prefix, part in (("ab", "2 walkers"), ("c", "no walker")):
        with pytest.raises(CommandError, match=part):
            client.find_walker(prefix)


def test_the_token_comes_from_a_file(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    url = f"http://127.0.0.1:{server.server_port}"
    Client(url, path).get("status")
    assert server.seen[-1][1]["Authorization"] == "Bearer s3cret"
    monkeypatch.setenv("MFD_API_TOKEN_FILE", str(path))
    Client(url).get("status")
    assert server.seen[-1][1]["Authorization"] == "Bearer s3cret"
    with pytest.raises(Misuse, match="token file"):
        Client(url, tmp_path / "none")


@pytest.mark.parametrize("url", ["ftp://a:1", "http://", "http://a:99999", "http://a/b"])
def test_wrong_addresses(url: str) -> None:
    with pytest.raises(Misuse, match="http://HOST:PORT"):
        Client(url)
