"""Job: a scenario made numeric and placed, ready to be evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from simulator.cluster.cluster import Cluster, Device
from simulator.model.model import Model
from simulator.model.stretch import Stretch
from simulator.placement.footprint import Footprint
from simulator.placement.shard import Placement, Shard
from simulator.runtime.collective import Algorithm
from simulator.runtime.portions import Divided
from simulator.scenario import NoiseSpec, PosteriorSpec, WorkloadSpec

__all__ = ["EngineCosts", "Job"]


NO_NOISE = NoiseSpec(sigma=0.0)


@dataclass(frozen=True, slots=True)
class EngineCosts:
    """What the engine itself costs, see `EngineSpec`, and who holds what does not belong to a layer."""

    name: str
    step_overhead_s: float
    hop_overhead_s: float
    overhead_log_sd: float
    memory_overhead_bytes: float
    embedding_on: str
    head_on: str
    head_not_on: tuple[str, ...] | None = None
    """Platforms on which a client leaves the head to the last server; on others it computes the last layers
    itself. None: where an engine's client is like any other device.
    """
    embedding_on_host: bool = False
    """Whether the embedding stays in the memory of a card's host."""
    protocol: str | None = None
    """Version of the wire protocol, where the engine has several; None: the newest."""
    algorithm: Algorithm = "ring"
    """Of the collectives of tensor parallelism."""
    push: bool = False
    """Whether servers of a chain hand hidden states on by themselves."""
    compression: str | None = None
    """Of hidden states on the wire."""
    hop_log_sd: float | None = None
    """Of the cost of a message, where it is not `overhead_log_sd`."""
    request_overhead_s: float = 0.0
    """Of each device for each request, beside what it computes and sends."""

    def log_sd(self, part: Literal["step", "hop", "request"]) -> float:
        """How unsure the cost of a step, a message or a request is."""
        return self.overhead_log_sd if part != "hop" or self.hop_log_sd is None else self.hop_log_sd

    def keeps_head(self, client: Device) -> bool:
        """Whether a client with layers comes last in a token's way, and computes the head."""
        return self.head_not_on is not None and client.platform not in self.head_not_on

    def footprint(self, model: Model, context: int, chats: int, devices: Iterable[Device]) -> Footprint:
        """What `devices` hold of `model` when `chats` chats have `context` tokens in their caches."""
        devices = tuple(devices)
        cards = [device.name for device in devices if device.is_card] if self.embedding_on_host else []
        # tied embeddings are stored once, but first and last rank both need them
        apart = self.embedding_on != self.head_on
        return Footprint(
            layer_bytes=model.layer_bytes,
            kv_bytes_per_layer=float(model.average(1).kv_bytes(context, chats)),
            by_layer=() if model.is_uniform else _by_layer(model, context, chats),
            embedding_bytes=(model.embedding_bytes or (model.head_bytes if apart else 0.0))
            + model.other_bytes,
            head_bytes=model.head_bytes,
            overhead_bytes=self.memory_overhead_bytes,
            embedding_on=self.embedding_on,
            head_on=self.head_on,
            keep_head=tuple(device.name for device in devices if self.keeps_head(device)),
            on_hosts=tuple(cards),
            latent=all(kind.latent for kind in model.kinds),
        )


# a search asks for one model thousands of times
@lru_cache(maxsize=64)
def _by_layer(model: Model, context: int, chats: int) -> tuple[tuple[float, float, float], ...]:
    """(weights, KV cache, read per token) bytes of each layer."""
    found = []
    for layer in range(model.layers):
        alone = model.stretch(layer, layer + 1)
        kv_bytes = float(alone.kv_bytes(context, chats))
        read_bytes = alone.bytes_read() + float(alone.kv_bytes_read(context, chats))
        found.append((alone.weight_bytes, kv_bytes, read_bytes))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Job:
    """One placed workload on one cluster."""

    cluster: Cluster
    model: Model
    placement: Placement
    engine: EngineCosts
    workload: WorkloadSpec
    seed: int
    common_noise: NoiseSpec = NO_NOISE
    posterior: PosteriorSpec | None = None
    divided: Mapping[str, Divided] = field(default_factory=dict)
    """What each processor holds, of devices that have several."""
    heads_at_once: int | None = None
    """How many ranks can compute at once, where one machine plays them all: as many as it has cores, or one
    where the scenario does not say how many, for the threads of a matrix product take all of them.
    """

    tails: float | None = None
    """Degrees of freedom of Student's t in which worlds are drawn; None: normal worlds."""

    @property
    def ring(self) -> tuple[Device, ...]:
        """The devices of the placement in ring order."""
        # pinned devices are in it too: they have no layers, but messages pass them
        return tuple(self.cluster.device(shard.device) for shard in self.placement.shards)

    @property
    def head_rank(self) -> int:
        """The rank that computes the output head, of an engine where one alone does."""
        if self.placement.head is not None:
            return self.placement.devices.index(self.placement.head)
        keeps = self.placement.embedding is None and self.engine.keeps_head(self.ring[0])
        return 0 if keeps else len(self.ring) - 1

    def held(self, rank: int) -> Stretch | Divided:
        """The layers of a rank, divided where its device has several processors."""
        shard = self.placement.shards[rank]
        if shard.device in self.divided:
            return self.divided[shard.device]
        return self.model.stretch(shard.start_layer, shard.end_layer).part(self.placement.parts)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in ring order."""
        return self.placement.shards
