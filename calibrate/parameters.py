"""The parameters of a calibration: one table of their kinds, and the one place that makes and reads names.

A parameter is called as its kind is, with the device behind a slash where each has its own (`layer_s/phone`).
All are times, or what something costs more, so each is bound by zero: what `fit` solves for is never less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from simulator.engine.base import engine
from simulator.laws.factors import BATCH, CONTENTION, CONTEXT, device_factor, engine_factor
from simulator.runtime.job import Job

__all__ = [
    "BATCH_COST",
    "CONTENTIONS",
    "CONTEXT_COST",
    "HOP_OVERHEAD",
    "PARAMETERS",
    "STEP_OVERHEAD",
    "ParameterKind",
    "contention_of",
    "device_of",
    "is_parameter",
    "kind_of_parameter",
    "layer_time",
]

STEP_OVERHEAD, HOP_OVERHEAD = "step_overhead_s", "hop_overhead_s"
CONTEXT_COST, BATCH_COST = "context_cost", "batch_cost"
CONTENTIONS = ("contention", "contention/polling")
"""What waiting costs on a shared machine, of engines that sleep and that poll: one cost, two beliefs."""
_LAYER = "layer_s"


@dataclass(frozen=True, slots=True)
class ParameterKind:
    """What is known of a kind of parameter before any measurement, and where it enters.

    Seconds begin, and are believed, in units of the data's own times, for a phone's are fifty times a card's.
    """

    name: str
    unit: Literal["s", "1"]
    start: float
    """Where a fit begins: a share of a layer's time for seconds, else the value."""
    size: float
    """What a usual one is, in its unit: the scale of differences and of a design."""
    belief: tuple[float, float] | None
    """Mean and standard deviation before any data, as shares of a token's time for seconds; None where
    devices of one kind are believed to be alike instead (`prior`).
    """
    path: str
    """What of a scenario it sets; {} is a device."""
    factor: Callable[[str], str]
    """The world factor of its draws, told a device."""
    matters: Callable[[Job, str], bool]
    """Whether a job's token times can depend on it, told a device."""


PARAMETERS = {
    kind.name: kind
    for kind in (
        ParameterKind(
            name=_LAYER,
            unit="s",
            start=1.0,  # all time in the layers
            size=1e-3,
            belief=None,
            path="devices.{}.speed.decode_bandwidth",
            # the fit sees decode times alone; prompts have a rate and a spread of their own (`prefill`)
            factor=lambda device: device_factor(device, "decode"),
            matters=lambda job, device: any(s.device == device and s.layers for s in job.shards),
        ),
        # An overhead is zero give or take 30 % of a token's time: so time that placements do not separate
        # goes to the layers, which read gigabytes, and not to an overhead that would make them free.
        ParameterKind(
            name=STEP_OVERHEAD,
            unit="s",
            start=0.1,
            size=1e-3,
            belief=(0.0, 0.3),
            path="engine.step_overhead",
            factor=lambda _: engine_factor("step"),
            matters=lambda job, _: True,
        ),
        ParameterKind(
            name=HOP_OVERHEAD,
            unit="s",
            start=0.1,
            size=1e-3,
            belief=(0.0, 0.3),
            path="engine.hop_overhead",
            factor=lambda _: engine_factor("hop"),
            matters=lambda job, _: len(job.ring) > 1,
        ),
        # The catalogue's graphics processors read KV bytes at 1.45 to 1.8 times the cost of weight bytes.
        ParameterKind(
            name=CONTEXT_COST,
            unit="1",
            start=1.0,
            size=1.0,
            belief=(1.5, 3.0),
            path="devices.{}.speed.context_cost",
            factor=lambda _: CONTEXT,
            matters=lambda job, _: True,
        ),
        # A batch is nearly free on a graphics processor and up to linear on a processor.
        ParameterKind(
            name=BATCH_COST,
            unit="1",
            start=0.1,
            size=0.1,
            belief=(0.2, 0.3),
            path="devices.{}.speed.batch_cost",
            factor=lambda _: BATCH,
            matters=lambda job, _: job.workload.concurrency > 1,
        ),
        # An EXO rank that waits for its turn on a shared machine was seen (by its CPU time, not by token
        # times) to take 10 to 15 % of a core for polling, while a llama.cpp server that waits sleeps.
        *(
            ParameterKind(
                name=name,
                unit="1",
                start=0.05,
                size=0.1,
                belief=(mean, 0.05),
                path="shared_host.contention",
                factor=lambda _: CONTENTION,
                matters=lambda job, _: len(job.ring) > 1,
            )
            for name, mean in zip(CONTENTIONS, (0.0, 0.1), strict=True)
        ),
    )
}


def layer_time(device: str) -> str:
    """The name of a device's seconds per layer."""
    return f"{_LAYER}/{device}"


def contention_of(engine_name: str) -> str:
    """The name of what sharing a machine costs this engine."""
    return CONTENTIONS[engine(engine_name).waits_by_polling]


def device_of(name: str) -> str | None:
    """The device whose seconds per layer a parameter is; None for what all devices share.

    >>> device_of("layer_s/a/b"), device_of("contention/polling")
    ('a/b', None)
    """
    kind, slash, device = name.partition("/")
    return device if slash and kind == _LAYER else None


def is_parameter(name: str) -> bool:
    """Whether a parameter may be called so."""
    return bool(device_of(name)) or (name in PARAMETERS and name != _LAYER)


def kind_of_parameter(name: str) -> ParameterKind:
    """The kind of the parameter of that name; KeyError for a name that is none of ours."""
    return PARAMETERS[name if device_of(name) is None else _LAYER]
