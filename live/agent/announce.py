"""Tell the LAN by mDNS that an agent is here: a name and a port, nothing else."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from live.agent.facts import own_addresses
from live.agent.pairing import WireError
from live.agent.wire import SERVICE, VERSION

__all__ = ["announced"]


@contextmanager
def announced(name: str, listen: str, port: int) -> Iterator[None]:
    """Announce `name` at `listen`:`port` while the block runs, on that address's network only.

    The record holds the name of the agent, its address, its port and the version of the protocol; what the
    device is needs the token. Raises WireError when multicast is not possible here.
    """
    from zeroconf import Error, InterfaceChoice, IPVersion, ServiceInfo, Zeroconf

    everywhere = listen in ("0.0.0.0", "::")
    addresses = _reachable() if everywhere else [listen]
    six = ":" in listen and not everywhere
    try:
        zeroconf = Zeroconf(
            interfaces=InterfaceChoice.All if everywhere else [listen],
            ip_version=IPVersion.V6Only if six else IPVersion.V4Only,
        )
    except (OSError, Error) as error:
        raise WireError(
            f"cannot announce on {listen}: {error}; start with --no-announce and name this agent to "
            "`sim live links --agents`"
        ) from error
    info = ServiceInfo(
        SERVICE,
        f"{_label(name)}.{SERVICE}",
        port=port,
        parsed_addresses=addresses,
        properties={"v": str(VERSION)},
        server=f"lansim-{secrets.token_hex(4)}.local.",
    )
    try:
        # Two phones of one model have the same name; zeroconf then calls the second "name-2".
        zeroconf.register_service(info, allow_name_change=True)
        yield
    except Error as error:
        raise WireError(f"cannot announce {name!r}: {error}; choose another --name") from error
    finally:
        zeroconf.close()


def _label(name: str) -> str:
    """A DNS label of at most 63 bytes, without dots."""
    cleaned = "".join(
        character if character.isprintable() and character != "." else "-" for character in name
    )
    return cleaned.encode()[:50].decode(errors="ignore") or socket.gethostname()[:50]


def _reachable() -> list[str]:
    """Own IPv4 addresses that others can reach."""
    return [
        address for _, address, _ in own_addresses() if ":" not in address and not address.startswith("127.")
    ]
