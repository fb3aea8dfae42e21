"""Turn the recorded EXO campaign into packed Measurement files, one per recording and part.

Usage: python scripts/import_campaign.py RECORDINGS_FOLDER OUTPUT_FOLDER

The recordings are streamed chats of a real EXO 1.x cluster of five nodes on one machine; each Measurement
carries the scenario that was measured: split, ring order, quotas as `background_load`, relays as wires with
the delay that the relays themselves report (`held_ms`), so that it can be predicted.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from simulator.files import pack, packed
from simulator.result.measurement import DeviceProvenance, MeasurementWriter, Provenance, ShardProvenance
from simulator.scenario import Scenario

IDLE_ONE_WAY_S = 20e-6
"""Idle echo of 2048 bytes without a relay, one way (0.02 ms)."""
LINK_RATE = "1 GB/s"
"""A virtual cable between two network namespaces; 2048 bytes take 2 us."""


def main(source: Path, target: Path) -> None:
    """Convert every recording of `source`; existing measurements are replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line]
        for part in dict.fromkeys(request["label"] for request in lines[0]["requests"]):
            name = path.stem if part in ("main", "concurrency4") else f"{path.stem}_{part}"
            out = target / f"{name}.jsonl"
            packed(out).unlink(missing_ok=True)
            write_part(name, part, lines[0], lines[1:], out)
            pack(out)


def write_part(name: str, part: str, header: dict[str, Any], tokens: list[dict[str, Any]], out: Path) -> None:
    """One part of one recording as a Measurement."""
    requests = [request for request in header["requests"] if request["label"] == part]
    runs = {run: index for index, run in enumerate(dict.fromkeys(request["run"] for request in requests))}
    scenario = scenario_of(name, header, requests, len(runs))
    out.unlink(missing_ok=True)
    with MeasurementWriter(out, provenance_of(name, header, requests, scenario)) as file:
        for request in requests:
            run, chat = runs[request["run"]], request["stream"]
            file.write(
                "request",
                run=run,
                chat=chat,
                prompt_tokens=request["prompt_tokens"],
                sent_ns=request["start_offset_ns"],
            )
            for event in tokens:
                if event["run"] == request["run"] and event.get("stream", 0) == chat:
                    file.write("token", run=run, chat=chat, token=event["token"], t_ns=event["t_ns"])
            file.write("result", run=run, chat=chat, outcome="complete", tokens=request["tokens"])
        for rank in header["ranks"]:
            file.write(
                "device", run=-1, device=rank["node"], busy_s=rank["cpu_s"], wall_s=header["measuring_s"]
            )


def scenario_of(name: str, header: dict[str, Any], requests: list[dict[str, Any]], runs: int) -> Scenario:
    """The scenario that was measured; speeds are placeholders that a calibration replaces."""
    model, ranks = header["model"], header["ranks"]
    devices = {
        rank["node"]: {
            "memory": f"{rank['node_memory_bytes']} B",
            "speed": {"decode_bandwidth": "8.5 GB/s", "prefill_flops": "30 GFLOPS"},
            "background_load": 1 - rank["cpu_quota_percent"] / 100,
            "link": {"delay": {"law": "constant", "value": f"{IDLE_ONE_WAY_S / 2} s"}, "rate": LINK_RATE},
        }
        for rank in ranks
    }
    held = {(r["connection"], r["direction"]): r["held_ms"]["mean"] for r in header["relay"] or ()}
    wires: dict[frozenset[str], dict[str, Any]] = {}
    for hop in header["hops"]:
        if hop["law"] is not None and len(ranks) > 1:
            wires.setdefault(frozenset((hop["from"], hop["to"])), wire(hop, held))
    return Scenario.model_validate(
        {
            "name": name,
            "question": "How fast did the recorded cluster decode?",
            "model": {
                "name": model["id"].replace("/", "-"),
                "layers": header["layers_run"],
                "hidden": model["hidden"],
                "layer_bytes": f"{model['bytes_per_layer']} B",
                "embedding_bytes": f"{model['embedding_bytes']} B",
                "head_bytes": f"{model['head_bytes']} B",
                "kv_bytes_per_token_per_layer": f"{model['kv_bytes_per_token_per_layer']} B",
                "layer_flops": model["bytes_per_layer"] / 2,
                "head_flops": model["head_bytes"] / 2,
                "activation_bytes": f"{model['activation_bytes']} B",
            },
            "engine": {"name": "exo", "step_overhead": "0 s", "hop_overhead": "0 s", "overhead_spread": 0.0},
            "devices": devices,
            "shared_host": {},
            "wires": list(wires.values()),
            "placement": {"layers": {rank["node"]: rank["layers"] for rank in ranks}},
            "workload": {
                "prompt_tokens": round(sum(r["prompt_tokens"] for r in requests) / len(requests)),
                "output_tokens": requests[0]["tokens"],
                "runs": runs,
                "concurrency": requests[0]["concurrency"],
            },
        }
    )


