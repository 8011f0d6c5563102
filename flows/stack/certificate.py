"""A certificate for servers that speak with themselves: made anew at each start, known to nobody else.

What does not belong here: what is served with it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.stack import place

NAME = "leptonflow"
DAYS = 3650


def write(certificate: Path, key: Path) -> None:
    """A self-signed certificate, its own authority, and its key, as PEM files that only this user may read."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(private, hashes.SHA256())
    )
    unencrypted = serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted)
    place.write(key, pem.decode())
    place.write(certificate, signed.public_bytes(serialization.Encoding.PEM).decode())
