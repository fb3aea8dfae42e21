"""Which placements to measure next: those after which the scenario's own neighbourhood is predicted best.

Of many splits, ring orders and prompt lengths that fit, take one after the other the one that lowers most
the mean variance of what is to be predicted (I-optimality; the determinant of the parameters' information is
raised most by extremes: all layers on one device, 1/3/20, 23/1). The model itself is taken for a little
wrong, by an error that like splits share: so a measurement tells of its own surroundings more than of the
other end of the range, the chosen ones spread, and none is measured twice. Who names what will be asked gets
placements for those scenarios, contexts included, and none of their own splits: these stay to be predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from calibrate.forward import design, gap_s, job_of, parameter_names
from calibrate.parameters import device_of, kind_of_parameter
from calibrate.prior import MODEL_ERROR, USUAL_ERROR, prior
from simulator.engine.base import engine
from simulator.errors import CalibrationError, PlacementError
from simulator.laws.law import Floats
from simulator.placement.apportion import apportion
from simulator.prepare import prepare
from simulator.scenario import PlacementSpec, Scenario

__all__ = ["Proposal", "propose"]

CANDIDATES = 60
"""Splits looked at, each with one prompt or two; more of them are too alike to matter."""
OVERHEAD_SHARE = 0.05
"""An overhead is looked for down to this share of a token's time."""
UNKNOWN = 1.0
"""Log sd of a parameter before anything is measured: a factor of e either way."""
LIKE = 0.25
"""Share of all layers by which splits differ that still err alike, and that a user may want predicted: one
scale (standard deviation of a Gaussian) for the model's error and for the scenario's neighbourhood.
"""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One placement to measure, and how well each parameter would be known after it and all before it."""

    scenario: Scenario
    layers: dict[str, int]
    relative_sd: dict[str, float]


def propose(
    scenario: Scenario,
    runs: int,
    *,
    seed: int = 1,
    measured: Sequence[Scenario] = (),
    asked: Sequence[Scenario] = (),
    model_error: float = MODEL_ERROR,
) -> tuple[Proposal, ...]:
    """The `runs` placements to measure, the most telling first, after those that are `measured` already.

    What is to be predicted is `asked`, or, without any, what lies around `scenario`.
    `model_error` (log sd) is what the model is taken to miss of a split: more of it proposes what lies nearer
    to the scenario's own, for the others tell less of that.
    Raises CalibrationError where the scenario leaves no choice, PlacementError where it does not fit at all.
    """
    contexts = [one.workload.prompt_tokens + one.workload.output_tokens for one in (scenario, *asked)]
    candidates = [*measured, *_candidates(scenario, seed, max(contexts))]
    if len(candidates) - len(measured) < 2:
        raise CalibrationError(
            "only one placement fits this scenario, so there is nothing to choose; give it more memory, "
            "a smaller model or more devices"
        )
    everything = [*candidates, *asked]
    names = parameter_names(everything)
    rows, information = _information(everything, names)
    apart = _apart([scenario, *everything])
    wanted = _like(apart[0, 1:])
    if asked:
        wanted = np.repeat([0.0, 1.0], [len(candidates), len(asked)])
    ends = len(measured), len(candidates)
    order = _order(rows, information, apart[1:, 1:], wanted, ends, runs, model_error)
    information = information + rows[: len(measured)].T @ rows[: len(measured)]
    proposals: list[Proposal] = []
    for number, index in enumerate(order, 1):
        information = information + np.outer(rows[index], rows[index])
        sd = USUAL_ERROR * np.sqrt(np.diag(np.linalg.inv(information)))
        chosen = candidates[index]
        proposals.append(
            Proposal(
                scenario=chosen.model_copy(update={"name": f"{scenario.name}_{number:02d}"}),
                layers=dict(chosen.placement.layers or {}),
                relative_sd={name: float(value) for name, value in zip(names, sd, strict=True)},
            )
        )
    return tuple(proposals)


def _order(
    rows: Floats,
    information: Floats,
    among: Floats,
    wanted: Floats,
    ends: tuple[int, int],
    runs: int,
    model_error: float,
) -> list[int]:
    """The candidates to measure, one after the other.

    `ends` of the rows are where those end that are measured already, and where the candidates do: behind them
    is what is asked. `among` says how far splits are apart, `wanted` how much each row's prediction counts.
    """
    measured, last = ends
    # of predictions, relative: what the parameters leave open, and what the model misses
    covariance = USUAL_ERROR**2 * rows @ np.linalg.inv(information) @ rows.T + model_error**2 * _like(among)
    for index in range(measured):
        covariance = _once_measured(covariance, index)
    order: list[int] = []
    # a split that was measured is known as well as its own repeats allow; one that is asked is not given away
    known = np.r_[:measured, last : len(rows)]
    free = [i for i in range(measured, last) if not np.any(among[i, known] == 0)]
    while free and len(order) < runs:
        # by how much the mean variance of what is wanted falls
        gain = (wanted @ covariance**2) / (np.diag(covariance) + USUAL_ERROR**2)
        # of equals the first: rounding must not choose
        best = max(free, key=lambda i: (round(float(gain[i] / gain.max()), 9), -i))
        order.append(best)
        covariance = _once_measured(covariance, best)
        # never a split twice, whatever its prompt, while there are others
        free = [i for i in free if among[i, best] > 0] or [i for i in free if i != best]
    return order


def _once_measured(covariance: Floats, index: int) -> Floats:
    column = covariance[:, index]
    return np.asarray(covariance - np.outer(column, column) / (column[index] + USUAL_ERROR**2))


def _like(apart: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * (apart / LIKE) ** 2))


def _apart(scenarios: Sequence[Scenario]) -> Floats:
    """Share of the layers by which each two splits differ, 0 to 1, shape (scenarios, scenarios)."""
    counts = [prepare(one).job.placement.layer_counts for one in scenarios]
    devices = list(dict.fromkeys(name for one in counts for name in one))
    held = np.array([[one.get(name, 0) for name in devices] for one in counts], dtype=float)
    shares = held / held.sum(axis=1, keepdims=True)
    return np.asarray(np.abs(shares[:, None] - shares[None]).sum(axis=2) / 2)


def _information(candidates: Sequence[Scenario], names: Sequence[str]) -> tuple[Floats, Floats]:
    """(a row for each candidate, the information before any) about parameters in units of their own size.

    Rows are relative derivatives: by how much of itself a gap changes when a
    parameter changes by its own size.
    """
    jobs = [
        job_of(candidate, candidate.workload.prompt_tokens + candidate.workload.output_tokens / 2)
        for candidate in candidates
    ]
    speeds = {
        device.name: job.model.average(1).bytes_read() / device.speed.decode_bandwidth
        for job in jobs
        for device in job.cluster.devices
    }
    # with the catalogue's speeds: nothing is fitted yet
    usual_s = OVERHEAD_SHARE * float(np.median([gap_s(job, {}) for job in jobs]))
    known = prior(names, candidates)
    values = {name: _usual(name, speeds, usual_s, known.beliefs) for name in names}
    model = design(jobs, names, values)
    size = np.array([values[name] for name in names])
    # in units of each parameter's size, as the rows are
    beliefs = known.rows(size, float(np.median(model.base)))[0] * size
    unknown = np.eye(len(names)) * (USUAL_ERROR / UNKNOWN) ** 2
    return np.asarray(model.matrix * size / model.base[:, None]), beliefs.T @ beliefs + unknown


def _usual(
    name: str, layer_s: Mapping[str, float], overhead_s: float, beliefs: Mapping[str, tuple[float, float]]
) -> float:
    """What a parameter may be before it is measured, by the catalogue's seconds per layer of each device."""
    device, kind = device_of(name), kind_of_parameter(name)
    if device is not None:
        return layer_s[device]
    # where the scenario says that a context costs more than usual, it tells that much more of a token
    return overhead_s if kind.unit == "s" else max(kind.size, beliefs[name][0])


