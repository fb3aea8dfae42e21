"""A page of `sim explore` behind a client that speaks HTTP to it without a socket."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `explore` is not installed")

import httpx

from sim.explore.app import Page, make_app
from sim.explore.guard import Rules
from simulator.library import find_scenario

PORT = 8123
SMALL = """name: small
model: {name: Llama-3.2-3B}  # a comment that stays
engine: exo
placement: speed
devices:
  macbook: {kind: MacBook Air M4, memory: 24 GB, link: {kind: wifi6}}
  laptop:
    kind: Linux laptop LPDDR5/DDR5-4800 dual channel
    memory: 32 GB
    link: {kind: ethernet_1g}   # a cable
workload: {prompt_tokens: 32, output_tokens: 16, runs: 2}
replications: 80
"""


class Client:
    """Asks an app without a socket, each time in a loop of its own."""

    def __init__(self, app: Any, host: str = f"127.0.0.1:{PORT}") -> None:
        self.app, self.base = app, f"http://{host}"

    def get(self, path: str, **asked: Any) -> httpx.Response:
        return self.request("GET", path, **asked)

    def post(self, path: str, **asked: Any) -> httpx.Response:
        return self.request("POST", path, **asked)

    def request(self, method: str, path: str, **asked: Any) -> httpx.Response:
        return asyncio.run(self.sent(method, path, **asked))

    async def sent(self, method: str, path: str, **asked: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url=self.base, timeout=60) as http:
            return await http.request(method, path, **asked)

    def close(self) -> None:
        self.app.app.state.pool.close()


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    folder = str(find_scenario("five_devices").parent)
    found = Client(make_app(Page(SMALL, "small", folder), Rules(PORT)))
    yield found
    found.close()


@pytest.fixture
def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line; exit code, standard output, standard error."""
    from sim.main import main

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sim", *words])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        found = capsys.readouterr()
        return code, found.out, found.err

    return run
