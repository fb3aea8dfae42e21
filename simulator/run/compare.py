"""compare: scenarios on the same random numbers, ranked, with the break-even of a
device that one has more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from simulator.errors import Fault, ScenarioError
from simulator.laws.law import Floats, scaled
from simulator.library import must_be_scenario
from simulator.prepare import prepare
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.run.crossover import Crossover, crossovers, differ_in_strategy
from simulator.run.evaluate import scenario_rates
from simulator.scenario import DeviceSpec, Scenario
from simulator.spec import Spec
from simulator.units import format_seconds

__all__ = ["Comparison", "Ranked", "against_first", "compare"]

REPLICATIONS = 60
TOKENS = 32
HALVINGS = 14
"""Break-even search: 14 halvings of a factor of 10,000 leave 0.06 % of its logarithm."""
FARTHEST = 100.0
"""A device is not looked for beyond this factor of its own speed and nearness."""


class Ranked(Spec):
    """One scenario of a comparison; difference and probability are against the reference, pair by pair."""

    scenario: str
    tokens_per_s: Estimate
    difference: Estimate
    probability_better: float


class Comparison(Spec):
    """Scenarios by their median tokens/s, the best first."""

    reference: str
    ranking: tuple[Ranked, ...]
    verdicts: tuple[str, ...]
    crossovers: tuple[Crossover, ...] = ()
    """Where two scenarios of different strategies on the same devices are given: where the answer turns."""


def compare(scenarios: Sequence[Scenario]) -> Comparison:
    """Rank scenarios; the first one is the reference.

    All are run with the reference's seed and with as many replications and runs as the smallest asks for, so
    that row i of each meets the same devices, networks and noise. Raises what `prepare` raises.
    """
    if not scenarios:
        raise ScenarioError("compare", [Fault("", "there is nothing to compare; give two scenarios or more")])
    for scenario in [scenarios] if isinstance(scenarios, str) else scenarios:
        must_be_scenario("compare", scenario)
    names = [scenario.name for scenario in scenarios]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        reason = f"{', '.join(twice)}: more than one scenario has this name; give each a name of its own"
        raise ScenarioError("compare", [Fault("name", reason)])
    aligned = _aligned(scenarios)
    rates = [scenario_rates(scenario) for scenario in aligned]
    ranking = against_first([scenario.name for scenario in aligned], rates)
    verdicts = [
        sentence
        for scenario, row in zip(aligned[1:], ranking[1:], strict=True)
        for sentence in _verdict(aligned[0], scenario, row)
    ]
    # after the verdicts, which go by the order in which scenarios were given
    ranking.sort(key=lambda row: -row.tokens_per_s.median)
    turns: tuple[Crossover, ...] = ()
    if len(aligned) == 2 and differ_in_strategy(*aligned):
        turns = crossovers(*aligned)
        verdicts += [f"{one.sentence}" for one in turns]
    return Comparison(reference=names[0], ranking=tuple(ranking), verdicts=tuple(verdicts), crossovers=turns)


def against_first(names: Sequence[str], rates: Sequence[Floats]) -> list[Ranked]:
    """Each scenario's rates (tokens/s, shape (rows,)) against the first one's, row by row, in their order."""
    return [
        Ranked(
            scenario=name,
            tokens_per_s=estimate(rate),
            difference=estimate(rate - rates[0]),
            probability_better=rounded(float(np.mean(rate > rates[0]))),
        )
        for name, rate in zip(names, rates, strict=True)
    ]


def _aligned(scenarios: Sequence[Scenario]) -> list[Scenario]:
    # rows are compared one with one, so all need the same number of worlds and of runs in each
    replications = min(scenario.replications for scenario in scenarios)
    runs = min(scenario.workload.runs for scenario in scenarios)
    return [
        scenario.model_copy(
            update={
                "seed": scenarios[0].seed,
                "replications": replications,
                "workload": scenario.workload.model_copy(update={"runs": runs}),
            }
        )
        for scenario in scenarios
    ]


def _verdict(base: Scenario, other: Scenario, row: Ranked) -> list[str]:
    """In words: does it help; and where `other` has one device more, what that one would have to be."""
    if row.difference.p05 == row.difference.p95 == 0:
        return [f"{other.name} and {base.name} are the same to this simulation"]
    word = "faster" if row.difference.median > 0 else "slower"
    chance = row.probability_better if word == "faster" else 1 - row.probability_better
    change = row.difference.text("tokens/s")
    sentences = [
        f"{other.name} is {word} than {base.name} by {change.lstrip('-')} with probability {chance:.0%}"
        if row.difference.median >= 0
        else f"{other.name} is slower than {base.name}: {change}, with probability {chance:.0%}"
    ]
    added = [name for name in other.devices if name not in base.devices]
    if len(added) == 1 and len(other.devices) == len(base.devices) + 1:
        sentences += _break_even(base, other, added[0])
    return sentences


def _break_even(base: Scenario, other: Scenario, name: str) -> list[str]:
    """How fast, and how near, the added device would have to be for the two to be equal."""
    if other.devices[name].processors is not None:
        return [f"break-even of {name} is not looked for: it has several processors, each with its own speed"]
    # some fifty evaluations follow: three searches of 14 halvings and two ends
    short = [_short(scenario) for scenario in _aligned([base, other])]
    goal = float(np.median(scenario_rates(short[0])))
    device = prepare(short[1]).scenario.devices[name]
    assert device.speed is not None
    assert device.link.delay is not None
    gb_per_s, rtt_s = device.speed.decode_bandwidth / 1e9, 2 * device.link.delay.mean_s

    def surplus(speed: float, delay: float) -> float:
        return float(np.median(scenario_rates(_changed(short[1], name, device, speed, delay)))) - goal

    speed = _root(lambda factor: surplus(factor, 1.0))
    delay = _root(lambda factor: surplus(1.0, 1 / factor))
    both = _root(lambda factor: surplus(factor, 1 / factor))
    return [
        f"break-even of {name} (now {gb_per_s:.3g} GB/s effective, mean round trip {format_seconds(rtt_s)} "
        "to its access point):",
        "  by speed alone: " + _needs(speed, lambda f: f"{gb_per_s * f:.3g} GB/s"),
        "  by a nearer link alone: " + _needs(delay, lambda f: f"round trip of {format_seconds(rtt_s / f)}"),
        "  by both in step: "
        + _needs(both, lambda f: f"{gb_per_s * f:.3g} GB/s and {format_seconds(rtt_s / f)}"),
    ]


def _needs(factor: float | None, show: Callable[[float], str]) -> str:
    if factor is None:
        return f"not even {FARTHEST:.0f} times better would do"
    if factor <= 1 / FARTHEST:
        return f"helps even {FARTHEST:.0f} times worse"
    return show(factor)


def _root(surplus: Callable[[float], float]) -> float | None:
    """The factor in [1/100, 100] at which `surplus`, which grows with it, crosses
    zero; None if it stays below.
    """
    low, high = 1 / FARTHEST, FARTHEST
    if surplus(high) < 0:
        return None
    if surplus(low) >= 0:
        return low
    for _ in range(HALVINGS):
        # in the logarithm: twice as good and half as good are equally far
        middle = (low * high) ** 0.5
        low, high = (low, middle) if surplus(middle) >= 0 else (middle, high)
    return high


def _short(scenario: Scenario) -> Scenario:
    workload = scenario.workload.model_copy(update={"runs": 1, "output_tokens": TOKENS})
    return scenario.model_copy(
        update={"workload": workload, "replications": min(REPLICATIONS, scenario.replications)}
    )


def _changed(scenario: Scenario, name: str, device: DeviceSpec, speed: float, delay: float) -> Scenario:
    """The scenario with one device `speed` times as fast and its link's delay times `delay`."""
    assert device.speed is not None
    assert device.link.delay is not None
    fast = device.speed.model_copy(
        update={
            "decode_bandwidth": device.speed.decode_bandwidth * speed,
            "prefill_flops": device.speed.prefill_flops * speed,
            # a faster machine launches its layers faster too; else overhead would bound every break-even
            "layer_overhead": device.speed.layer_overhead / speed,
        }
    )
    link = device.link.model_copy(update={"delay": scaled(device.link.delay, delay)})
    changed = device.model_copy(update={"speed": fast, "link": link})
    return scenario.model_copy(update={"devices": {**scenario.devices, name: changed}})
