"""A placement in the words of those who must carry it out: a
scenario, EXO's API, llama.cpp's command line.
"""

from __future__ import annotations

from typing import Any

from simulator.placement.shard import Placement
from simulator.plan.place.search import PlacementAnswer
from simulator.plan.place.trial import manual

__all__ = ["RPC_PORT", "exo_shards", "forms", "llama_flags", "scenario_yaml"]

RPC_PORT = 50052  # the default of llama.cpp's rpc-server


def exo_shards(placement: Placement) -> list[dict[str, Any]]:
    """One entry per rank for EXO's `POST /instance`: its node, and the shard in EXO's own field names.

    `endLayer` is exclusive. The other fields of the instance (ids, addresses, model card) come from the
    cluster: take `GET /instance/placement` as the template (EXO 1.x, as recorded at b5375f8ce). Pinned
    devices without layers have no shard there and are left out.
    """
    shards = [shard for shard in placement.shards if shard.layers]
    total = shards[-1].end_layer
    return [
        {
            "node": shard.device,
            "PipelineShardMetadata": {
                "deviceRank": rank,
                "worldSize": len(shards),
                "startLayer": shard.start_layer,
                "endLayer": shard.end_layer,
                "nLayers": total,
            },
        }
        for rank, shard in enumerate(shards)
    ]


def llama_flags(placement: Placement) -> dict[str, str]:
    """Flags of llama.cpp's client, which runs on the first device; hosts are the devices' names.

    llama.cpp gives the last `ngl - 1` layers and the output head, which counts as one more,
    to the servers in the order of `--rpc`; what is left stays with the client (checked
    against llama.cpp itself, `live.local.client`). `with_client_gpu` is for a client whose
    own layers go to its graphics processor, named first in `--device`.
    """
    client, *servers = placement.shards
    counts = [shard.layers for shard in servers]
    if not servers:
        return {"client": client.device, "flags": f"-ngl {client.layers + 1}"}
    split = [*counts[:-1], counts[-1] + 1]
    hosts = ",".join(f"{shard.device}:{RPC_PORT}" for shard in servers)
    on_servers, everything = (",".join(map(str, numbers)) for numbers in (split, [client.layers, *split]))
    return {
        "client": client.device,
        "flags": f"--rpc {hosts} --tensor-split {on_servers} -ngl {sum(split)}",
        "with_client_gpu": f"--rpc {hosts} --device <its own>,<RPC devices in this order> "
        f"--tensor-split {everything} -ngl {client.layers + sum(split)}",
    }


def scenario_yaml(placement: Placement) -> str:
    """The line for a scenario file, which `sim run` and the live commands take."""
    spec = manual(placement)
    parts = [f"layers: {{{', '.join(f'{name}: {count}' for name, count in (spec.layers or {}).items())}}}"]
    if spec.roles:
        parts.append(f"roles: {{{', '.join(f'{name}: {role}' for name, role in spec.roles.items())}}}")
    return f"placement: {{{', '.join(parts)}, min_devices: {spec.min_devices}}}"


def forms(answer: PlacementAnswer) -> dict[str, Any]:
    """The best placement in all three forms."""
    placement = answer.best.placement
    assert placement is not None
    return {
        "scenario": scenario_yaml(placement),
        "exo": exo_shards(placement),
        "llama_cpp": llama_flags(placement),
    }
