"""TLS 1.3 with a certificate made for one run: who the peer is, the handshake above proves.

Rules of this file: the certificate names nobody and is trusted by nobody. Its digest is part of
what both peers sign, so whoever ends TLS in between is found out.
Source: spec/link.md section 2 (L-09).
"""

from __future__ import annotations

import datetime
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

__all__ = ["Tls"]

DAYS = 3650  # nobody reads the dates, but libraries insist on them


@dataclass(frozen=True, slots=True)
class Tls:
    """Both ends' contexts and the certificate that the listening end shows."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    certificate: bytes  # DER

    @classmethod
    def fresh(cls) -> Tls:
        """Make a new self-signed certificate and contexts that speak TLS 1.3 only."""
        key = Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mfd")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=DAYS))
            .not_valid_after(now + datetime.timedelta(days=DAYS))
            .sign(key, None)
        )
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.minimum_version = ssl.TLSVersion.TLSv1_3
        server.num_tickets = 0  # no resumption: every connection shows its certificate
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with tempfile.TemporaryDirectory() as folder:  # mode 0700; ssl loads from files alone
            path = Path(folder) / "pair.pem"
            path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
            server.load_cert_chain(path)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.minimum_version = ssl.TLSVersion.TLSv1_3
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE  # L-09 does this work
        return cls(server, client, certificate.public_bytes(Encoding.DER))
