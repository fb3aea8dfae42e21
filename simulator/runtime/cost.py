"""Cost equations: seconds of a stage for a device, a shard, a context length and a batch.

All are for a device without noise; the caller multiplies by noise and by how wrong the catalogue may be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from simulator.cluster.cluster import Device, Processor
from simulator.laws.law import Floats
from simulator.model.model import Model
from simulator.model.stretch import Stretch
from simulator.runtime.portions import Divided, Portion

__all__ = [
    "crowding",
    "decode_parts",
    "decode_s",
    "head_s",
    "prefill_parts",
    "prefill_s",
    "seconds_per_layer",
]


def crowding(device: Device, batch: int = 1) -> float:
    """What multiplies every cost on a device: `(1 + batch_cost (batch - 1)) (1 + contention) slow_down
    / (1 - background_load)`.

    `batch_cost` is 0 where further chats ride along for free until the flops count (graphics processors) and
    large where matrix products are done row by row (processors); it is fitted, not looked up.
    """
    # a device that other work keeps busy for a share u of the time does ours in 1 / (1 - u) of it; what else
    # it may lose is in `LOAD_LOG_SD` of `draws`
    alone = device.slow_down / (1 - device.background_load)
    return (1 + device.speed.batch_cost * (batch - 1)) * (1 + device.contention) * alone


def decode_s(device: Device, held: Stretch | Divided, context: ArrayLike, batch: int = 1) -> Floats:
    """Seconds that one decode step spends in the layers `held` at `context` tokens, shape of `context`.

    `(max((weights + kv) / decode_bandwidth, flops / prefill_flops) + layers * layer_overhead) * crowding`,
    `latent_layer_overhead` more for layers with latent attention,
    with `weights = sum of the layers' bytes_read(batch)` (those of mixtures `mixture_cost` times), `kv =
    context_cost * kv_bytes_read(context) * batch` and `flops = batch * (flops + attention_flops(context))`.
    Of a device of several processors their sum: a step goes through them one after the other.
    """
    if isinstance(held, Divided):
        return np.asarray(sum(base for _, base in decode_parts(device, held, context, batch)))
    tokens = np.asarray(context, dtype=float)
    # a device that holds the head alone pays for no layer, nor for the launch of one
    if held.layers == 0:
        return np.zeros_like(tokens)
    speed = device.speed
    kv = speed.context_cost * held.kv_bytes_read(tokens, batch)
    read = held.bytes_read(batch, speed.mixture_cost, speed.expert_evenness)
    read_s = (read + kv) / speed.decode_bandwidth
    flop_s = batch * (held.flops + held.attention_flops(tokens)) / speed.prefill_flops
    # reading overlaps with computing; launching a layer overlaps with neither
    launch_s = held.launches(speed.mixture_layer_cost) * speed.layer_overhead
    launch_s += held.latent_layers * speed.latent_layer_overhead
    return (np.maximum(read_s, flop_s) + launch_s) * crowding(device, batch)


def seconds_per_layer(device: Device, model: Model, context: float = 0.0) -> float:
    """Marginal decode seconds of one more average layer on this device."""
    return float(decode_s(device, model.average(1), context))


def head_s(device: Device, model: Model, batch: int = 1) -> float:
    """Seconds of final norm and output head: `max(read, flops) * crowding` with `read = head_bytes /
    decode_bandwidth` and `flops = batch * head_flops / prefill_flops`.
    """
    speed = device.speed
    # one matrix: a batch reads it once and multiplies it for each chat
    read_s = model.head_bytes / speed.decode_bandwidth
    return max(read_s, batch * model.head_flops / speed.prefill_flops) * crowding(device, batch)


def prefill_s(device: Device, held: Stretch | Divided, tokens: int, context: int = 0) -> float:
    """Seconds that a chunk of `tokens` prompt tokens spends in the layers `held` after
    `context` earlier tokens.

    `max(flops / prefill_flops, weights / decode_bandwidth) + layers * layer_overhead` with `flops =
    prompt_flops + prompt_attention_cost * attention_flops`: causal attention.
    """
    if isinstance(held, Divided):
        return sum(seconds for _, seconds in prefill_parts(device, held, tokens, context))
    # nothing is left to read where a short prompt goes through as decode steps alone
    if tokens <= 0 or held.layers == 0:
        return 0.0
    speed = device.speed
    flops = _prompt_flops(device, held, tokens)
    attention = speed.prompt_attention_cost * held.prompt_attention_flops(tokens, context)
    flop_s = (flops + attention) / speed.prefill_flops
    # a chunk reads the weights once, however long it is: that is why prompts are cheap per token
    read_s = held.bytes_read(tokens) / speed.decode_bandwidth
    # no batch here: prompts are read one by one, or their tokens are counted in `tokens`
    return (max(flop_s, read_s) + held.layers * speed.layer_overhead) * crowding(device)


def _prompt_flops(device: Device, held: Stretch, tokens: int) -> float:
    speed = device.speed
    return held.prompt_flops(
        tokens, speed.prefill_mixture_cost, speed.prefill_expert_fill, speed.prefill_latent_cost
    )


def decode_parts(
    device: Device, held: Stretch | Divided, context: ArrayLike, batch: int = 1
) -> tuple[tuple[Device, Floats], ...]:
    """`decode_s` of each processor that holds some of the layers, with its hand-overs; the
    one with the head comes last. One part, of the device itself, where it is one processor.
    """
    if isinstance(held, Stretch):
        return ((device, decode_s(device, held, context, batch)),)
    return tuple(
        (one, decode_s(one, part.held, context, batch) + _bus_s(part, held.state_bytes * batch))
        for part in held.used
        for one in [_as_busy(part.processor, device)]
    )


def prefill_parts(
    device: Device, held: Stretch | Divided, tokens: int, context: int = 0
) -> tuple[tuple[Device, float], ...]:
    """`prefill_s` of each processor, as `decode_parts`; layers in RAM are read by the first card where
    the chunk is long enough to be worth the copy.
    """
    if isinstance(held, Stretch):
        return ((device, prefill_s(device, held, tokens, context)),)
    return tuple(_prefill_part(device, held, part, tokens, context) for part in held.used)


def _prefill_part(
    device: Device, held: Divided, part: Portion, tokens: int, context: int
) -> tuple[Device, float]:
    one = _as_busy(part.processor, device)
    copies = held.copies_from_tokens is not None and tokens >= held.copies_from_tokens
    if one.is_card or not device.cards or not copies:
        handed_s = _bus_s(part, held.state_bytes * tokens) if tokens > 0 else 0.0
        return one, prefill_s(one, part.held, tokens, context) + handed_s
    card = device.cards[0]
    reader = _as_busy(card, device)
    flops = _prompt_flops(reader, part.held, tokens)
    # the copy and the product wait for each other, and attention stays where the KV cache is
    copied_s = part.held.bytes_read(tokens) / card.bus_bytes_per_s
    attention_s = part.held.prompt_attention_flops(tokens, context) / one.speed.prefill_flops
    computed_s = flops / reader.speed.prefill_flops + part.held.layers * reader.speed.layer_overhead
    return reader, copied_s + computed_s * crowding(reader) + attention_s * crowding(one)


def _bus_s(part: Portion, size_bytes: float) -> float:
    """Seconds of all hand-overs of a step over the bus of one processor."""
    return part.crossings * (part.processor.bus_delay_s + size_bytes / part.processor.bus_bytes_per_s)


def _as_busy(processor: Processor, device: Device) -> Device:
    """The processor as busy, as hot and as crowded as its device."""
    return replace(
        processor.device,
        background_load=device.background_load,
        contention=device.contention,
        slow_down=device.slow_down,
    )
