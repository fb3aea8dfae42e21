"""A placement as flags of llama.cpp's command line."""

from __future__ import annotations

from simulator.engine.form import PlacementForm
from simulator.placement.shard import Placement

__all__ = ["RPC_PORT", "form"]

RPC_PORT = 50052  # the default of llama.cpp's rpc-server


def _flags(placement: Placement) -> dict[str, str]:
    """Flags of llama.cpp's client, which runs on the first device; hosts are the devices' names.

    llama.cpp gives the last `ngl - 1` layers and the output head, which counts as one more,
    to the servers in the order of `--rpc`; what is left stays with the client (checked
    against llama.cpp itself, `live.local.client`). `with_client_gpu` is for a client whose own layers go to
    its graphics processor: that comes behind the servers by itself, with the last layers and the head, so
    that logits stay where they are sampled (ggml-org/llama.cpp pull request 9296).
    """
    client, *servers = placement.shards
    counts = [shard.layers for shard in servers]
    if not servers:
        return {"client": client.device, "flags": f"-ngl {client.layers + 1}"}
    split = [*counts[:-1], counts[-1] + 1]
    hosts = ",".join(f"{shard.device}:{RPC_PORT}" for shard in servers)
    on_servers, everything = (
        ",".join(map(str, numbers)) for numbers in (split, [*counts, client.layers + 1])
    )
    return {
        "client": client.device,
        "flags": f"--rpc {hosts} --tensor-split {on_servers} -ngl {sum(split)}",
        "with_client_gpu": f"--rpc {hosts} --tensor-split {everything} -ngl {client.layers + sum(split)}",
    }


def form(placement: Placement) -> PlacementForm:
    """What llama.cpp's command line takes."""
    flags = _flags(placement)
    lines = [f"llama.cpp, client on {flags['client']}:", f"  {flags['flags']}"]
    if "with_client_gpu" in flags:
        lines.append(f"  or, with a graphics processor in the client: {flags['with_client_gpu']}")
    return PlacementForm("llama_cpp", flags, tuple(lines))
