"""Swarms of tests: three servers and a spare, or any number that come and go."""

from __future__ import annotations

from typing import Any

from simulator.files import loads
from simulator.scenario import Scenario

SPEED = "{decode_bandwidth: 100 GB/s, prefill_flops: 20 TFLOPS, decode_spread: 0.0, prefill_spread: 0.0}"
LINK = "{delay: {law: constant, value: 5 ms}, rate: 1 Gbit/s, delay_spread: 0.0, rate_spread: 0.0}"
PLAIN = f"""
name: rooms
model: {{name: small, layers: 18, layer_bytes: 1 GB, hidden: 4096, kv_bytes_per_token_per_layer: 4 kB}}
devices:
  client: {{memory: 8 GB, speed: {SPEED}, link: {LINK}}}
  s1: {{memory: 16 GB, speed: {SPEED}, link: {LINK}}}
  s2: {{memory: 16 GB, speed: {SPEED}, link: {LINK}}}
  s3: {{memory: 16 GB, speed: {SPEED}, link: {LINK}}}
  s4: {{memory: 16 GB, speed: {SPEED}, link: {LINK}}}
engine: {{name: petals, overhead_spread: 0.0}}
placement: {{rule: manual, layers: {{client: 0, s1: 6, s2: 6, s3: 6}}}}
workload: {{prompt_tokens: 16, output_tokens: 64, runs: 1}}
replications: 1
"""
STAYS = {"s1": {"span": [0, 6]}, "s2": {"span": [6, 12]}, "s3": {"span": [12, 18]}, "s4": {"span": [6, 12]}}


def swarm(**changes: Any) -> Scenario:
    """Three servers and a spare for the middle, with what is said of the swarm."""
    scenario = loads(PLAIN, Scenario)
    return scenario.replace(
        placement={"rule": "petals", "roles": {"client": "embedding"}}, swarm={"stays": STAYS, **changes}
    )


POPULATION = {
    "gpu": {
        "kind": "RTX 3060", "count": 14, "delay": "8 ms", "rate": "50 Mbit/s", "blocks": 6, "good_bye": "50 %",
        "uptime": {"law": "exponential", "mean": "20 min"}, "away": {"law": "exponential", "mean": "10 min"},
    }
}  # fmt: skip


def public(**changes: Any) -> Scenario:
    return swarm(population=POPULATION, stays={}, repairs=["eof", "replay"], **changes)
