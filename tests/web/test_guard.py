"""Who is let in, by where the request comes from."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from mfd.web.guard import Refused, admit


def _from(remote: str | None, **headers: str) -> None:
    request = make_mocked_request("GET", "/api/status", headers={"Host": "localhost", **headers})
    admit(request.clone(remote=remote), "")  # type: ignore[arg-type]


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_answered(remote: str) -> None:
    _from(remote)


@pytest.mark.parametrize("remote", ["10.0.0.1", "fe80::1", "::ffff:10.0.0.1", "", None])
def test_other_machines_are_not(remote: str | None) -> None:
    with pytest.raises(Refused) as refused:
        _from(remote, **{"X-Forwarded-For": "127.0.0.1"})
    assert refused.value.status == 403


def test_a_token_opens_the_api_to_other_machines() -> None:
    request = make_mocked_request("GET", "/", headers={"Authorization": "Bearer abc"})
    far = request.clone(remote="10.0.0.1")
    admit(far, "abc")
    with pytest.raises(Refused) as refused:
        admit(far, "abcd")
    assert refused.value.status == 401


@pytest.mark.parametrize("host", ["127.0.0.1.evil.example", "localhost.evil", "[", "2130706433"])
def test_hosts_that_only_look_like_this_machine(host: str) -> None:
    with pytest.raises(Refused):
        _from("127.0.0.1", Host=host)
