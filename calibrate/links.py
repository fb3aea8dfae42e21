"""Links that agents measured (`sim live links`), as the links of a scenario.

A round trip between a and b passes a's side, b's side, and both again: `rtt = 2 * (d_a + d_b)`.
Where one delay per device explains all pairs they become the devices' links; a pair that no sum explains is
a wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import ValidationError
from scipy.optimize import nnls

from calibrate.delays.read import link_rtts_s
from calibrate.delays.round_trip import law_from_rtt
from simulator.errors import CalibrationError, MeasurementError
from simulator.files.explain import in_words
from simulator.laws import Constant, Law
from simulator.laws.law import Floats, median_s, scaled
from simulator.result.estimate import rounded
from simulator.result.measurement import Measurement
from simulator.scenario import LinkSpec, Scenario, WireSpec
from simulator.spec import Spec
from simulator.units import format_seconds

__all__ = ["MeasuredLinks", "is_links", "measured_links", "with_links"]

Pair = tuple[str, str]
ADDS_UP = 0.15
"""A sum this near to the measured median explains a pair: repeats on the recorded rig differ by 5 to 15 %."""
LEAST_S = 1e-6  # of a side that the pairs leave nothing for; a switch takes some microseconds
OWN_SHARE = 0.75
"""From this share of a pair's delay on, its tail is taken for that side's alone."""
QUANTILES = 400
"""Points of a law of one crossing that stand for a sample of it when it is split once more."""


class MeasuredLinks(Spec):
    """What agents measured: a link for each device whose pairs add up, a wire for each pair that does not."""

    links: dict[str, LinkSpec]
    wires: tuple[WireSpec, ...] = ()
    notes: tuple[str, ...] = ()


def is_links(measurement: Measurement) -> bool:
    """Whether a Measurement holds links and no model."""
    return measurement.provenance.engine == "links"


def measured_links(measurements: Iterable[Measurement]) -> MeasuredLinks:
    """Links and wires from idle round trips of the smallest message, and from the rates.

    Raises MeasurementError without any round trip, and for agents called as no device of a scenario can be.
    """
    measured = list(measurements)
    rtts, rates = _pooled(measured)
    half_s = {pair: float(np.median(values)) / 2 for pair, values in rtts.items()}
    sides, wired = _split(half_s)
    links = {name: _link(name, sides, rtts, rates) for name in sorted(sides)}
    try:
        wires = tuple(_wire(pair, rtts[pair], rates.get(pair, ())) for pair in wired)
    except ValidationError as error:
        raise MeasurementError(
            f"{_files(measured)}: no name for a scenario's device: {in_words(error)}; give the agent another "
            "one (`sim live agent --name`) and measure again"
        ) from None
    return MeasuredLinks(links=links, wires=wires, notes=tuple(_notes(half_s, sides, wired)))


def _files(measurements: Sequence[Measurement]) -> str:
    return ", ".join(one.path or one.provenance.name for one in measurements)


def _pooled(measurements: Sequence[Measurement]) -> tuple[dict[Pair, Floats], dict[Pair, tuple[float, ...]]]:
    """Round trips (s) and rates (bytes/s) by pair, both directions together."""
    routes = [
        (route, rtts) for one in measurements for route, rtts in link_rtts_s(one).items() if not route.loaded
    ]
    if not routes:
        raise MeasurementError(
            f"{_files(measurements)}: no idle round trips between agents; measure them with `sim live links`"
        )
    # small messages: what a message's bytes take is the rate's business
    least = min(route.size_bytes for route, _ in routes)
    rtts: dict[Pair, list[Floats]] = {}
    for route, values in routes:
        if route.size_bytes == least:
            rtts.setdefault(_pair(route.source, route.sink), []).append(values)
    rates: dict[Pair, tuple[float, ...]] = {}
    for event in (event for one in measurements for event in one.of("link_rate")):
        pair = _pair(event["source"], event["sink"])
        rates[pair] = (*rates.get(pair, ()), event["bytes_per_s"])
    return {pair: np.concatenate(values) for pair, values in sorted(rtts.items())}, rates


def _pair(source: str, sink: str) -> Pair:
    return (source, sink) if source < sink else (sink, source)


def _split(half_s: Mapping[Pair, float]) -> tuple[dict[str, float], list[Pair]]:
    """One-way delay (s) of each device's side, and the pairs that no sum of sides explains.

    Pairs are taken out, each time the one without which the rest adds up best: the worst of a fit may be
    another one, for a short cable pulls both of its ends down. Sides need an equation per device; where fewer
    are left (of three pairs, one was no sum), nothing is known of sides.
    """
    pairs = dict(half_s)
    while pairs:
        sides, error = _sides(pairs)
        if error <= ADDS_UP:
            return sides, sorted(set(half_s) - set(pairs))
        without = [{pair: value for pair, value in pairs.items() if pair != out} for out in pairs]
        pairs = min(without, key=lambda rest: _sides(rest)[1])
        if _sides(pairs)[1] == np.inf:
            break
    return {}, sorted(half_s)


def _sides(half_s: Mapping[Pair, float]) -> tuple[dict[str, float], float]:
    """Sides (s) of non-negative least squares, and the largest relative error; infinite where they are not
    determined.
    """
    names = sorted({name for pair in half_s for name in pair})
    if len(half_s) == 1:  # one sum of two unknowns: halves
        return {name: value / 2 for pair, value in half_s.items() for name in pair}, 0.0
    table = np.array([[float(name in pair) for name in names] for pair in half_s])
    if not half_s or np.linalg.matrix_rank(table) < len(names):
        return {}, np.inf
    measured = np.array(list(half_s.values()))
    # relative, for a pair on a cable must not vanish beside one on Wi-Fi
    found, _ = nnls(table / measured[:, None], np.ones(len(measured)))
    sides = {name: max(float(side), LEAST_S) for name, side in zip(names, found, strict=True)}
    return sides, float(np.abs(table @ found / measured - 1).max())


def _link(
    name: str,
    sides: Mapping[str, float],
    rtts: Mapping[Pair, Floats],
    rates: Mapping[Pair, tuple[float, ...]],
) -> LinkSpec:
    """The law of one side: median from the sums, shape from the pair in which it has the largest part."""
    share = {
        pair: sides[name] / (sides[pair[0]] + sides[pair[1]])
        for pair in rtts
        if name in pair and pair[0] in sides and pair[1] in sides
    }
    pair = max(share, key=lambda one: share[one])
    law = _crossing(rtts[pair]) if share[pair] >= OWN_SHARE else _end(rtts[pair])
    # a device is as fast as its fastest pair shows: in the others, the other side may have been the limit
    fastest = max((_mean(values) for pair, values in rates.items() if name in pair), default=None)
    return LinkSpec(delay=_at(law, sides[name]), rate=_rate(fastest), **_measured())


def _wire(pair: Pair, rtts: Floats, rates: Sequence[float]) -> WireSpec:
    law = _at(_end(rtts), float(np.median(rtts)) / 4)
    if not rates:
        return WireSpec(between=pair, delay=law, **_measured())
    return WireSpec(between=pair, delay=law, kind=None, rate=_rate(_mean(rates)), **_measured())


def _mean(rates: Sequence[float]) -> float:
    """Geometric, over both directions: a scenario has one rate for the two."""
    return float(np.exp(np.mean(np.log(rates))))


def _rate(bytes_per_s: float | None) -> Any:
    return None if bytes_per_s is None else f"{bytes_per_s:.0f} B/s"


def _measured() -> dict[str, Any]:
    # repeats of the recorded matrix within an hour differ by about 5 %
    return {"delay_spread": 0.05, "rate_spread": 0.1, "label": "measured"}


def _crossing(rtt_s: Floats) -> Law:
    """The law of one crossing of both sides."""
    return _law(rtt_s.tobytes())


@lru_cache(maxsize=64)
def _law(rtt_s: bytes) -> Law:
    """Both sides of a pair ask for the same law, and one takes seconds to fit."""
    return law_from_rtt(np.frombuffer(rtt_s)).law


def _end(rtt_s: Floats) -> Law:
    """The law of one side where both are alike: two make a crossing, as two crossings a round trip."""
    crossing = _crossing(rtt_s)
    if isinstance(crossing, Constant):
        return scaled(crossing, 0.5)
    points = (np.arange(QUANTILES) + 0.5) / QUANTILES
    # in a scrambled order: neighbours of a sorted sample would be taken for drift
    return _crossing(np.random.default_rng(0).permutation(crossing.quantile(points)))


def _at(law: Law, middle_s: float) -> Law:
    """The law with that median, rounded as fitted values are."""
    return scaled(law, rounded(middle_s / median_s(law)))


def _notes(half_s: Mapping[Pair, float], sides: Mapping[str, float], wired: Sequence[Pair]) -> Iterable[str]:
    if len(sides) == 2 and len(half_s) == 1:
        yield f"{' and '.join(sides)}: one pair tells no sides apart, so each has half; ask a third agent"
    for pair in wired:
        yield (
            f"{' and '.join(pair)}: {format_seconds(half_s[pair])} one way is no sum of two devices' sides "
            f"within {ADDS_UP:.0%}, so the pair is a wire of its own"
        )


def with_links(scenario: Scenario, measured: MeasuredLinks) -> tuple[Scenario, tuple[str, ...]]:
    """The scenario with these links and wires, and what the reader should know.

    A measured pair takes the place of a wire between the same two. Raises CalibrationError if no name fits.
    """
    names = {*measured.links, *(end for wire in measured.wires for end in wire.between)}
    known = set(scenario.devices)
    if not names & known:
        raise CalibrationError(
            f"links of {', '.join(sorted(names))} are no links of {scenario.name}, whose devices are "
            f"{', '.join(known)}; call the agents like the devices (`sim live agent --name`)"
        )
    devices = {
        name: spec.model_copy(update={"link": _onto(spec.link, measured.links[name])})
        if name in measured.links
        else spec
        for name, spec in scenario.devices.items()
    }
    wires = [wire for wire in measured.wires if set(wire.between) <= known]
    explained = {frozenset(pair) for pair in combinations(measured.links, 2)} | {
        frozenset(wire.between) for wire in wires
    }
    kept = [wire for wire in scenario.wires if frozenset(wire.between) not in explained]
    made = scenario.model_copy(update={"devices": devices, "wires": (*kept, *wires)})
    strangers = [f"{name}: measured, and no device of {scenario.name}" for name in sorted(names - known)]
    return made, (*measured.notes, *strangers)


def _onto(link: LinkSpec, measured: LinkSpec | None) -> LinkSpec:
    """What was measured in place of what was assumed; the kind stays, for it says whose air is shared."""
    if measured is None:
        return link
    told = measured.model_dump(exclude_none=True, include={"delay_spread", "rate_spread", "label", "rate"})
    return link.model_copy(update={**told, "delay": measured.delay, "rtt": None})
