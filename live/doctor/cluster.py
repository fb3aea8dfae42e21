"""Checks of EXO itself: is it there, is it the same everywhere, does the model fit, do the clocks agree."""

from __future__ import annotations

from collections.abc import Iterator

from live.discover.found import LEGACY, LIBP2P, ZENOH, FoundDevice
from live.doctor.finding import DoctorFinding, problem, unknown, warning
from live.doctor.gather import Surroundings
from simulator.units import format_bytes

__all__ = ["clocks", "exo_missing", "exo_nodes", "memory", "ports", "versions"]

SKEW_WARNING_S = 3.0  # the Date header has whole seconds, so less than that is not a fact
SKEW_PROBLEM_S = 30.0  # EXO takes a node for lost after 30 s of silence by its clocks


def exo_nodes(seen: Surroundings) -> list[FoundDevice]:
    """The devices on which EXO of any generation lives."""
    return [found for found in seen.discovery.present if found.generation in (ZENOH, LIBP2P, LEGACY)]


def exo_missing(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Hosts that live without EXO, and a network without any."""
    for probe in seen.discovery.probes:
        if probe.outcome == "refused":
            yield problem(
                f"EXO does not run on {probe.host}",
                f"{probe.where} refuses the connection",
                "EXO's HTTP interface listens on port 52415 of every device",
                "start EXO there (docs/live-setup.md), or name its --api-port as host:port",
            )
        elif probe.outcome == "other":
            yield problem(
                f"{probe.where} is no EXO",
                probe.detail,
                "port 52415 belongs to EXO",
                "stop the other program, or name EXO's port as host:port",
            )
    for found in seen.discovery.found:
        if found.agent and not found.generation.startswith("exo"):
            yield warning(
                f"{found.name} runs our agent but no EXO",
                found.agent,
                "only devices with EXO hold layers",
                "start EXO there if it is to take part; phones cannot, see docs/live-setup.md for llama.cpp",
            )
    yield from _rpc_servers(seen)
    # who asks about llama.cpp's servers alone wants no EXO
    if not exo_nodes(seen) and not any(probe.rpc for probe in seen.discovery.probes):
        yield problem(
            "no EXO anywhere",
            f"{len(seen.discovery.probes)} hosts asked",
            "a cluster needs a node at least",
            "start EXO, then name one of its machines with --host",
        )


def _rpc_servers(seen: Surroundings) -> Iterator[DoctorFinding]:
    """What llama.cpp's rpc-servers say of themselves, and whether one client can use them all."""
    servers = {probe.where: probe.rpc for probe in seen.discovery.probes if probe.rpc}
    for where, server in servers.items():
        yield DoctorFinding("ok", f"{where} is a llama.cpp rpc-server", str(server))
    if len({server.protocol[:2] for server in servers.values()}) > 1:
        yield problem(
            "several protocols of llama.cpp rpc-servers",
            "; ".join(f"{where}: {'.'.join(map(str, one.protocol))}" for where, one in servers.items()),
            "client and servers must speak one protocol: of another major number they refuse each other",
            "build rpc-server and the client from one commit of llama.cpp on every device",
        )


SILENCES = {
    "filtered": (
        "drops TCP {port}",
        "the machine lives, for it refuses other ports; this one is filtered",
        "let its firewall pass it (macOS: System Settings, Network, Firewall; Linux: `sudo ufw allow "
        "{port}/tcp`)",
    ),
    "absent": (
        "is not there",
        "nobody answers at that address, or nobody has that name",
        "wake the device or join it to this network; check its address (Wi-Fi settings, `ip addr`), which "
        "the router may have changed",
    ),
    "silent": (
        "does not answer",
        "TCP {port} must be open between all devices; neither an answer nor a refusal came",
        "wake the device; else let the firewall pass the port (macOS: System Settings, Network, Firewall; "
        "Linux: `sudo ufw allow {port}/tcp`)",
    ),
}


def ports(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Hosts that give no answer: a filtered port, a machine that is off, silence."""
    for probe in seen.discovery.probes:
        if probe.outcome in SILENCES:
            what, rule, way_out = (text.format(port=probe.port) for text in SILENCES[probe.outcome])
            yield problem(f"{probe.where} {what}", probe.detail, rule, way_out)


def versions(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Programs of different generations, versions or namespaces do not form one cluster."""
    rule = "all devices run the same EXO: generations, versions and namespaces do not see each other"
    nodes = exo_nodes(seen)
    kinds = {
        found.generation: [n.name or n.node_id[:12] for n in nodes if n.generation == found.generation]
        for found in nodes
    }
    if len(kinds) > 1:
        value = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
        yield problem("several generations of EXO", value, rule, "install one version everywhere")
    yield from _old(nodes)
    for kind in kinds:
        told = {found.version for found in nodes if found.generation == kind and found.version}
        if len(told) > 1:
            yield problem(
                f"several versions of {kind}", "; ".join(sorted(told)), rule, "install one everywhere"
            )
    spaces = {space.hex() for space in seen.discovery.heard.hellos.values()}
    if len(spaces) > 1:
        yield problem(
            "several EXO namespaces on this network",
            ", ".join(sorted(spaces)),
            rule,
            "set the same EXO_LIBP2P_NAMESPACE (or none) and the same version everywhere",
        )


def _old(nodes: list[FoundDevice]) -> Iterator[DoctorFinding]:
    """Versions that run, but without something that a measurement needs."""
    lacks = {
        "1.0.60 to 1.0.63": "no benchmark endpoint",
        "1.0.64 to 1.0.67": "requests cannot be cancelled by name",
        "1.0.68": "requests cannot be cancelled by name",
    }
    for found in nodes:
        what = lacks.get(found.version) or (
            "max_tokens is ignored and no placement can be chosen" if found.generation == LEGACY else ""
        )
        if what:
            yield warning(
                f"{found.name} runs an old EXO",
                f"{found.generation} {found.version}".strip(),
                what,
                "update it everywhere, or measure without that",
            )


def memory(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Too little free memory for the chosen model: EXO compares its size with the sum of what is free."""
    need = seen.need
    if need is None:
        yield unknown("whether a model fits", "name it with --model")
        return
    if need.total_bytes is None:
        yield problem(
            f"unknown model {need.model!r}",
            need.source,
            "the model must be listed by EXO or the catalogue",
            "write it as `sim catalog models` or EXO's GET /models does",
        )
        return
    nodes = exo_nodes(seen)
    told = [found.memory_free_bytes for found in nodes if found.memory_free_bytes is not None]
    if not told:
        yield unknown(
            "free memory", "legacy EXO reports only the total, and without any EXO nothing is known"
        )
        return
    free = sum(told)
    each = ", ".join(
        f"{n.name} {format_bytes(n.memory_free_bytes)}" for n in nodes if n.memory_free_bytes is not None
    )
    value = (
        f"{format_bytes(free)} free ({each}); {need.model} takes {format_bytes(need.total_bytes)} "
        f"by {need.source}"
    )
    way_out = "close other programs and old instances, take a smaller model or fewer bits, or add a device"
    if free < need.total_bytes:
        yield problem(
            "too little free memory for the model", value, "sum of free memory >= size of the model", way_out
        )
    elif free < 1.2 * need.total_bytes:
        yield warning(
            "hardly enough free memory",
            value,
            "EXO counts neither the KV cache nor head room; leave 20 %",
            way_out,
        )


def clocks(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Clocks that disagree with this machine's, by the Date header of their HTTP answers."""
    if not any(probe.clock_offset_s is not None for probe in seen.discovery.probes):
        yield unknown("clocks", "no EXO told its time; name its hosts with --host")
    for where, offset in [(probe.where, probe.clock_offset_s) for probe in seen.discovery.probes]:
        if offset is None:
            continue
        if abs(offset) >= SKEW_WARNING_S:
            make = problem if abs(offset) >= SKEW_PROBLEM_S else warning
            yield make(
                f"the clock of {where} is {'ahead' if offset > 0 else 'behind'}",
                f"{offset:+.0f} s",
                f"within {SKEW_WARNING_S:g} s of this machine; EXO drops nodes by time stamps 30 s old",
                "switch automatic time on (macOS: Date & Time; Linux: timedatectl set-ntp true)",
            )
