"""A scenario of a local Petals swarm from a few words, for `sim live local --engine petals`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from live.local.petals.weights import recipe
from simulator.errors import LiveError
from simulator.files import loads
from simulator.scenario import Scenario
from simulator.units import TIME, read_quantity

__all__ = ["quick_scenario"]

CLIENT_SPEED = {"decode_bandwidth": "4 GB/s", "prefill_flops": "8 Gflop/s"}
SPEED = {"decode_bandwidth": "0.8 GB/s", "prefill_flops": "8 Gflop/s", "context_cost": 0}
"""4 ms a block, four times what one takes a core; waiting grows with no context."""


def quick_scenario(
    servers: int,
    *,
    model: str = "petals-18",
    blocks: Sequence[int] = (),
    delay: str = "5 ms",
    jitter: float = 0.0,
    background: Mapping[str, str] | None = None,
    chats: int = 1,
    prompt_tokens: int = 8,
    output_tokens: int = 64,
    push: bool = False,
) -> Scenario:
    """A client and `server1`, `server2`, ... with `delay`
    between any two, each side spread lognormally by `jitter`.

    `blocks` are of each server in turn, as even as can be where none are given; `background` is the share of
    a server that other work takes ("50%"). Raises LiveError where blocks and servers do not fit together.
    """
    total = recipe(model).layers
    shares = tuple(blocks) or tuple(total // servers + (one < total % servers) for one in range(servers))
    if len(shares) != servers or sum(shares) != total:
        raise LiveError(
            f"--layers {','.join(map(str, blocks))}: give one number for each of the {servers} servers, "
            f"{total} in all"
        )
    names = [f"server{one + 1}" for one in range(servers)]
    if unknown := sorted(set(background or {}) - set(names)):
        raise LiveError(f"--load {unknown[0]}: there are {names[0]} to {names[-1]}")
    # a link is one side of the way, and a message passes two
    side = f"{read_quantity(delay, TIME) / 2} s"
    law = (
        {"law": "lognormal", "median": side, "sigma": jitter}
        if jitter
        else {"law": "constant", "value": side}
    )
    link = {"delay": law, "rate": "1 Gbit/s", "label": "measured"}
    devices: dict[str, Any] = {"client": {"memory": "4 GB", "speed": CLIENT_SPEED, "link": link}}
    for name in names:
        busy = (background or {}).get(name, 0)
        devices[name] = {"memory": "4 GB", "speed": SPEED, "background_load": busy, "link": link}
    told = {
        "name": f"petals_{servers}",
        "model": recipe(model).numbers(model),
        "engine": {"name": "petals", "push": push},
        "devices": devices,
        "placement": {
            "layers": {"client": 0, **dict(zip(names, shares, strict=True))},
            "roles": {"client": "embedding"},
        },
        "workload": {
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            "runs": 2,
            "concurrency": chats,
        },
        # one machine plays them all, so that a calibration takes them for alike
        "shared_host": {},
    }
    # as from a file, so that what is wrong is said as of a file
    return loads(json.dumps(told), Scenario, "the options")
