"""The HTTP API over a face that is not a peer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from mfd.cli.travel import STORY
from mfd.cli.view import BAD, GOOD
from mfd.web.api import REPORTS_PER_ANSWER, routes
from tests.web.faces import WALKER, FakeFace

Client = TestClient[web.Request, web.Application]


async def _client(face: FakeFace, token: str = "") -> Client:
    app = web.Application()
    app.add_routes(routes(face, token=token))
    app.router.add_get("/mfd/link", _link)
    client: Client = TestClient(TestServer(app))
    await client.start_server()
    return client


async def _link(_: web.Request) -> web.Response:
    return web.Response(text="link")


@pytest.fixture
async def face() -> FakeFace:
    return FakeFace()


@pytest.fixture
async def client(face: FakeFace) -> AsyncIterator[Client]:
    client = await _client(face)
    yield client
    await client.close()


async def test_each_part_of_the_status_has_its_path(client: Client, face: FakeFace) -> None:
    assert await (await client.get("/api/status")).json() == face.status()
    for path, part in (("peers", "links"), ("routes", "routes"), ("walkers", "walkers")):
        answer = await client.get(f"/api/{path}")
        more = {"members": face.status()["members"]} if path == "peers" else {}
        assert await answer.json() == {path: face.status()[part], **more}


async def test_reports_are_filtered_and_end_with_their_last_number(
    client: Client, face: FakeFace
) -> None:
    for walker in ("aa", "bb", "aa"):
        face.report("stop", walker=walker, loss=float("nan"))
    told = await (await client.get("/api/reports?after=1&walker=AA")).json()
    assert [r["n"] for r in told["reports"]] == [3]
    assert told["last"] == 3
    assert told["reports"][0]["loss"] is None  # JSON has no NaN


async def test_long_poll_wakes_for_its_walker_alone(client: Client, face: FakeFace) -> None:
    poll = asyncio.ensure_future(client.get("/api/reports?walker=aa&wait=20"))
    await face.waiting.wait()
    face.waiting.clear()
    face.report("stop", walker="bb")
    await face.waiting.wait()  # looked, found nothing of its own, waits again
    assert not poll.done()
    face.report("stop", walker="aa")
    told = await (await poll).json()
    assert [r["n"] for r in told["reports"]] == [2]


async def test_long_poll_that_ends_empty_moves_on(client: Client, face: FakeFace) -> None:
    face.report("linked")
    told = await (await client.get("/api/reports?walker=aa&wait=0")).json()
    assert told == {"reports": [], "last": 0}


async def test_one_answer_is_bounded_and_the_rest_follows(client: Client, face: FakeFace) -> None:
    for _ in range(REPORTS_PER_ANSWER + 5):
        face.report("linked")
    first = await (await client.get("/api/reports")).json()
    rest = await (await client.get(f"/api/reports?after={first['last']}")).json()
    assert len(first["reports"]) == REPORTS_PER_ANSWER
    assert len(rest["reports"]) == 5


@pytest.mark.parametrize(
    "query", ["after=x", "after=-1", "wait=nan", "walker=xyz", "walker=" + "a" * 65, "after=1e300"]
)
async def test_wrong_queries_are_told(client: Client, query: str) -> None:
    answer = await client.get(f"/api/reports?{query}")
    assert answer.status == 400
    assert "error" in await answer.json()


async def test_a_walker_is_streamed_in_and_its_model_out(client: Client, face: FakeFace) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(64 << 10)  # together above aiohttp's limit for whole bodies

    answer = await client.post("/api/walkers", data=body())
    assert (answer.status, await answer.json()) == (201, {"walker": WALKER})
    assert len(face.injected) == 4 << 20
    model = await client.get(f"/api/walkers/{WALKER[:6]}/model")
    assert (model.content_type, await model.read()) == ("application/octet-stream", b"onetwo")
    assert model.headers["Content-Length"] == "6"


async def test_what_the_peer_refuses_comes_back_as_a_sentence(client: Client) -> None:
    answer = await client.post("/api/walkers", data=b"bad")
    assert answer.status == 409
    assert await answer.json() == {"error": "this is not an injection file"}
    missing = await client.get("/api/walkers/00/model")
    assert missing.status == 404
    assert "no walker" in (await missing.json())["error"]


async def test_join_takes_json_alone(client: Client, face: FakeFace) -> None:
    assert (await client.post("/api/join", json={"address": "h:1"})).status == 200
    assert face.joined == ["h:1"]
    # A form of another site can send text without asking first, but not JSON.
    plain = json.dumps({"address": "h:2"})
    assert (await client.post("/api/join", data=plain)).status == 415
    for wrong in ({"address": 1}, [], {}, {"address": "nowhere"}):
        assert (await client.post("/api/join", json=wrong)).status == 400
    long = {"address": "h:" + "1" * 5000}
    assert (await client.post("/api/join", json=long)).status == 413
    assert face.joined == ["h:1"]


async def test_unknown_paths_and_methods_are_json_too(client: Client) -> None:
    for answer in (await client.get("/api/nothing"), await client.delete("/api/status")):
        assert answer.status == 404
        assert "error" in await answer.json()


async def test_a_failing_peer_shows_no_traceback(
    client: Client, face: FakeFace, caplog: pytest.LogCaptureFixture
) -> None:
    del face.parts
    answer = await client.get(f"/api/walkers/{WALKER}/model")
    assert answer.status == 500
    assert "parts" not in await answer.text()
    assert "parts" in caplog.text


async def test_names_that_point_here_and_other_sites_are_refused(
    client: Client, face: FakeFace
) -> None:
    port = client.port
    for host in ("evil.example", f"evil.example:{port}", "192.168.1.7", ""):
        answer = await client.get("/api/status", headers={"Host": host})
        assert answer.status == 403, host
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]"):
        assert (await client.get("/api/status", headers={"Host": host})).status == 200
    join = {"json": {"address": "h:1"}}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert (await client.post("/api/join", headers=headers, **join)).status == 403
        assert (await client.post("/api/walkers", headers=headers, data=b"x")).status == 403
    assert (face.joined, face.injected) == ([], b"")
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert (await client.post("/api/join", headers=own, **join)).status == 200


async def test_with_a_token_only_the_token_counts(face: FakeFace) -> None:
    client = await _client(face, token="s3cret")
    try:
        for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Bearer \u00fc"}):
            assert (await client.get("/api/status", headers=headers)).status == 401
        right = {"Authorization": "Bearer s3cret", "Host": "peer.example"}
        assert (await client.get("/api/status", headers=right)).status == 200
        other = {**right, "Origin": "https://evil.example"}
        assert (await client.post("/api/walkers", headers=other, data=b"x")).status == 403
        assert (await client.get("/")).status == 200  # the page holds nothing, and asks for it
        assert (await client.get("/mfd/link", headers={"Host": "x.example"})).status == 200
    finally:
        await client.close()


class _Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [v for k in ("src", "href") if (v := given.get(k)) is not None]
        self.inline |= tag == "style" or (tag == "script" and "src" not in given)
        self.inline |= any(key.startswith("on") or key == "style" for key in given)


async def test_the_page_needs_only_this_peer_and_runs_nothing_inline(client: Client) -> None:
    page = await client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    sources = _Sources()
    sources.feed(await page.text())
    assert not sources.inline
    assert sources.found == ["/static/icon.svg", "/static/style.css", "/static/app.js"]
    for path in sources.found:
        assert (await client.get(path)).status == 200


def test_the_page_tells_what_the_command_line_tells() -> None:
    script = files("mfd.web").joinpath("static", "app.js").read_text("ascii")
    colours = {
        name: re.search(rf"const {name} = new Set\(\[(.*?)\]", script, re.DOTALL)
        for name in ("BAD", "GOOD")
    }
    for name, words in (("BAD", BAD), ("GOOD", GOOD)):
        found = colours[name]
        assert found is not None
        assert set(re.findall(r'"([^"]+)"', found[1])) == words
    phrases = script.partition("const PHRASES = {")[2].partition("\n};")[0]
    assert set(re.findall(r"^  (\w+): ", phrases, re.MULTILINE)) == {*STORY, "parked"}


def test_the_page_makes_no_markup_of_what_it_is_told() -> None:
    script = files("mfd.web").joinpath("static", "app.js").read_text("ascii")
    for door in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert door not in script
