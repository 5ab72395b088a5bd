from __future__ import annotations

import ssl

from mfd.net.tls import Tls


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake in memory; returns the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname="x")
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (near, far, near, far):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return near


def test_the_certificate_that_a_client_sees_is_the_one_that_is_signed_for() -> None:
    """Rules: L-09."""
    one, other = Tls.fresh(), Tls.fresh()
    end = shake(one.server, other.client)
    assert end.version() == "TLSv1.3"
    assert end.getpeercert(binary_form=True) == one.certificate != other.certificate
