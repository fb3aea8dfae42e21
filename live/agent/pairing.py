"""What a pairing token stands for: a key to knock with, and the TLS key pair that all paired devices share.

Both are derived from the token, so that copying one line pairs a device, and the key that the other side
must show is known before it is first met::

    k1 k2 = scrypt(token)              H("knock" ...) is made with k1; k2 is the Ed25519 private key
    certificate = signed with k2, the same to the byte on every device, and the only one that is trusted

TLS 1.3 with it on both sides proves that each has the token now, encrypts, and makes a fresh key for each
connection: who gets hold of the token later cannot read what was recorded before.
"""

from __future__ import annotations

import hashlib
import secrets
import ssl
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["MIN_TOKEN_CHARS", "Pairing", "WireError", "check_token", "new_token", "pairing"]

# a recorded knock can be guessed at offline, so a token must be long enough to make that hopeless
MIN_TOKEN_CHARS = 16
# C. Percival, "Stronger key derivation via sequential memory-hard functions" (2009), for interactive use:
# 16 MiB and some 0.1 s for each guess, and for us once per process
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1
SALT = b"lansim agent 2"
KEY_BYTES = 32
SUBJECT = "lansim agent"


class WireError(Exception):
    """The other side is gone, silent, has another token, or sends what no agent sends."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """The key of knocks, and TLS for both sides: each shows the pinned certificate and takes no other."""

    knock_key: bytes
    asking: ssl.SSLContext
    answering: ssl.SSLContext


def new_token() -> str:
    """A fresh pairing token of 128 random bits."""
    return secrets.token_urlsafe(16)


def check_token(token: str) -> bytes:
    """The token as bytes; raises WireError when there is none, or it is too short to keep guessers out.

    The way out differs (an agent can make a token, an asker needs the agent's), so the caller adds it.
    """
    if not token:
        raise WireError("no token was given")
    if len(token) < MIN_TOKEN_CHARS:
        raise WireError(f"the token has {len(token)} characters, at least {MIN_TOKEN_CHARS} are needed")
    return token.encode()


@lru_cache(maxsize=8)
def pairing(token: bytes) -> Pairing:
    """What `token` stands for; takes 0.1 s the first time. Raises WireError without `cryptography`."""
    derived = hashlib.scrypt(token, salt=SALT, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=2 * KEY_BYTES)
    key, certificate = _identity(derived[KEY_BYTES:])
    asking, answering = (
        _context(kind, key, certificate) for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)
    )
    answering.num_tickets = 0  # nothing is resumed, and no late record disturbs what is timed
    return Pairing(derived[:KEY_BYTES], asking, answering)


def _identity(seed: bytes) -> tuple[str, str]:
    """Private key and certificate as PEM; the same for the same 32 bytes, since Ed25519 signs without chance.

    Valid for ever: a phone's clock may stand anywhere, and a new token is what ends a pairing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise WireError(
            f"the package cryptography cannot be used ({error}): pip install cryptography, in Termux pkg "
            "install python-cryptography, or run the set-up script's install again"
        ) from error
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SUBJECT)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1970, 1, 1))
        .not_valid_after(datetime(9999, 12, 31))
        .sign(key, None)
    )
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return private.decode(), certificate.public_bytes(form.Encoding.PEM).decode()


def _context(kind: int, key: str, certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # devices have no names; the one certificate says all
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificate)
    # the standard library takes a private key from a file only: one that others cannot open, for a moment
    with TemporaryDirectory() as folder:
        file = Path(folder, "pem")
        file.write_text(key + certificate, encoding="ascii")
        context.load_cert_chain(file)
    return context
