"""Turn a recorded EXO campaign into packed Measurement files, one per recording and part.

Usage: python scripts/import_campaign.py RECORDINGS_FOLDER OUTPUT_FOLDER

The recordings are streamed chats of a real EXO 1.x cluster of nodes on one machine; each Measurement carries
the scenario that was measured: split, ring order, quotas as `background_load`, delayed links as wires with the
delay that was measured on them, so that it can be predicted. Left out are recordings in which a node was killed,
whose gaps are of two placements.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

from simulator.files import pack, packed
from simulator.result.measurement import DeviceProvenance, MeasurementWriter, Provenance, ShardProvenance
from simulator.scenario import Scenario

IDLE_ONE_WAY_S = {1: 20e-6, 2: 60e-6}
"""Idle echo of a message where no delay is imposed, one way, by campaign: a virtual cable; a switch."""
DAY = {1: "2026-11-22T00:00:00Z", 2: "2026-11-27T03:35:00Z"}
SWITCH_MS = {0.25: 0.33, 0.5: 0.58, 1: 1.08, 2: 2.09, 3: 3.12, 5: 5.15, 6: 6.14, 8: 8.14, 10: 10.18}
SWITCH_MS |= {15: 15.23, 20: 20.24}
"""One-way delay (ms) that the second campaign's switch was asked for, and half of the round trip measured."""
ATTENTION_COST = {1: 4.0, 2: 1.0}
"""Of a prompt's attention. The second campaign has prompts of four lengths: the half of it that calibrates gives
4.07. That is what is known of the same software for the first one, whose prompts hardly tell.
"""
MEASURED = {"delay_spread": 0.0, "rate_spread": 0.0, "label": "measured"}
LINK_RATE = "1 GB/s"
"""A virtual cable between two network namespaces; 2048 bytes take 2 us."""


def main(source: Path, target: Path) -> None:
    """Convert every recording of `source`; existing measurements are replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line]
        if "killed_node" in lines[0]:
            print(f"{path.stem}: left out")
            continue
        parts = list(dict.fromkeys(request["label"] for request in lines[0]["requests"]))
        for part in parts:
            name = path.stem if len(parts) == 1 else f"{path.stem}_{part}"
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
                prompt_tokens=read_tokens(request),
                sent_ns=request["start_offset_ns"],
            )
            for event in tokens:
                if event["run"] == request["run"] and event.get("stream", 0) == chat:
                    file.write("token", run=run, chat=chat, token=event["token"], t_ns=event["t_ns"])
            file.write("result", run=run, chat=chat, outcome="complete", tokens=request["tokens"])
        visits = visit_medians_s(requests, tokens)
        if len(visits) > 1:
            file.write("repeatability", visit_median_s=visits)
        for rank in header["ranks"] if "measuring_s" in header else ():
            file.write(
                "device", run=-1, device=rank["node"], busy_s=rank["cpu_s"], wall_s=header["measuring_s"]
            )


def campaign(header: dict[str, Any]) -> int:
    """Which campaign a recording is of: the second one says what TCP it ran over."""
    return 2 if "tcp" in header else 1


def read_tokens(request: dict[str, Any]) -> int:
    """Tokens of the prompt that were read: the chat template's head lies in the cache from the warm-up on."""
    return int(request["prompt_tokens"] - request.get("cached_tokens", 0))


def visit_medians_s(requests: list[dict[str, Any]], tokens: list[dict[str, Any]]) -> list[float]:
    """Median gap (s) of each start of the instance, chats of a run pooled."""
    visits = {request["run"]: request.get("visit", 0) for request in requests}
    gaps: dict[int, list[float]] = {}
    last: dict[tuple[int, int], int] = {}
    for event in tokens:
        key = (event["run"], event.get("stream", 0))
        if event["run"] in visits and key in last:
            gaps.setdefault(visits[event["run"]], []).append((event["t_ns"] - last[key]) / 1e9)
        last[key] = event["t_ns"]
    return [median(of_visit) for of_visit in gaps.values()]


