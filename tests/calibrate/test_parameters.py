"""The table of parameters: its names are read back, and it is right about what each parameter touches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from calibrate.applied import apply
from calibrate.calibration import Calibration, calibrate_samples
from calibrate.forward import gap_s, job_of, parameter_names
from calibrate.parameters import (
    CONTENTIONS,
    PARAMETERS,
    ParameterKind,
    contention_of,
    device_of,
    kind_of_parameter,
    layer_time,
)
from calibrate.samples import Sample
from calibrate.truth import TRUTH, synthetic
from simulator.scenario import Scenario, SharedHostSpec

KINDS = list(PARAMETERS.values())


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Three placements on one machine, the last one with several chats."""
    every = synthetic(1)
    return [
        Sample(
            one.name,
            one.sha256,
            one.scenario.model_copy(update={"shared_host": SharedHostSpec()}),
            one.runs,
            (),
        )
        for one in (every[0], every[3], every[10])
    ]


@pytest.fixture(scope="module")
def calibration(samples: list[Sample]) -> Calibration:
    return calibrate_samples(samples, draws=20)


@pytest.mark.parametrize("device", ["phone", "a/b", "layer_s", ""])
def test_a_device_is_read_back_whatever_it_is_called(device: str) -> None:
    assert device_of(layer_time(device)) == device
    assert kind_of_parameter(layer_time(device)).name == "layer_s"


def test_what_all_share_is_no_device(samples: list[Sample]) -> None:
    shared = [name for name in parameter_names([one.scenario for one in samples]) if device_of(name) is None]
    assert shared == ["step_overhead_s", "hop_overhead_s", "context_cost", "batch_cost", "contention/polling"]
    assert [contention_of(engine) for engine in ("llama-rpc", "exo")] == list(CONTENTIONS)
    with pytest.raises(KeyError):
        kind_of_parameter("context_costs")


def with_one_moved(calibration: Calibration, kind: ParameterKind) -> Calibration:
    """One parameter's value doubled, of device a where each has its own, its draws left as they are."""
    name = layer_time("a") if kind.name == "layer_s" else kind.name
    moved = [
        one.model_copy(update={"value": 2 * one.value + kind.size}) if one.name == name else one
        for one in calibration.parameters
    ]
    return calibration.model_copy(update={"parameters": tuple(moved)})


def differing(one: Any, other: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths at which two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differing(one.get(key), other.get(key), (*path, key))
    elif one != other:
        yield ".".join(path)


def applied(calibration: Calibration, scenario: Scenario) -> dict[str, Any]:
    return apply(calibration, scenario).scenario.model_dump(exclude={"posterior"})


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name != CONTENTIONS[0]], ids=lambda k: k.name
)
def test_a_parameter_sets_what_the_table_says_and_nothing_else(
    kind: ParameterKind, calibration: Calibration, samples: list[Sample]
) -> None:
    scenario = samples[1].scenario
    changed = set(
        differing(applied(calibration, scenario), applied(with_one_moved(calibration, kind), scenario))
    )
    devices = ["a"] if kind.name == "layer_s" else list(scenario.devices)
    assert changed == {kind.path.format(device) for device in devices}


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name != CONTENTIONS[0]], ids=lambda k: k.name
)
def test_its_draws_are_a_factor_of_that_name(
    kind: ParameterKind, calibration: Calibration, samples: list[Sample]
) -> None:
    # moved, because a cost that was fitted to be zero has no factor
    posterior = apply(with_one_moved(calibration, kind), samples[2].scenario).scenario.posterior
    assert posterior is not None
    assert kind.factor("a") in posterior.names


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_what_cannot_matter_to_a_job_does_not(kind: ParameterKind, samples: list[Sample]) -> None:
    for one in samples:
        job = job_of(one.scenario, 100)
        name, device = (layer_time("b"), "b") if kind.name == "layer_s" else (kind.name, "")
        at = {**TRUTH, **({name: 0.1} if name not in TRUTH else {})}
        moves = gap_s(job, {**at, name: 3 * at[name]}) != gap_s(job, at)
        assert moves == kind.matters(job, device)
