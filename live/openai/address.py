"""The address of an OpenAI-compatible server as a person writes it: `openai://192.168.1.20:8080[/v1]`."""

from __future__ import annotations

from urllib.parse import urlsplit

from simulator.errors import LiveError

__all__ = ["SCHEMES", "USUAL_PATH", "is_openai", "server_url"]

SCHEMES = {"openai": "http", "openais": "https"}
USUAL_PATH = "/v1"
# defaults from each project's own documentation, for the one message that needs them
USUAL_PORTS = (
    "llama-server and mlx_lm.server 8080, vLLM and llama_cpp.server 8000, LM Studio 1234, Ollama 11434, "
    "dllama-api 9999"
)


def is_openai(cluster: str) -> bool:
    """Whether `cluster` names such a server.

    >>> is_openai("openai://10.0.0.7:8080"), is_openai("exo://10.0.0.7")
    (True, False)
    """
    return cluster.partition("://")[0] in SCHEMES and "://" in cluster


def server_url(cluster: str) -> str:
    """The URL below which `/models` and `/chat/completions` lie; without a path that is `/v1`.

    `openai://` means http, `openais://` https. Raises LiveError with what is wrong.

    >>> server_url("openai://10.0.0.7:8080"), server_url("openais://example.org/api/v1/")
    ('http://10.0.0.7:8080/v1', 'https://example.org/api/v1')
    """
    if "," in cluster:
        raise LiveError(
            f"{cluster!r} names several servers; one speaks for all devices behind it: name that one"
        )
    try:
        url = urlsplit(cluster)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise LiveError(f"{cluster!r} is no address: {error}; write openai://host:port") from None
    if url.username is not None or url.password is not None:
        # the address goes into files, a key must not
        raise LiveError("an address must not hold a key or password; put the key into SIM_OPENAI_KEY")
    if not host or any(not (part.isascii() and part.isprintable()) or part in ' "<>\\^`{|}' for part in host):
        raise LiveError(f"{cluster!r} names no host; write openai://host:port")
    if url.query or url.fragment:
        raise LiveError(f"{cluster!r}: write only host, port and path, as in openai://host:port/v1")
    if port is None and url.scheme == "openai":
        raise LiveError(f"{cluster!r} names no port, and servers differ: {USUAL_PORTS}")
    shown = f"[{host}]" if ":" in host else host
    place = shown if port is None else f"{shown}:{port}"
    return f"{SCHEMES[url.scheme]}://{place}{url.path.rstrip('/') or USUAL_PATH}"
