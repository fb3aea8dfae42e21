"""Which placements to measure next: those that pin the parameters down best.

Greedy D-optimal design: of many splits, ring orders and prompt lengths that fit, take one after the other the
one that adds most to `log det(X^T X + P)`, X being the relative derivatives of inter-token time and P the
information of what the fit believes beforehand. Greedy choice of a submodular gain stays within 1 - 1/e of
the best (Nemhauser, Wolsey and Fisher 1978).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from calibrate.forward import design, gap_s, job_of, parameter_names
from calibrate.parameters import device_of, kind_of_parameter
from calibrate.prior import USUAL_ERROR, prior
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
LONG_PROMPT_TOKENS = 1500
"""Each placement is looked at with this prompt too, where its cache fits: what a context costs
shows only in a long one.
"""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One placement to measure, and how well each parameter would be known after it and all before it."""

    scenario: Scenario
    layers: dict[str, int]
    relative_sd: dict[str, float]


def propose(scenario: Scenario, runs: int, *, seed: int = 1) -> tuple[Proposal, ...]:
    """The `runs` placements to measure, the most telling first.

    Raises CalibrationError where the scenario leaves no choice, PlacementError where it does not fit at all.
    """
    candidates = list(_candidates(scenario, seed))
    if len(candidates) < 2:
        raise CalibrationError(
            "only one placement fits this scenario, so there is nothing to choose; give it more memory, "
            "a smaller model or more devices"
        )
    names = parameter_names(candidates)
    rows, information = _information(candidates, names)
    proposals: list[Proposal] = []
    free = set(range(len(candidates)))
    for _ in range(min(runs, len(candidates))):
        # of equals the first: `max` over a set has no order of its own
        best = max(free, key=lambda i: (np.linalg.slogdet(information + np.outer(rows[i], rows[i]))[1], -i))
        free.remove(best)
        information = information + np.outer(rows[best], rows[best])
        sd = USUAL_ERROR * np.sqrt(np.diag(np.linalg.inv(information)))
        chosen = candidates[best]
        proposals.append(
            Proposal(
                scenario=chosen.model_copy(update={"name": f"{scenario.name}_{len(proposals) + 1:02d}"}),
                layers=dict(chosen.placement.layers or {}),
                relative_sd={name: float(value) for name, value in zip(names, sd, strict=True)},
            )
        )
    return tuple(proposals)


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
    values = {name: _usual(name, speeds, usual_s) for name in names}
    model = design(jobs, names, values)
    size = np.array([values[name] for name in names])
    # in units of each parameter's size, as the rows are
    beliefs = prior(names, candidates).rows(size, float(np.median(model.base)))[0] * size
    unknown = np.eye(len(names)) * (USUAL_ERROR / UNKNOWN) ** 2
    return np.asarray(model.matrix * size / model.base[:, None]), beliefs.T @ beliefs + unknown


def _usual(name: str, layer_s: Mapping[str, float], overhead_s: float) -> float:
    """What a parameter may be before it is measured, by the catalogue's seconds per layer of each device."""
    device, kind = device_of(name), kind_of_parameter(name)
    if device is not None:
        return layer_s[device]
    return overhead_s if kind.unit == "s" else kind.size


def _candidates(scenario: Scenario, seed: int) -> Iterator[Scenario]:
    """Distinct placements that fit, each with the scenario's own prompt and with a long one."""
    for layers in _splits(scenario, seed):
        placed = scenario.model_copy(
            update={"placement": PlacementSpec(layers=layers, roles=scenario.placement.roles)}
        )
        yield placed
        longer = placed.workload.model_copy(update={"prompt_tokens": LONG_PROMPT_TOKENS})
        # a prompt that is long already would be measured twice for nothing
        if longer.prompt_tokens > 2 * placed.workload.prompt_tokens:
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
    seen: set[tuple[tuple[str, int], ...]] = set()
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
