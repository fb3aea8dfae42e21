"""What EXO's master knows when it places, and what it answers: the nouns of `placement`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from simulator.engine.exo.cycles import Wiring
from simulator.errors import PlacementError
from simulator.placement.shard import Placement
from simulator.spec import Spec

__all__ = [
    "ENGINE_BACKENDS",
    "NO_PIPELINE",
    "RING_RANK",
    "Edge",
    "ExoInstance",
    "ExoModel",
    "ExoRefusal",
    "ExoRequest",
]

# Which backends each engine of EXO runs on, and how it ranks addresses (EXO b5375f8ce).
ENGINE_BACKENDS = {"MlxRing": ("MlxMetal", "MlxCuda", "MlxCpu"), "MlxJaccl": ("MlxMetal",)}
RING_RANK = {"thunderbolt": 0, "maybe_ethernet": 1, "ethernet": 2, "wifi": 3, "unknown": 4}
# The one model that EXO refuses to pipeline, by its id.
NO_PIPELINE = "mlx-community/DeepSeek-V3.1-8bit"


class ExoRefusal(PlacementError):
    """EXO would refuse; the message holds the figures and the way out, `exo_text` what EXO itself says."""

    def __init__(self, exo_text: str, message: str, advice: str = "") -> None:
        self.exo_text = exo_text
        self.message, self.advice = message, advice
        super().__init__(f"EXO would refuse: {message} (EXO says: {exo_text!r})", advice)

    def __reduce__(self) -> tuple[type[ExoRefusal], tuple[str, str, str]]:
        # A search over placements runs in other processes, and an exception comes back by its arguments.
        return type(self), (self.exo_text, self.message, self.advice)


class Edge(Spec):
    """`source` reaches `sink`: by a socket at `address`, or by RDMA from the interface `rdma_interface`."""

    source: str
    sink: str
    address: str | None = None
    rdma_interface: str | None = None


class ExoModel(Spec):
    """The fields of EXO's model card that decide a placement;
    `storage_bytes` is the whole file, head and all.
    """

    model_id: str = "model"
    n_layers: int = Field(gt=0)
    storage_bytes: int = Field(ge=0)
    hidden_size: int = 1
    n_kv_heads: int | None = None
    supports_tensor: bool = False
    base_model: str = ""
    backends: tuple[str, ...] = ENGINE_BACKENDS["MlxRing"]


class ExoRequest(Spec):
    """What EXO's master knows when it places: nodes and edges in the order in which it heard of them."""

    nodes: tuple[str, ...] = Field(min_length=1)
    edges: tuple[Edge, ...]
    free_bytes: Mapping[str, int]
    model: ExoModel
    min_nodes: int = 1
    sharding: Literal["Pipeline", "Tensor"] = "Pipeline"
    instance_type: Literal["MlxRing", "MlxJaccl"] = "MlxRing"
    backends: Mapping[str, tuple[str, ...]]
    rdma_enabled: frozenset[str] = frozenset()
    downloaded: Mapping[str, float] = {}
    required: frozenset[str] = frozenset()
    interface_types: Mapping[str, str] = {}

    def wiring(self) -> Wiring:
        """The graph of all edges, RDMA included."""
        return Wiring(self.nodes, tuple((edge.source, edge.sink) for edge in self.edges))

    def free_in(self, nodes: Iterable[str]) -> int:
        """Sum of the free memory of `nodes` (bytes); a node that reports none counts 0."""
        return sum(self.free_bytes.get(node, 0) for node in nodes)


class ExoInstance(Spec):
    """What EXO would create: ranks in ring order, their layers, and the address by
    which each reaches each other.

    `links[i][j]` is the address (ring) or interface (Jaccl) rank i uses for rank j;
    None where they do not talk.
    """

    ring: tuple[str, ...]
    layers: tuple[int, ...]
    n_layers: int
    sharding: Literal["Pipeline", "Tensor"]
    instance_type: Literal["MlxRing", "MlxJaccl"]
    links: tuple[tuple[str | None, ...], ...]
    coordinators: tuple[str | None, ...] = ()
    """Jaccl: where each rank reaches rank 0, to meet before RDMA is set up; None for rank 0 itself."""

    def placement(self, devices: Iterable[str] = ()) -> Placement:
        """The placement, `devices` outside the ring left out; raises PlacementError for tensor sharding."""
        if self.sharding == "Tensor":
            raise PlacementError(
                "Tensor sharding puts every layer on every device; only Pipeline can be simulated"
            )
        pairs = zip(self.ring, self.layers, strict=True)
        return Placement.from_layers(pairs, "exo", devices=devices).check(self.n_layers)