def scenario_of(name: str, header: dict[str, Any], requests: list[dict[str, Any]], runs: int) -> Scenario:
    """The scenario that was measured; speeds are placeholders that a calibration replaces."""
    model, ranks = header["model"], header["ranks"]
    devices = {
        rank["node"]: {
            "memory": f"{rank['node_memory_bytes']} B",
            "speed": {
                "decode_bandwidth": "8.5 GB/s",
                "prefill_flops": "30 GFLOPS",
                "prompt_attention_cost": ATTENTION_COST[campaign(header)],
            },
            "background_load": 1 - rank["cpu_quota_percent"] / 100,
            "link": {
                "delay": {"law": "constant", "value": f"{IDLE_ONE_WAY_S[campaign(header)] / 2} s"},
                "rate": LINK_RATE,
                **MEASURED,
            },
        }
        for rank in ranks
    }
    held = {(r["connection"], r["direction"]): r["held_ms"]["mean"] for r in header.get("relay") or ()}
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
            "engine": {
                "name": "exo",
                "sharding": header.get("sharding", "pipeline"),
                "step_overhead": "0 s",
                "hop_overhead": "0 s",
                "overhead_spread": 0.0,
            },
            "devices": devices,
            "shared_host": {},
            "wires": list(wires.values()),
            "placement": {"rule": "tensor", "order": [rank["node"] for rank in ranks]}
            if header.get("sharding") == "tensor"
            else {"layers": {rank["node"]: rank["layers"] for rank in ranks}},
            "workload": {
                "prompt_tokens": round(sum(map(read_tokens, requests)) / len(requests)),
                "output_tokens": requests[0]["tokens"],
                "runs": runs,
                "concurrency": requests[0]["concurrency"],
            },
        }
    )


def wire(hop: dict[str, Any], held: dict[tuple[str, str], float]) -> dict[str, Any]:
    """A delayed connection: the mean delay that was measured on it, and half of it on each end."""
    law = hop["law"]
    if not held:
        delay: dict[str, Any] = {"law": "constant", "value": f"{SWITCH_MS[law['one_way_ms']] / 2e3} s"}
        return {
            "between": [hop["from"], hop["to"]],
            "kind": "switch with a delay",
            "delay": delay,
            "rate": LINK_RATE,
            **MEASURED,
        }
    means = [value for (name, _), value in held.items() if name == f"{hop['from']}>{hop['to']}"]
    mean_s = sum(means) / len(means) / 1e3 + IDLE_ONE_WAY_S[1]
    delay = {"law": "constant", "value": f"{mean_s / 2} s"}
    if law["kind"] == "lognormal":
        # both ends draw independently: each has half the mean
        # and half the variance of what was imposed on the whole
        squared_cv = 2 * (math.exp(law["sigma"] ** 2) - 1)
        sigma = math.sqrt(math.log(1 + squared_cv))
        median_s = mean_s / 2 / math.exp(sigma**2 / 2)
        delay = {"law": "lognormal", "median": f"{median_s} s", "sigma": sigma}
    ends = [hop["from"], hop["to"]]
    return {"between": ends, "kind": "relay", "delay": delay, "rate": LINK_RATE, **MEASURED}


def provenance_of(
    name: str, header: dict[str, Any], requests: list[dict[str, Any]], scenario: Scenario
) -> Provenance:
    """What the recording says of its rig."""
    return Provenance(
        name=name,
        created=DAY[campaign(header)],
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
            key: header[key]
            for key in (
                "minutes_since_start",
                "repeat_of",
                *("machine_before", "machine_after"),
                *("asked_node", "master_node", "collectives_one_stream", "tcp"),
                "delays_all_node_pairs_one_way_ms",
            )
            if key in header
        },
        software={"mlx": "0.32.0", "mlx-lm": "0.31.3"},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
