"""Paging: what a device holds beyond its memory is read from its disk again at each step."""

from __future__ import annotations

from simulator.runtime.job import Job

__all__ = ["paging_s"]


def paging_s(job: Job, rank: int, chats: int | None = None) -> float:
    """Seconds per step of a rank: `max(0, held - usable) / disk_bytes_per_s`, 0 where everything fits.

    Held is what `placement.memory` counts, with the KV caches of `chats`
    chats (default: all of the workload) at the end of the longest reply.
    """
    device, workload, pins = job.ring[rank], job.workload, job.placement
    footprint = job.engine.footprint(
        job.model, workload.prompt_tokens + workload.output_tokens, chats or workload.concurrency
    ).pinned(pins.embedding, pins.head)
    ring = [shard.device for shard in job.shards if shard.layers]
    held_bytes = footprint.total_bytes(ring, job.shards[rank])
    return max(0.0, held_bytes - device.usable_bytes) / device.disk_bytes_per_s
