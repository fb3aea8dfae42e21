"""What the tests of the local cluster share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from live.local import library
from simulator.scenario import Scenario

needs_engine = [
    pytest.mark.local,
    pytest.mark.skipif(
        not library.is_installed(),
        reason="llama-cpp-python with RPC is not installed: `sim live local install`",
    ),
]
MODEL = {
    "name": "random-80mb",
    "quantisation": "Q4_K_M",
    "layers": 16,
    "hidden": 1024,
    "layer_bytes": "5325824 B",
    "embedding_bytes": "294912 B",
    "head_bytes": "434176 B",
    "kv_bytes_per_token_per_layer": "1024 B",
    "layer_flops": 17829888,
    "head_flops": 1048576,
    "activation_bytes": "4096 B",
}


def scenario(
    layers: Sequence[int],
    *,
    name: str = "test",
    delay: str = "1 ms",
    loads: Sequence[str] = (),
    engine: str = "llama-rpc",
    **workload: Any,
) -> Scenario:
    """Devices d0, d1, ... with these layers, each `delay` from the access point."""
    devices: dict[str, Any] = {}
    for number in range(len(layers)):
        devices[f"d{number}"] = {
            "memory": "2 GB",
            "speed": {"decode_bandwidth": "9 GB/s", "prefill_flops": "25 Gflop/s"},
            "background_load": loads[number] if loads else 0,
            "link": {"delay": {"law": "constant", "value": delay}, "rate": "1 Gbit/s"},
        }
    return Scenario.model_validate(
        {
            "name": name,
            "model": MODEL,
            "engine": engine,
            "devices": devices,
            "placement": {"layers": {f"d{number}": count for number, count in enumerate(layers)}},
            "workload": {"prompt_tokens": 16, "output_tokens": 64, "runs": 1, **workload},
        }
    )


def until(condition: Callable[[], Any], timeout_s: float) -> Any:
    """Wait for something to be true; its value, which is false when it never was."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return found


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return not stat.parent.parent.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"
