"""Samples: what a Measurement says about inter-token time, run by run, with doubts about it.

Only gaps during which every chat of a run was decoding count: a new request's prompt stops the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from simulator.errors import MeasurementError, SimulatorError
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.result.bursts import Arrivals, arrivals, in_words
from simulator.result.measurement import Measurement
from simulator.scenario import PlacementSpec, Scenario

__all__ = ["RunSample", "Sample", "sample"]

FEWEST_GAPS = 8
"""A run with fewer gaps has no median worth the name."""
DRIFT = 0.15
"""First and last third of a run that differ by more than this are called drift."""


@dataclass(frozen=True, slots=True)
class RunSample:
    """One run: its inter-token gaps (s) in order, pooled over chats, and its first-token time (s)."""

    gaps_s: Floats
    first_token_s: float
    prompt_tokens: float
    context: float
    """Mean context length (tokens) over the gaps."""
    bursts: bool = False
    """Whether its tokens arrive in bursts: sums of gaps are true then, single ones are estimates."""

    @property
    def median_s(self) -> float:
        """Median gap."""
        return float(np.median(self.gaps_s))


@dataclass(frozen=True, slots=True)
class Sample:
    """All usable runs of one Measurement, with the scenario that was measured."""

    name: str
    sha256: str
    scenario: Scenario
    runs: tuple[RunSample, ...]
    warnings: tuple[str, ...]
    visits_s: tuple[float, ...] = ()
    """Median gap of each visit, where the cluster was started anew for each: sessions, as it were."""
    short: tuple[RunSample, ...] = ()
    """Runs with too few gaps, which time the first token alone."""
    reference_s: tuple[float, ...] = ()
    """Times of the fixed workload before each visit."""

    @property
    def timed(self) -> tuple[RunSample, ...]:
        """All runs that time a first token."""
        return self.runs + self.short

    @property
    def gaps_s(self) -> Floats:
        """The gaps of all runs, pooled."""
        return np.concatenate([run.gaps_s for run in self.runs])

    @property
    def median_s(self) -> float:
        """Median of the pooled gaps."""
        return float(np.median(self.gaps_s))


def sample(measurement: Measurement, *, first_token_is_enough: bool = False) -> Sample:
    """The usable part of a Measurement; what is not usable is said in `warnings`.

    With `first_token_is_enough` one whose runs are too short for gaps is taken for its first tokens.
    Raises MeasurementError where nothing is usable, or where the file does not say what was measured.
    """
    name = measurement.provenance.name
    if measurement.provenance.scenario is None:
        raise MeasurementError(
            f"{measurement.path or name}: holds no scenario, so nothing can be predicted for it; "
            "measure it with `sim live run`"
        )
    scenario, notes = _as_measured(measurement)
    times, warnings = measurement.token_times_s(), [*measurement.warnings, *notes]
    if not measurement.complete:
        warnings.append("the measurement was interrupted; its complete part is used")
    offsets = {(e["run"], e.get("chat", 0)): e for e in measurement.of("request")}
    # a run that was mended decoded on two placements, and its gaps are of neither
    runs: list[RunSample] = []
    short: list[RunSample] = []
    mended = measurement.mended_runs
    warnings += [f"run {run}: a device was lost in it; left out" for run in sorted(mended)]
    disturbed = measurement.disturbed_runs - mended
    warnings += [f"run {run}: somebody else used the cluster; left out" for run in sorted(disturbed)]
    left_out = mended | disturbed
    whole = {key: t for key, t in times.items() if key[0] not in left_out and _fault(t) is None}
    warnings += in_words({key: arrivals(t) for key, t in whole.items()})
    for run in sorted({key[0] for key in times} - left_out):
        chats = {chat: t for (r, chat), t in times.items() if r == run}
        prompt = {chat: offsets.get((run, chat), {}) for chat in chats}
        found, doubt = _run(chats, prompt, measurement.provenance.prompt_tokens)
        if found is not None:
            (runs if len(found.gaps_s) >= FEWEST_GAPS else short).append(found)
        warnings += [f"run {run}: {text}" for text in doubt]
    if not runs and not (short and first_token_is_enough):
        why = (
            "every run lost a device or was disturbed by others; measure without either"
            if left_out
            else (f"no run with {FEWEST_GAPS} gaps or more; measure longer")
        )
        raise MeasurementError("\n".join([f"{measurement.path or name}: {why}", *measurement.faults]))
    if len(runs) == 1:
        warnings.append("one run only: how much runs differ is unknown; measure five")
    visits = [visit for event in measurement.of("repeatability") for visit in event.get("visit_median_s", ())]
    return Sample(
        name,
        measurement.sha256,
        scenario,
        tuple(runs),
        tuple(warnings),
        tuple(visits),
        tuple(short),
        tuple(event["seconds_per_token"] for event in measurement.of("reference")),
    )


def _as_measured(measurement: Measurement) -> tuple[Scenario, list[str]]:
    """The scenario with the ranks and layers that the header says were there, and where it said otherwise.

    A reused instance, or a rule that decides by what is free, may have placed other than the scenario's rule
    would: what the tokens took is the time of the layers that were there.
    """
    where = measurement.path or measurement.provenance.name
    try:
        scenario = Scenario.model_validate(measurement.provenance.scenario)
        held = {
            shard.device: shard.end_layer - shard.start_layer for shard in measurement.provenance.placement
        }
        held = {device: layers for device, layers in held.items() if layers}
        if strangers := sorted(set(held) - set(scenario.devices)):
            raise MeasurementError(
                f"{where}: {', '.join(strangers)} held layers and is no device of its scenario "
                f"({', '.join(scenario.devices)}); measure it with a scenario that has its devices"
            )
        asked = _asked(scenario)
        # ring order counts: another first rank samples, and other links carry the messages
        if not held or list(held.items()) == list(asked.items()):
            return scenario, []
        placement = PlacementSpec(layers=held, roles=scenario.placement.roles)
        placed = scenario.model_copy(update={"placement": placement})
        prepare(placed)
    except (SimulatorError, ValidationError) as error:
        if isinstance(error, MeasurementError):
            raise
        raise MeasurementError(
            f"{where}: its scenario cannot be used: {error}; measure it again with `sim live run`"
        ) from error
    told = ", ".join(f"{layers} on {device}" for device, layers in held.items())
    return placed, [f"was placed as {told}, not as its scenario says; what was measured counts"]


def _asked(scenario: Scenario) -> dict[str, int]:
    """The layers of each device that holds some, in ring order, as the scenario's rule places them."""
    # layers that are written down are no rule's, and need no model's sizes
    layers = scenario.placement.layers or prepare(scenario).job.placement.layer_counts
    return {device: count for device, count in layers.items() if count}


