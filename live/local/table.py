"""Table: local Measurements in one line each, milliseconds per token split by device and hop."""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.errors import MeasurementError
from simulator.files.inert import markdown_text
from simulator.result.measurement import Measurement

__all__ = ["markdown", "row", "split_s"]

COLUMNS = ("configuration", "layers at share of full speed", "p50", "p95", "visits differ", "devices", "hops")
Row = dict[str, Any]


def row(measurement: Measurement) -> Row:
    """One Measurement's figures (s): inter-token time, first token, and the mean time
    per token split in parts.
    """
    times = measurement.token_times_s()
    gaps_s = np.concatenate([np.empty(0), *(np.diff(run) for run in times.values())])
    if not len(gaps_s):
        raise MeasurementError(
            "\n".join([f"{measurement.path}: no reply of two tokens or more", *measurement.faults])
        )
    facts = measurement.provenance
    repeat = next(measurement.of("repeatability"), None)
    devices_s, hops_s = split_s(measurement)
    return {
        "configuration": facts.name,
        "tokens": len(gaps_s),
        "inter_token_p50_s": float(np.median(gaps_s)),
        "inter_token_p95_s": float(np.quantile(gaps_s, 0.95)),
        "inter_token_mean_s": float(np.mean(gaps_s)),
        "first_token_s": float(np.median([run[0] for run in times.values()])),
        "relative_range": repeat.get("relative_range") if repeat else None,
        "device_s": devices_s,
        "hop_s": hops_s,
        "layers": {shard.device: shard.end_layer - shard.start_layer for shard in facts.placement},
        "shares": {device.name: device.throttle_achieved for device in facts.devices},
        "warnings": list(measurement.warnings),
        "sha256": measurement.sha256,
    }


def split_s(measurement: Measurement) -> tuple[dict[str, float], dict[str, float]]:
    """Mean seconds per token after the first, by device and by hop; the client has
    what is not seen elsewhere.

    A server worked from a request's delivery to its reply's arrival at the relay. Empty without relays, and
    in a ring, where nobody asks and nobody answers.
    """
    if any(measurement.of("span")):
        return _asked_s(measurement), {}
    links = measurement.provenance.cluster.get("links")
    # what an engine says of its cluster has no schema: a damaged file may hold anything there
    said = links if isinstance(links, list) else []
    if any(isinstance(link, dict) and link.get("messages") == "sized" for link in said):
        return {}, {}
    requests = {event["run"]: event["sent_ns"] for event in measurement.of("request")}
    times = measurement.token_times_s()
    start_ns = {
        run: requests[run] + 1e9 * seconds[0] for (run, _), seconds in times.items() if run in requests
    }
    placement = measurement.provenance.placement
    if not placement:
        return {}, {}
    client = placement[0].device
    devices_s, hops_s, delivered_ns = dict.fromkeys((client,), 0.0), dict[str, float](), dict[str, float]()
    for event in measurement.of("hop"):
        # prompt and first token are another story; the table is about tokens after it
        if event["sent_ns"] < start_ns.get(event["run"], float("inf")):
            continue
        held_ns, source, sink = event["imposed_ns"] + event["late_ns"], event["source"], event["sink"]
        hops_s[f"{source} -> {sink}"] = hops_s.get(f"{source} -> {sink}", 0.0) + held_ns / 1e9
        if source == client:
            delivered_ns[sink] = event["sent_ns"] + held_ns
        elif source in delivered_ns:
            devices_s[source] = (
                devices_s.get(source, 0.0) + (event["sent_ns"] - delivered_ns.pop(source)) / 1e9
            )
    wall_s = sum(float(seconds[-1] - seconds[0]) for seconds in times.values())
    # the client is what is left, with everything that nobody else was seen doing
    devices_s[client] = wall_s - sum(devices_s.values()) - sum(hops_s.values())
    tokens = sum(len(seconds) - 1 for seconds in times.values())
    if not hops_s and len(placement) > 1:
        return {}, {}
    return (
        {name: seconds / tokens for name, seconds in devices_s.items()},
        {name: seconds / tokens for name, seconds in hops_s.items()},
    )


def _asked_s(measurement: Measurement) -> dict[str, float]:
    """The same where the client itself says what it asked each device for: with the way there and back."""
    times, taken_s = measurement.token_times_s(), dict[str, float]()
    for event in measurement.of("span"):
        # prompt and first token are another story, as above
        if event.get("token", 0):
            spent_s = (event["end_ns"] - event["start_ns"]) / 1e9
            taken_s[event["device"]] = taken_s.get(event["device"], 0.0) + spent_s
    wall_s = sum(float(seconds[-1] - seconds[0]) for seconds in times.values())
    tokens = sum(len(seconds) - 1 for seconds in times.values())
    client = measurement.provenance.devices[0].name
    return {
        name: seconds / tokens
        for name, seconds in {client: wall_s - sum(taken_s.values()), **taken_s}.items()
    }


def markdown(rows: list[Row]) -> str:
    """The rows as a table for people, in milliseconds per token."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for found in rows:
        shares = found["shares"]
        cells = (
            found["configuration"],
            ", ".join(
                f"{name} {layers} at {_percent(shares.get(name))}" for name, layers in found["layers"].items()
            ),
            f"{1e3 * found['inter_token_p50_s']:.1f}",
            f"{1e3 * found['inter_token_p95_s']:.1f}",
            _percent(found["relative_range"]),
            _parts(found["device_s"]),
            _parts(found["hop_s"]),
        )
        lines.append("| " + " | ".join(map(markdown_text, cells)) + " |")
    return "\n".join(lines) + "\n"


def _parts(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {1e3 * value:.1f}" for name, value in seconds.items()) or "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