def wire(hop: dict[str, Any], held: dict[tuple[str, str], float]) -> dict[str, Any]:
    """A relayed connection: the mean delay that the relay held messages for, and half of it on each end."""
    law = hop["law"]
    means = [value for (name, _), value in held.items() if name == f"{hop['from']}>{hop['to']}"]
    mean_s = sum(means) / len(means) / 1e3 + IDLE_ONE_WAY_S
    delay: dict[str, Any] = {"law": "constant", "value": f"{mean_s / 2} s"}
    if law["kind"] == "lognormal":
        # both ends draw independently: each has half the mean
        # and half the variance of what was imposed on the whole
        squared_cv = 2 * (math.exp(law["sigma"] ** 2) - 1)
        sigma = math.sqrt(math.log(1 + squared_cv))
        median_s = mean_s / 2 / math.exp(sigma**2 / 2)
        delay = {"law": "lognormal", "median": f"{median_s} s", "sigma": sigma}
    return {"between": [hop["from"], hop["to"]], "kind": "relay", "delay": delay, "rate": LINK_RATE}


def provenance_of(
    name: str, header: dict[str, Any], requests: list[dict[str, Any]], scenario: Scenario
) -> Provenance:
    """What the recording says of its rig."""
    return Provenance(
        name=name,
        created="2026-11-22T00:00:00Z",
        source="exo",
        engine="exo",
        engine_version=header["engine"],
        model=header["model"]["id"],
        model_layers=header["layers_run"],
        model_bytes=header["model"]["total_bytes"],
        hidden_bytes=header["model"]["activation_bytes"],
        devices=tuple(
            DeviceProvenance(
                name=rank["node"],
                chip="AMD EPYC, one of two shared cores",
                os="Linux",
                memory_bytes=rank["node_memory_bytes"],
                link_kind="virtual Ethernet",
                power_source="mains",
                throttle_asked=rank["cpu_quota_percent"] / 100,
                details={"throttled_s": rank["throttled_s"]},
            )
            for rank in header["ranks"]
        ),
        placement=tuple(
            ShardProvenance(device=rank["node"], start_layer=rank["layer_start"], end_layer=rank["layer_end"])
            for rank in header["ranks"]
        ),
        prompt_tokens=scenario.workload.prompt_tokens,
        output_tokens=scenario.workload.output_tokens,
        runs=scenario.workload.runs,
        concurrency=scenario.workload.concurrency,
        warm_up_requests=1,
        clock="client, monotonic, ns",
        scenario=scenario.model_dump(mode="json"),
        cluster={
            "minutes_since_start": header["minutes_since_start"],
            "repeat_of": header["repeat_of"],
            "machine_before": header["machine_before"],
            "machine_after": header["machine_after"],
        },
        software={"mlx": "0.32.0", "mlx-lm": "0.31.3"},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
