"""A placement in the words of EXO's API."""

from __future__ import annotations

import json
from typing import Any

from simulator.engine.form import PlacementForm
from simulator.placement.shard import Placement

__all__ = ["form"]


def _shards(placement: Placement) -> list[dict[str, Any]]:
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


def form(placement: Placement) -> PlacementForm:
    """What EXO's API takes."""
    shards = _shards(placement)
    lines = tuple(
        f"  {entry['node']}: {json.dumps({'PipelineShardMetadata': entry['PipelineShardMetadata']})}"
        for entry in shards
    )
    title = "EXO, POST /instance, by rank (template: GET /instance/placement):"
    return PlacementForm("exo", shards, (title, *lines))
