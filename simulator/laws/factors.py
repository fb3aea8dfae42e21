"""World factors: what each random factor of a job is called, means, and is best measured by.

A name says whose factor it is and of what: `world/<device or cable>/<part>`, `world/engine/<part>`,
`world/<part>` of what all devices share, `session/<device>` of a cluster that was started anew. Names are
seeds of random streams (`streams`) and columns of a posterior, so a name that is changed changes numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BATCH",
    "COMMON",
    "CONTENTION",
    "CONTEXT",
    "cable",
    "device_factor",
    "engine_factor",
    "how_to_measure",
    "in_words",
    "is_rate",
    "link_factor",
    "session_factor",
]

CONTEXT, BATCH, CONTENTION = "world/context", "world/batch", "world/contention"
COMMON = "common"
"""Stands for a device in the factors of what all share."""
ENGINE = "engine"


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
    "context": _FactorWords("cost of a context"),
    "batch": _FactorWords("cost of a batch"),
    "contention": _FactorWords("cost of sharing one machine"),
    "session": _FactorWords("luck of the session on {}"),
}
LINK_PARTS = ("delay", "rate")


def device_factor(device: str, part: str) -> str:
    """Of a device's times: `decode`, `prefill`, or `load`, which is all of them by what else it does."""
    return f"world/{device}/{part}"


def link_factor(end: str, part: Literal["delay", "rate"]) -> str:
    """Of a device's link, or of the cable that `cable` names."""
    return f"world/{end}/{part}"


def engine_factor(part: Literal["step", "hop"]) -> str:
    """Of the engine's own work for each token, or for each message."""
    return f"world/{ENGINE}/{part}"


def session_factor(device: str = COMMON) -> str:
    """Of a device, or of all, for as long as a cluster stands."""
    return f"session/{device}"


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
    if part in LINK_PARTS:
        whose = f"the cable {whose}" if "--" in whose else f"{whose}'s link"
    return PARTS[part].words.format(engine if part in ("step", "hop") else whose)


def how_to_measure(name: str) -> str:
    """What would narrow a factor."""
    return PARTS[_read(name)[1]].measure


def is_rate(name: str) -> bool:
    """Whether more of a factor is better; all others multiply times."""
    return _read(name)[1] == "rate"
