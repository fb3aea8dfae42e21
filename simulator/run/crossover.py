"""crossover: where the answer turns between pipeline and tensor: at which latency, ranks, context and batch.

Every point is a pair of predictions on the same random numbers; decode and first token are judged apart, by
the median of the paired ratios. Between two points on either side it is found by halving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np

from simulator.engine.base import engine, flows_of
from simulator.errors import Fault, PlacementError, ScenarioError
from simulator.laws.law import Law, scaled
from simulator.prepare import prepare
from simulator.result.estimate import rounded
from simulator.run.evaluate import token_times_s
from simulator.scenario import PlacementSpec, Scenario
from simulator.spec import Spec
from simulator.units import format_seconds

__all__ = ["Crossover", "crossovers", "differ_in_strategy", "other_strategy"]

REPLICATIONS, TOKENS = 40, 16
HALVINGS = 7
"""Of a factor of 4: to within 1.1 %."""
STEP = 4.0
FACTORS = tuple(STEP**power for power in range(-3, 4))
"""Of all delays that are looked at: a 64th to 64 times."""
CONTEXTS = (128, 512, 2048, 8192, 32768)
BATCHES = (1, 2, 4, 8, 16, 32)
Judged = Literal["decode", "first token"]
Of = Literal["latency", "ranks", "context", "batch"]
JUDGED: tuple[Judged, ...] = ("decode", "first token")


class Crossover(Spec):
    """Where one of two strategies becomes the faster one, as one thing is changed alone."""

    of: Of
    judged: Judged
    low: str
    """The faster one at the lowest value that was looked at."""
    high: str
    """And at the highest; the same where the answer does not turn."""
    turns_at: float | None
    """Seconds one way between two ranks, devices, tokens before the reply, or chats; None: nowhere."""
    least: float
    most: float

    @property
    def sentence(self) -> str:
        """In words."""
        show = format_seconds if self.of == "latency" else "{:,.0f}".format
        what = WORDS[self.of]
        if self.turns_at is None:
            span = show(self.least) if self.least == self.most else f"{show(self.least)} to {show(self.most)}"
            return f"{self.judged}: {self.low} is faster at every {what} looked at ({span})"
        return (
            f"{self.judged}: {self.low} is faster below a {what} of {show(self.turns_at)}, {self.high} above"
        )


WORDS = {
    "latency": "one-way delay between ranks",
    "ranks": "number of ranks",
    "context": "context (tokens)",
    "batch": "batch (chats)",
}


def differ_in_strategy(one: Scenario, other: Scenario) -> bool:
    """Whether one of the two splits layers and the other gives whole ones, on the same devices."""
    splits = {engine(scenario.engine.name).splits_layers for scenario in (one, other)}
    return len(splits) == 2 and one.devices.keys() == other.devices.keys()


def other_strategy(scenario: Scenario) -> Scenario:
    """The same by the other strategy of its engine; raises ScenarioError where that has one alone."""
    flow = engine(scenario.engine.name)
    for other in flows_of(flow.software):
        if other.splits_layers != flow.splits_layers:
            named = scenario.engine.model_copy(
                update={"name": other.name, "sharding": other.facts.sharding, "backend": None}
            )
            return scenario.model_copy(
                update={
                    "name": f"{scenario.name}_{other.facts.sharding}",
                    "engine": named,
                    "placement": PlacementSpec(min_devices=scenario.placement.min_devices),
                }
            )
    reason = f"{flow.name} has no other strategy to compare with; give two scenarios"
    raise ScenarioError("compare", [Fault("engine", reason)])


def crossovers(one: Scenario, other: Scenario) -> tuple[Crossover, ...]:
    """Where the answer between two strategies turns; what does not fit in memory is not looked at.

    Raises what `prepare` raises for the scenarios as they are.
    """
    pair = _short(one), _short(other)
    delay_s = _delay_s(one if engine(one.engine.name).splits_layers else other)
    delays = [factor * delay_s for factor in FACTORS]
    return tuple(
        found
        for of, values, change in (
            ("latency", delays, lambda s, value: _delayed(s, value / delay_s)),
            ("ranks", _ranks(pair), _fewer),
            ("context", CONTEXTS, partial(_with, "prompt_tokens")),
            ("batch", BATCHES, partial(_with, "concurrency")),
        )
        for found in _turns(of, pair, values, change)  # type: ignore[arg-type]
    )


def _turns(
    of: Of,
    pair: tuple[Scenario, Scenario],
    values: Sequence[float],
    change: Callable[[Scenario, float], Scenario],
) -> Iterator[Crossover]:
    known: dict[float, dict[Judged, float] | None] = {}

    def leads(value: float) -> dict[Judged, float] | None:
        if value not in known:
            known[value] = _leads(change(pair[0], value), change(pair[1], value))
        return known[value]

    seen = [(value, lead) for value in values if (lead := leads(value)) is not None]
    for judged in JUDGED if seen else ():
        names = [pair[0 if lead[judged] > 0 else 1].name for _, lead in seen]
        turn = next((at for at in range(1, len(seen)) if names[at] != names[0]), None)
        found = None
        if turn is not None:
            low, high = seen[turn - 1][0], seen[turn][0]
            found = low if of == "ranks" else _halved(low, high, judged, leads, whole=of != "latency")
        yield Crossover(
            of=of,
            judged=judged,
            low=names[0],
            high=names[0] if turn is None else names[turn],
            turns_at=None if found is None else rounded(found),
            least=rounded(seen[0][0]),
            most=rounded(seen[-1][0]),
        )


def _halved(
    low: float,
    high: float,
    judged: Judged,
    leads: Callable[[float], dict[Judged, float] | None],
    *,
    whole: bool,
) -> float:
    first = leads(low)
    assert first is not None, "both ends were looked at"
    for _ in range(HALVINGS):
        middle = float(round((low * high) ** 0.5)) if whole else (low * high) ** 0.5
        lead = leads(middle) if low < middle < high else None
        if lead is None:
            break
        same = (lead[judged] > 0) == (first[judged] > 0)
        low, high = (middle, high) if same else (low, middle)
    return high


def _leads(one: Scenario, other: Scenario) -> dict[Judged, float] | None:
    """By how much (logarithm, median of pairs) the first is faster; None where one does not fit."""
    try:
        (rate, first_s), (other_rate, other_first_s) = _judged(one), _judged(other)
    except PlacementError:
        return None
    return {
        "decode": float(np.median(np.log(rate / other_rate))),
        "first token": float(np.median(np.log(other_first_s / first_s))),
    }


def _judged(scenario: Scenario) -> tuple[np.ndarray, np.ndarray]:
    """Tokens/s of a chat after its first token, and seconds to that, shape (rows,) each."""
    job = prepare(scenario).job
    times_s = token_times_s(job, scenario.replications)
    span_s = (times_s[:, -1] - times_s[:, 0]).mean(axis=0)
    return (times_s.shape[1] - 1) / span_s, times_s[:, 0].mean(axis=0)


def _short(scenario: Scenario) -> Scenario:
    workload = scenario.workload.model_copy(
        update={"runs": 1, "output_tokens": min(TOKENS, scenario.workload.output_tokens), "arrivals": None}
    )
    full = prepare(scenario).scenario
    rows = min(REPLICATIONS, scenario.replications)
    return full.model_copy(update={"workload": workload, "replications": rows})


def _with(key: str, scenario: Scenario, value: float) -> Scenario:
    workload = scenario.workload.model_copy(update={key: int(value)})
    return scenario.model_copy(update={"workload": workload})


def _ranks(pair: tuple[Scenario, Scenario]) -> list[float]:
    return [float(n) for n in range(2, len(pair[0].devices) + 1)]


def _fewer(scenario: Scenario, count: float) -> Scenario:
    """The first devices alone, with the cables between them."""
    names = list(scenario.devices)[: int(count)]
    return scenario.model_copy(
        update={
            "devices": {name: scenario.devices[name] for name in names},
            "wires": tuple(wire for wire in scenario.wires if set(wire.between) <= set(names)),
            "placement": PlacementSpec(),
        }
    )


def _delay_s(scenario: Scenario) -> float:
    """Median seconds one way between two neighbours of a collective."""
    job = prepare(scenario).job
    names = job.placement.devices
    return job.cluster.path(names[0], names[-1], polled=True).median_s


def _delayed(scenario: Scenario, factor: float) -> Scenario:
    """All delays `factor` times as long."""

    def longer(law: Law | None) -> Law | None:
        return None if law is None else scaled(law, factor)

    def changed(spec: object) -> dict[str, Law | None]:
        return {key: longer(getattr(spec, key)) for key in ("delay", "collective_delay")}

    devices = {
        name: device.model_copy(update={"link": device.link.model_copy(update=changed(device.link))})
        for name, device in scenario.devices.items()
    }
    wires = tuple(wire.model_copy(update=changed(wire)) for wire in scenario.wires)
    return scenario.model_copy(update={"devices": devices, "wires": wires})