def _fault(times_s: Floats) -> str | None:
    """Why the times of one reply are none."""
    if len(times_s) < 2:
        return "fewer than two tokens"
    return "all tokens came at once" if times_s[-1] == times_s[0] else None


def _run(
    chats: dict[int, Floats], requests: dict[int, dict[str, float]], prompt_tokens: int
) -> tuple[RunSample | None, list[str]]:
    doubts: list[str] = []
    absolute, found = {}, list[Arrivals]()
    for chat, times_s in chats.items():
        if fault := _fault(times_s):
            doubts.append(f"chat {chat}: {fault}; left out")
            continue
        found.append(arrivals(times_s))
        # tokens count from their own request, chats of one run begin at different times
        absolute[chat] = found[-1].times_s + requests[chat].get("sent_ns", 0) / 1e9
    if not absolute:
        return None, doubts
    # while all decode: before and after, the batch is smaller than the scenario says
    begin, end = max(t[0] for t in absolute.values()), min(t[-1] for t in absolute.values())
    gaps = [np.diff(t[(t >= begin) & (t <= end)]) for t in absolute.values()]
    pooled = np.concatenate(gaps)
    doubts += _doubts(gaps)
    if len(pooled) < FEWEST_GAPS:
        doubts.append(f"only {len(pooled)} gaps; left out")
    prompt = float(np.mean([requests[chat].get("prompt_tokens", prompt_tokens) for chat in absolute]))
    length = float(np.mean([len(times_s) for times_s in absolute.values()]))
    first = float(np.mean([chats[chat][0] for chat in absolute]))
    bursts = any(one.bursts for one in found)
    return RunSample(pooled, first, prompt, prompt + length / 2, bursts), doubts


def _doubts(gaps: Sequence[Floats]) -> list[str]:
    """Drift within a run."""
    # ten gaps in a third: fewer have medians that differ by chance alone
    thirds = [g for g in gaps if len(g) >= 30]
    if not thirds:
        return []
    first = np.median(np.concatenate([g[: len(g) // 3] for g in thirds]))
    last = np.median(np.concatenate([g[-(len(g) // 3) :] for g in thirds]))
    change = float(last / first - 1)
    return [f"drift: the last third is {change:+.0%} against the first"] if abs(change) > DRIFT else []
