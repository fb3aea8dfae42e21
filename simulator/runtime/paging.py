"""Paging: what a device cannot keep of its weights is read from its disk again at each step.

Weights are mapped from the model's file, so the operating system's page cache decides what
stays. A decode step goes through them in the same order each time. A cache that drops what was
used longest ago then drops just what comes next: once the weights exceed it by little, all of
them are read again, not the overflow alone (Denning, The working set model for program behavior,
CACM 11 (1968): a loop longer than memory faults at each reference).
"""

from __future__ import annotations

from simulator.cluster.cluster import Device
from simulator.model.stretch import Stretch
from simulator.runtime.job import Job
from simulator.runtime.portions import Divided

__all__ = ["paged_bytes", "paging_s"]


def paging_s(job: Job, rank: int, chats: int | None = None) -> float:
    """Seconds per step of a rank to read again what it cannot keep, 0 where everything fits.

    `chats` have their KV caches in memory (default: all of the workload), at the end of the longest reply.
    """
    device, workload = job.ring[rank], job.workload
    chats = chats or workload.concurrency
    footprint = job.engine.footprint(
        job.model, workload.prompt_tokens + workload.output_tokens, chats, job.ring
    )
    footprint = footprint.pinned(job.placement.embedding, job.placement.head).part(job.placement.parts)
    # pinned ends hold no layers, and "first" and "last" are those of the devices that do
    ring, shard = [shard.device for shard in job.shards if shard.layers], job.shards[rank]
    embedding, head, overhead = footprint.fixed_bytes(ring, device.name)
    held = job.held(rank)
    if isinstance(held, Divided):
        context = workload.prompt_tokens + workload.output_tokens
        return _host_paging_s(device, held, (embedding, head, overhead), context, chats)
    if footprint.total_bytes(ring, shard) <= device.usable_bytes:
        return 0.0
    _, kv = footprint.held_bytes(shard.start_layer, shard.end_layer)
    # caches and the engine are not of the file, so they stay; of the embedding a step reads
    # a row for each chat, so it counts as kept
    room = device.usable_bytes - kv - overhead - embedding
    return paged_bytes(held, head, room, chats) / device.disk_bytes_per_s


def _host_paging_s(
    device: Device, held: Divided, fixed: tuple[float, float, float], context: int, chats: int
) -> float:
    """Of a device of several processors: cards hold what they hold, the rest is mapped into RAM."""
    embedding, head, overhead = fixed
    mine = [part for part in held.portions if not part.processor.device.is_card]
    if not mine:
        return 0.0
    part = mine[0]
    kv = float(part.held.kv_bytes(context, chats))
    room = part.processor.device.usable_bytes - kv - overhead - embedding
    return paged_bytes(part.held, head if part.has_head else 0.0, room, chats) / device.disk_bytes_per_s


def paged_bytes(held: Stretch, head_bytes: float, room_bytes: float, batch: int = 1) -> float:
    """Bytes that a step reads from disk, of layers and head that a cache of `room_bytes` cannot keep.

    What a step reads fits: it stays, and of the experts those are missing that were not used for long, the
    share of all experts that has no room. It does not fit: all that is read comes from disk.
    """
    read = held.bytes_read(batch) + head_bytes
    if held.weight_bytes + head_bytes <= room_bytes:
        return 0.0
    if read > room_bytes:
        return read
    experts = sum(n * kind.expert_bytes for n, kind in zip(held.counts, held.kinds, strict=True))
    if experts == 0:  # what no step reads is not missed where it has no room
        return 0.0
    # what is not of an expert is read at each step, so the rest of `read` is what experts were touched; a
    # model told by numbers may have weights that no step reads, and these are the first to have no room
    unread = max(0.0, held.weight_bytes + head_bytes - experts - read)
    touched = max(0.0, read - (held.weight_bytes + head_bytes - experts))
    missing = max(0.0, held.weight_bytes + head_bytes - unread - room_bytes)
    return touched * min(1.0, missing / experts)
