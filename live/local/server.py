"""One device: a llama.cpp RPC server on this machine's processor, `python -m live.local.server --port 50052`.

The same command serves a real device; llama.cpp's own `rpc-server` does as well.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
import time

from live.local import library
from live.local.children import Event, Lifeline
from simulator.errors import LiveError, SimulatorError

__all__ = ["DEFAULT_PORT", "check_port", "exposure", "free_port", "is_loopback", "main", "serve"]

DEFAULT_PORT = 50052  # of llama.cpp's own rpc-server


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exposure(host: str, port: int) -> str:
    """What to say to somebody who listens beyond loopback."""
    return (
        f"warning: whoever reaches {host}:{port} may use this processor and its memory; keep it to a "
        "network that you trust"
    )


def check_port(host: str, port: int) -> None:
    """Raise LiveError, with the way out, when nothing can listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as the engine binds: a connection that has just closed keeps the port for a minute otherwise
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LiveError(
                f"cannot listen at {host}:{port}: {error.strerror}; stop what uses that port, or choose "
                "another with --port"
            ) from error


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def serve(host: str, port: int, threads: int) -> None:
    """Serve until killed; raises LiveError when the port is taken, EngineUnavailable without the engine."""
    library.require()
    check_port(host, port)
    library.serve(f"{host}:{port}", threads)
    # it serves for ever, so coming back is a failure
    raise LiveError(f"llama.cpp stopped serving at {host}:{port}; what it said stands above")


def _supervised(host: str, port: int, threads: int) -> None:
    """Serve as a child of `sim`: answers how much processor time was used, and dies with its parent."""
    lifeline = Lifeline()

    def handle(command: Event) -> None:
        if command["do"] == "busy":
            lifeline.tell("busy", busy_ns=time.process_time_ns())

    lifeline.obey_aside(handle)
    try:
        serve(host, port, threads)
    except SimulatorError as error:
        lifeline.tell("error", text=str(error))


def main() -> int:
    """The command line of one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help="loopback unless told otherwise: there is no password"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.supervised:
        _supervised(chosen.host, chosen.port, chosen.threads)
        return 1
    if not is_loopback(chosen.host):
        print(exposure(chosen.host, chosen.port), file=sys.stderr)
    try:
        serve(chosen.host, chosen.port, chosen.threads)
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
