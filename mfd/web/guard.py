"""Who may use the API: the owner of the peer, from this machine or with a token.

Rules of this file: pure checks of one request. A page of another site must not reach the API
through the owner's browser, neither by a cross-origin request nor by a name that was made to point
at this machine (DNS rebinding).
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

__all__ = ["CSP", "Refused", "admit", "harden"]

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class Refused(Exception):
    """A request that is not answered; the sentence says why and what to do."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def admit(request: web.Request, token: str) -> None:
    """Let the owner's request pass. Raises: Refused."""
    if request.method not in ("GET", "HEAD"):
        _refuse_other_origins(request)
    if token:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise Refused(401, "this peer wants its API token: give mfd --token-file FILE")
    elif not _is_loopback(request.remote or ""):
        raise Refused(403, "this API answers only its own machine; set api_token_file to open it")
    elif not _is_loopback(_host_of(f"//{request.headers.get('Host', '')}")):
        raise Refused(403, "use 127.0.0.1 or localhost as the host, or set api_token_file")


def harden(response: web.StreamResponse) -> None:
    """Tell browsers to run, show and lead to nothing that is not ours."""
    response.headers["Content-Security-Policy"] = CSP
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"


def _refuse_other_origins(request: web.Request) -> None:
    """Browsers name the page's origin in every POST; programs name none."""
    origin = request.headers.get("Origin")
    own = f"{request.scheme}://{request.headers.get('Host', '')}"
    if origin is not None and origin != own:
        raise Refused(403, "requests of other sites are refused")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refused(403, "requests of other sites are refused")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return bool((mapped or address).is_loopback)
