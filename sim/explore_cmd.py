"""`sim explore`: the answers as a page on this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.errors import EngineUnavailable, SimulatorError

if TYPE_CHECKING:
    from sim.explore.app import Page

__all__ = ["explore", "listening"]

FIRST = "five_devices"
LOOPBACK = "127.0.0.1"
MOST_CONNECTIONS = 200


def explore(
    scenario: Annotated[
        Path | None, typer.Argument(help="A scenario file, or the name of one; default: five_devices.")
    ] = None,
    listen: Annotated[
        str, typer.Option(help="HOST or HOST:PORT to listen on; beyond this machine a token is asked for.")
    ] = LOOPBACK,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    results: Annotated[Path, typer.Option(help="Folder whose ledgers the tab `Truth` shows.")] = Path(
        "results"
    ),
    workers: Annotated[int, typer.Option(min=1, max=16, help="Processes that compute.")] = 2,
) -> None:
    """Show a scenario as a page: change anything and see tokens/s with its interval move."""
    try:
        import uvicorn

        from sim.explore.app import make_app
        from sim.explore.guard import Rules, is_loopback, own_names
    except ImportError:
        raise EngineUnavailable(
            "sim explore needs the extra `explore`: pip install 'lan-cluster-simulator[explore]'"
        ) from None
    import secrets

    host, port = _host_port(listen)
    page = _page(scenario or Path(FIRST), results, is_private=is_loopback(host))
    door = listening(host, port)
    port = int(door.getsockname()[1])
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    app = make_app(page, Rules(port, token, own_names(host)), workers)
    # behind the #, where no server, proxy or log sees it
    url = f"http://{_shown(host)}:{port}/{f'#token={token}' if token else ''}"
    print(f"{page.name} at {url}  (Ctrl-C ends it)", flush=True)
    if browser:
        import webbrowser

        webbrowser.open(url)
    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=30,
        server_header=False,
    )
    try:
        uvicorn.Server(config).run(sockets=[door])
    except KeyboardInterrupt:
        print("the page is closed")


def _page(scenario: Path, results: Path, *, is_private: bool) -> Page:
    """What is shown first; files of models are read for who sits at this machine alone."""
    from sim.explore.app import Page
    from simulator.library import find_scenario, load

    # what is wrong with a scenario the page itself says; only a file must be there
    file = find_scenario(scenario)
    if not file.is_file():
        load(file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SimulatorError(f"{file}: cannot be read as text ({error})") from None
    return Page(text, file.stem, str(file.parent.resolve()) if is_private else None, str(results))


def _host_port(listen: str) -> tuple[str, int]:
    """'HOST', 'HOST:PORT' or '[V6]:PORT'; raises SimulatorError."""
    host, port = listen, ""
    if listen.startswith("["):
        host, _, port = listen[1:].partition("]")
        port = port.removeprefix(":")
    elif listen.count(":") == 1:
        host, _, port = listen.partition(":")
    if not host or (port and not (port.isascii() and port.isdecimal() and int(port[:6]) < 65536)):
        raise SimulatorError(f"--listen is {listen!r:.80} and must be HOST or HOST:PORT, as 0.0.0.0:8080")
    return host, int(port or 0)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; raises SimulatorError where that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise SimulatorError(
            f"--listen {host}:{port}: {why}; name an address of this machine and a free port (0: any)"
        ) from None


def _shown(host: str) -> str:
    """A host as a browser can open it."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
