"""Checks of the single devices: power and heat."""

from __future__ import annotations

from collections.abc import Iterator

from live.doctor.finding import DoctorFinding, problem, unknown, warning
from live.doctor.gather import Surroundings

__all__ = ["agents", "heat", "power", "unseen"]

HOT_C = 85.0  # phones and fanless laptops throttle from about here on


def power(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Devices that save energy: their speed is not the one that the model is calibrated for."""
    for facts in seen.facts:
        percent = "" if facts.power.percent is None else f", {facts.power.percent:g} %"
        if facts.power.saver:
            yield problem(
                f"{facts.name} saves energy",
                f"battery saver or low power mode is on{percent}",
                "the saver halves clocks, so nothing measured now holds later",
                "switch it off (macOS: Battery, Low Power Mode; Android: Battery Saver; Linux: "
                "powerprofilesctl set balanced)",
            )
        if facts.power.on_battery:
            yield warning(
                f"{facts.name} runs on battery",
                f"on battery{percent}",
                "on battery many devices lower their clocks after a while",
                "plug the charger in",
            )


def heat(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Devices that are hot before the work begins."""
    for facts in seen.facts:
        if facts.temperature_c is not None and facts.temperature_c >= HOT_C:
            yield warning(
                f"{facts.name} is hot",
                f"{facts.temperature_c:g} degrees Celsius",
                f"below {HOT_C:g}: above it chips slow down",
                "let it cool, take it out of its case",
            )


def unseen(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Devices of whose Wi-Fi, power and heat nothing is known, because no agent told."""
    known = {address for facts in seen.facts for _, address, _ in facts.addresses}
    names = [
        found.name or found.node_id[:12] for found in seen.discovery.found if not known & set(found.addresses)
    ]
    if names:
        yield unknown(
            f"Wi-Fi, power and heat of {', '.join(sorted(names))}",
            "start our agent there and name it with --agents",
        )


def agents(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Agents that were named and do not answer, or could not be asked."""
    if seen.unasked:
        where = ", ".join(f"{host}:{port}" for host, port in seen.agents)
        yield problem(
            f"the agents at {where} could not be asked",
            seen.unasked,
            "an agent answers only to its pairing token",
            "put the token that `sim live agent` printed there into LANSIM_TOKEN or --token",
        )
    for (host, port), text in seen.silent_agents:
        yield problem(
            f"the agent at {host}:{port} does not answer",
            text,
            "the agent runs and has the same token",
            "start `sim live agent --listen ADDRESS` there",
        )
