"""Addresses of a cluster as a person writes them: `exo://macbook.local:52415,10.0.0.7`."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from simulator.errors import LiveError

__all__ = ["API_PORT", "base_urls", "is_legacy", "kind_of"]

API_PORT = 52415  # EXO's default --api-port, both generations (exo-explore/exo, src/exo/main.py and docs)
SCHEMES = {"exo": "http", "exo-legacy": "http", "http": "http", "https": "https"}
LONGEST_HOST = 253  # letters of a name (RFC 1035, section 2.3.4, less the lengths and the root)
KINDS = ("local", "exo", "exo-legacy", "llama-rpc", "petals", "openai", "openais")
# what usually listens there, by each project's documentation; only a hint for who wrote no scheme
USUAL = {API_PORT: "exo", 50052: "llama-rpc", 1234: "openai", 8000: "openai", 8080: "openai", 11434: "openai"}


def kind_of(cluster: str, kinds: Sequence[str] = KINDS) -> str:
    """What a `--cluster` names: its scheme, or local; raises LiveError that guesses what was meant.

    `kinds` are those that the command can use.

    >>> kind_of("exo://10.0.0.7"), kind_of("local")
    ('exo', 'local')
    """
    scheme, has_scheme, rest = cluster.partition("://")
    kind = scheme if has_scheme else cluster
    if kind in kinds and (has_scheme or kind == "local"):
        return kind
    forms = ", ".join(one if one == "local" else f"{one}://host:port" for one in kinds)
    raise LiveError(
        f"--cluster is {cluster!r}{_meant(scheme if has_scheme else '', rest, cluster)}; write {forms}"
    )


def _meant(scheme: str, rest: str, cluster: str) -> str:
    """What is wrong with an address, and what was probably meant by it."""
    if scheme in KINDS:
        return f", and {scheme}:// cannot be used by this command"
    if scheme in ("http", "https"):
        server = "openais" if scheme == "https" else "openai"
        return (
            f", and {scheme}:// says not what answers there: exo://{rest} for EXO 1.x, "
            f"{server}://{rest} for an OpenAI-compatible server"
        )
    if scheme:
        return f", and {scheme}:// is not known"
    first = cluster.partition(",")[0]
    port = first.rpartition(":")[2]
    usual = USUAL.get(int(port)) if port.isdigit() and len(port) < 6 else None
    guess = f"; port {port} is usually {usual}://{first}" if usual else ""
    return f" and says not what answers there{guess}"


def base_urls(cluster: str) -> tuple[str, ...]:
    """The base URL of each address in `cluster`, which holds one or several between commas.

    `exo://` and `exo-legacy://` mean http, a missing port 52415; only the first address needs a scheme.
    Raises LiveError with the part that is no address.

    >>> base_urls("exo://10.0.0.7,macbook.local:8000")
    ('http://10.0.0.7:52415', 'http://macbook.local:8000')
    """
    parts = [part.strip() for part in cluster.split(",")]
    # the first address speaks for the others: nobody repeats the scheme after each comma
    scheme = parts[0].partition("://")[0] if "://" in parts[0] else "exo"
    return tuple(_base_url(part if "://" in part else f"{scheme}://{part}") for part in parts)


def is_legacy(cluster: str) -> bool:
    """Whether the user says that the cluster is legacy EXO (0.0.x).

    >>> is_legacy("exo-legacy://10.0.0.7"), is_legacy("exo://10.0.0.7")
    (True, False)
    """
    return cluster.startswith("exo-legacy://")


def _base_url(address: str) -> str:
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise LiveError(f"{address!r} is no address: {error}; write exo://host:{API_PORT}") from None
    if url.scheme not in SCHEMES:
        raise LiveError(f"{address!r}: {url.scheme}:// is not known; write exo://host:{API_PORT}")
    if (
        not host
        or len(host) > LONGEST_HOST
        or any(not (part.isascii() and part.isprintable()) or part in ' "<>\\^`{|}' for part in host)
    ):
        raise LiveError(f"{address!r} names no host; write exo://host:{API_PORT}")
    # they would end up in files and messages
    if url.username is not None or url.password is not None:
        raise LiveError(
            "an address must not hold a user name or password: EXO has none; write exo://host:port"
        )
    if url.path not in ("", "/") or url.query or url.fragment:
        raise LiveError(f"{address!r} has a path; give only host and port, as in exo://host:{API_PORT}")
    shown = f"[{host}]" if ":" in host else host
    default = 443 if url.scheme == "https" else API_PORT
    return f"{SCHEMES[url.scheme]}://{shown}:{port if port is not None else default}"
