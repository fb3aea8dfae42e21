"""Asking agents from the user's own machine: where they are, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from live.agent.facts import AgentFacts
from live.agent.pairing import WireError, check_token
from live.agent.told import printable
from live.agent.wire import ask
from simulator.errors import LiveError, Unreachable

__all__ = ["ANSWER_S", "Address", "Peer", "ask_all", "ask_facts", "key_of", "meet_all", "read_address"]

ASKED_AT_ONCE = 32
ANSWER_S = 60.0  # reading the facts of a Mac takes several seconds

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Peer:
    """One agent: where it is, what it calls itself (made unique), what it is, its address as a number."""

    address: Address
    name: str
    facts: AgentFacts
    host: str
    """what other agents are told, since they follow no names"""


def read_address(text: str, default_port: int) -> Address:
    """'host', 'host:port' or '[v6]:port' as an address; raises LiveError."""
    host, _, port = text.rpartition(":") if text.count(":") == 1 or text.startswith("[") else (text, "", "")
    if text.startswith("[") and text.endswith("]"):
        host, port = text, ""
    host = host.strip("[]")
    if not host or (port and not (port.isdigit() and 0 < int(port) < 65536)):
        raise LiveError(f"{text!r:.80} is no address; write host or host:port")
    return host, int(port) if port else default_port


def key_of(token: str) -> bytes:
    """The token for `ask`; raises LiveError with the way out for none, and for one that is too short."""
    try:
        return check_token(token)
    except WireError as error:
        raise LiveError(
            f"{error}: agents answer only to their pairing token; put the one that `sim live agent` "
            "printed, the same for all agents, into LANSIM_TOKEN or --token"
        ) from error


def ask_facts(address: Address, token: str) -> AgentFacts:
    """The facts of one agent; raises Unreachable with the way out."""
    return _meet(address, token).facts


def ask_all(addresses: Sequence[Address], token: str) -> list[AgentFacts | LiveError]:
    """The facts of each agent, or why there are none, in order."""
    return [met.facts if isinstance(met, Peer) else met for met in meet_all(addresses, token)]


def meet_all(addresses: Sequence[Address], token: str) -> list[Peer | LiveError]:
    """Each agent or why it does not answer, in order; many at once, since anybody may announce some."""

    def met(address: Address) -> Peer | LiveError:
        try:
            return _meet(address, token)
        except LiveError as error:
            return error

    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="facts") as pool:
        return list(pool.map(met, addresses))


def _meet(address: Address, token: str) -> Peer:
    where = f"{address[0]}:{address[1]}"
    try:
        with ask(*address, key_of(token)) as session:
            session.send({"op": "facts"})
            answer = session.receive(ANSWER_S)
            if "error" in answer:
                raise WireError(printable(str(answer["error"])))
            facts = AgentFacts.from_dict(answer.get("facts") or {})
            return Peer(address, facts.name, facts, session.connection.getpeername()[0])
    except (WireError, OSError) as error:
        raise Unreachable(
            f"no agent at {where}: {error}; start `sim live agent --listen ADDRESS` there with the same "
            "token and of the same version, and let the firewall pass its port"
        ) from error
    except ValueError as error:
        raise LiveError(
            f"the agent at {where} sends unknown facts: {error}; use one version everywhere"
        ) from error
