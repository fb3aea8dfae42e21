"""A scenario of a local MLX cluster from a few words, for `sim live local --engine mlx`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Literal

from live.local.mlx.weights import recipe
from simulator.errors import LiveError
from simulator.files import loads
from simulator.scenario import Scenario
from simulator.units import TIME, read_quantity

__all__ = ["quick_scenario"]

Strategy = Literal["pipeline", "tensor"]
SPEED = {"decode_bandwidth": "0.9 GB/s", "prefill_flops": "4 Gflop/s"}
"""Of MLX on one core of an x86 server, measured: 47 MB in 51 ms."""


def quick_scenario(
    model: str,
    strategy: Strategy,
    ranks: int,
    *,
    layers: Sequence[int] = (),
    delay: str = "0.5 ms",
    jitter: float = 0.0,
    background: Mapping[str, str] | None = None,
    output_tokens: int = 64,
    engine: str = "mlx",
) -> Scenario:
    """Ranks `rank0`, `rank1`, ... with `delay` between any two, each side spread lognormally by `jitter`.

    `layers` are of each rank in turn, as even as can be where none are given; `background` is the share of
    a rank that other work takes ("50%"). Raises LiveError where layers and ranks do not fit together.
    """
    total = recipe(model).layers
    shares = tuple(layers) or tuple(total // ranks + (rank < total % ranks) for rank in range(ranks))
    if layers and (strategy == "tensor" or len(layers) != ranks or sum(layers) != total):
        raise LiveError(
            f"--layers {','.join(map(str, layers))}: give one number for each of the {ranks} ranks, {total} "
            "in all, and none with tensor, which splits every layer"
        )
    unknown = sorted(set(background or {}) - {f"rank{rank}" for rank in range(ranks)})
    if unknown:
        raise LiveError(f"--load {unknown[0]}: there are rank0 to rank{ranks - 1}")
    # a link is one side of the way, and a message passes two
    side = f"{read_quantity(delay, TIME) / 2} s"
    law = (
        {"law": "lognormal", "median": side, "sigma": jitter}
        if jitter
        else {"law": "constant", "value": side}
    )
    devices = {
        f"rank{rank}": {
            "memory": "4 GB",
            "speed": SPEED,
            "background_load": (background or {}).get(f"rank{rank}", 0),
            "link": {"delay": law, "rate": "1 Gbit/s", "label": "measured"},
        }
        for rank in range(ranks)
    }
    told = {
        "name": f"mlx_{strategy}_{ranks}",
        "model": recipe(model).numbers(model),
        "engine": {"name": engine, "sharding": strategy},
        "devices": devices,
        "placement": {} if strategy == "tensor" else {"layers": dict(zip(devices, shares, strict=True))},
        "workload": {"prompt_tokens": 16, "output_tokens": output_tokens, "runs": 2},
        "shared_host": {"cores": min(ranks, os.cpu_count() or ranks)},
    }
    # as from a file, so that what is wrong is said as of a file
    return loads(json.dumps(told), Scenario, "the options")
