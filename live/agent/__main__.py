"""`python -m live.agent`: the agent on a device that has nothing but Python, zeroconf and cryptography."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from live.agent.addresses import is_loopback
from live.agent.announce import announced
from live.agent.pairing import WireError, new_token
from live.agent.server import Agent, Settings
from live.agent.wire import DEFAULT_PORT

__all__ = ["main", "run"]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve until interrupted; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m live.agent", description=run.__doc__)
    parser.add_argument(
        "--listen", default="127.0.0.1", help="address of this device to listen on (default: loopback)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--name", default=platform.node() or "unnamed", help="how the others see this device")
    parser.add_argument(
        "--token", default="", help="better in LANSIM_TOKEN or --token-file: others see a command line"
    )
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--model-file", type=Path, help="a model file whose read rate may be measured")
    parser.add_argument("--no-announce", action="store_true", help="do not announce this agent by mDNS")
    options = parser.parse_args(arguments)
    try:
        token = token_from(options.token, options.token_file)
        settings = Settings(options.name, token, options.listen, options.port, options.model_file)
        run(settings, announce=not options.no_announce)
    except WireError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def token_from(token: str, file: Path | None) -> str:
    """The token of the option, of the file, of LANSIM_TOKEN, or an empty string; raises
    WireError for a bad file.
    """
    if token:
        return token
    if file is None:
        return os.environ.get("LANSIM_TOKEN", "")
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WireError(
            f"{file}: cannot be read: {error}; write the token into it, alone on one line"
        ) from error


def run(settings: Settings, *, announce: bool = True) -> None:
    """Measure this device and its links when an asker with the pairing token wants it; stop with Ctrl-C.

    Without a token a fresh one is made and printed. Raises WireError when it cannot listen or announce.
    """
    token = settings.token or new_token()
    # so that the announcement is withdrawn then too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Agent(replace(settings, token=token)) as agent:
        host, port = agent.address
        reach = "this machine only; --listen ADDRESS opens it to the LAN" if is_loopback(host) else "the LAN"
        shown = f"[{host}]" if ":" in host else host
        _say(f"agent {settings.name!r} listens on {shown}:{port} ({reach})")
        if not settings.token:
            _say(
                f"pairing token: {token}\ngive it to every other agent and to `sim live links` in "
                "LANSIM_TOKEN"
            )
        announcing: AbstractContextManager[None] = (
            announced(settings.name, host, port) if announce else nullcontext()
        )
        try:
            with announcing:
                agent.wait()
        except KeyboardInterrupt:
            _say("agent stopped")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