def _candidates(scenario: Scenario, seed: int, longest: int) -> Iterator[Scenario]:
    """Distinct placements that fit, each with the scenario's prompt and one of the longest context asked for.

    What a context costs shows in a long one; one that is longer than any that is asked answers no question.
    """
    work = scenario.workload
    for layers in _splits(scenario, seed):
        placed = scenario.model_copy(
            update={"placement": PlacementSpec(layers=layers, roles=scenario.placement.roles)}
        )
        yield placed
        # a prompt that is long already would be measured twice for nothing
        if longest > 2 * work.prompt_tokens:
            longer = work.model_copy(update={"prompt_tokens": longest})
            yield from _fitting(placed.model_copy(update={"workload": longer}))


def _fitting(scenario: Scenario) -> Iterator[Scenario]:
    try:
        prepare(scenario)
    except PlacementError:
        return
    yield scenario


def _splits(scenario: Scenario, seed: int) -> Iterator[dict[str, int]]:
    """Layers of each device: each subset of devices, in some orders, with even and with uneven splits."""
    total, most = _room(scenario)
    client = next(iter(most), "") if engine(scenario.engine.name).client_is_first else None
    generator = np.random.default_rng(np.random.SeedSequence((seed, 0xDE51)))
    # the scenario's own first: it is what the user asks about
    own = {name: count for name, count in prepare(scenario).job.placement.layer_counts.items() if count}
    yield own
    seen = {tuple(own.items())}
    subsets = [
        subset
        for size in range(1, len(most) + 1)
        for subset in combinations(most, size)
        if sum(most[name] for name in subset) >= total >= size and (client is None or client in subset)
    ]
    for attempt in range(8 * CANDIDATES if subsets else 0):
        subset = subsets[attempt % len(subsets)]
        # each subset once with even shares; then random ones, which tell devices apart
        first = attempt < len(subsets)
        order = list(subset) if first else generator.permutation(subset).tolist()
        # the sort is stable: the client goes first, the others keep their order
        order.sort(key=lambda name: name != client)
        # 1.5: uneven splits are frequent, those with next to nothing on a device are not
        shares = np.ones(len(order)) if first else generator.dirichlet(np.full(len(order), 1.5))
        layers = apportion(total, shares.tolist(), [most[name] for name in order])
        key = tuple(zip(order, layers, strict=True))
        if key in seen or min(layers) == 0:
            continue
        seen.add(key)
        yield dict(key)
        if len(seen) >= CANDIDATES:
            return


def _room(scenario: Scenario) -> tuple[int, dict[str, int]]:
    """Layers of the model, and the most layers that each device can hold."""
    prepared = prepare(scenario)
    model, workload = prepared.job.model, prepared.job.workload
    chats = prepared.engine.memory_chats(workload.concurrency)
    per_layer = model.layer_bytes + float(
        model.average(1).kv_bytes(workload.prompt_tokens + workload.output_tokens, chats)
    )
    return model.layers, {
        row.device: min(model.layers, row.layers + int((row.cap_bytes - row.total_bytes) // per_layer))
        for row in prepared.memory
        if row.layers
    }
