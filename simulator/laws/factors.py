"""World factors: what each random factor of a job is called, means, and is best measured by.

A name says whose factor it is and of what: `world/<device or cable>/<part>`, `world/engine/<part>`,
`world/<part>` of what all devices share, `session/<device>` of a cluster that was started anew. Names are
seeds of random streams (`streams`) and columns of a posterior, so a name that is changed changes numbers.

An error is shared where its cause is: what the catalogue has wrong about a kind of device is wrong about
each of them, and a home with thick walls has them for all of its radios. Such a factor is called after
all whom it hits (`every Apple M4 10c`), so that whoever asks for it, in whichever scenario, draws the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Literal, NamedTuple

__all__ = [
    "BATCH",
    "COMMON",
    "CONTENTION",
    "CONTEXT",
    "THIS_MODEL",
    "WorldFactor",
    "cable",
    "device_factor",
    "engine_factor",
    "how_to_measure",
    "in_words",
    "is_rate",
    "link_factor",
    "parted",
    "session_factor",
]

CONTEXT, BATCH, CONTENTION = "world/context", "world/batch", "world/contention"
COMMON = "common"
"""Stands for a device in the factors of what all share."""
ENGINE = "engine"


class WorldFactor(NamedTuple):
    """A lognormal factor of median 1: its name, and the standard deviation of its logarithm."""

    name: str
    log_sd: float


@dataclass(frozen=True, slots=True)
class _FactorWords:
    """What a factor multiplies, in words; {} is whose it is."""

    words: str
    measure: str = "calibrate it"


PARTS = {
    "decode": _FactorWords("decode time on {}", "run the model on it alone, or on two splits, and calibrate"),
    "prefill": _FactorWords("prompt time on {}", "time a long prompt on it"),
    "load": _FactorWords(
        "other work on {}", "run the model on it alone, once with that work and once without"
    ),
    "delay": _FactorWords("delay of {}", "probe that link"),
    "rate": _FactorWords("throughput of {}", "probe that link"),
    "step": _FactorWords("{}'s own work per token", "calibrate the engine on two splits"),
    "hop": _FactorWords("{}'s own work per message", "calibrate the engine on two splits"),
    "request": _FactorWords("{}'s own work per request", "time the first token of a short prompt"),
    "context": _FactorWords("cost of a context"),
    "batch": _FactorWords("cost of a batch"),
    "contention": _FactorWords("cost of sharing one machine"),
    "session": _FactorWords("luck of the session on {}"),
}
LINK_PARTS = ("delay", "rate")
THIS_MODEL = "this model"
"""Stands for the job's model in who shares a factor: `sim plan` completes devices before it chooses one."""
ALL = "every "
"""How the name of those begins who share a factor; no device is called so, for its name holds no blank."""


def device_factor(device: str, part: str) -> str:
    """Of a device's times: `decode`, `prefill`, or `load`, which is all of them by what else it does."""
    return f"world/{device}/{part}"


def link_factor(end: str, part: Literal["delay", "rate"]) -> str:
    """Of a device's link, or of the cable that `cable` names."""
    return f"world/{end}/{part}"


def engine_factor(part: Literal["step", "hop", "request"]) -> str:
    """Of the engine's own work for each token, for each message, or for each request."""
    return f"world/{ENGINE}/{part}"


def session_factor(device: str = COMMON) -> str:
    """Of a device, or of all, for as long as a cluster stands."""
    return f"session/{device}"


def parted(own: str, log_sd: float, shared: Iterable[WorldFactor]) -> tuple[WorldFactor, ...]:
    """The independent factors whose product has `log_sd`: first `own`, with what the shared ones leave of it.

    Variances of logarithms add up: `own**2 = log_sd**2 - sum of shared**2`. Who is surer than the shared
    parts together (`log_sd` 0: a calibrated device, whose draws say it all) takes of each in proportion.

    >>> [round(part.log_sd, 2) for part in parted("world/pi/decode", 0.5, [WorldFactor("every pi", 0.3)])]
    [0.4, 0.3]
    """
    parts = tuple(shared)
    together = sqrt(sum(part.log_sd**2 for part in parts))
    scale = min(1.0, log_sd / together) if together else 0.0
    left = sqrt(max(0.0, log_sd**2 - (scale * together) ** 2))
    # a part of size 0 is left out, for a posterior may know its name from another device that does share it
    taken = (WorldFactor(part.name, scale * part.log_sd) for part in parts if scale * part.log_sd > 0)
    return (WorldFactor(own, left), *taken)


def cable(ends: Iterable[str]) -> str:
    """The name of the cable between two devices, whichever is named first."""
    return "--".join(sorted(ends))


def _read(name: str) -> tuple[str, str]:
    """(whose factor it is, empty where all share it; its part): a device's name may hold any character."""
    first, _, rest = name.partition("/")
    if first == "session":
        return rest, first
    whose, _, part = rest.rpartition("/")
    return whose, part


def in_words(name: str, engine: str) -> str:
    """What a factor is of, for people; `engine` is the name of the job's engine.

    >>> in_words("world/phone/decode", "exo"), in_words("world/engine/hop", "exo")
    ('decode time on phone', "exo's own work per message")
    """
    whose, part = _read(name)
    if part in LINK_PARTS and not whose.startswith(ALL):
        whose = f"the cable {whose}" if "--" in whose else f"{whose}'s link"
    if name == session_factor():
        whose = "all devices"
    return PARTS[part].words.format(engine if part in ("step", "hop", "request") else whose)


def how_to_measure(name: str) -> str:
    """What would narrow a factor."""
    return PARTS[_read(name)[1]].measure


def is_rate(name: str) -> bool:
    """Whether more of a factor is better; all others multiply times."""
    return _read(name)[1] == "rate"
