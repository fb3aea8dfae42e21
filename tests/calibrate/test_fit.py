"""The fit: it finds what was put in, says what it cannot tell apart, and never takes a negative time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.calibration import calibrate_samples
from calibrate.fit import fit, usual_session_sigma
from calibrate.forward import gap_s, job_of
from calibrate.noise import fit_noise
from calibrate.prior import prior
from calibrate.samples import RunSample, Sample
from calibrate.truth import NOISE, TRUTH, synthetic, trials
from simulator.errors import CalibrationError


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return synthetic(7)


def exact(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The same placements with gaps that are exactly what the truth gives."""
    out = []
    for sample in samples:
        context = sample.runs[0].context
        gap = gap_s(job_of(sample.scenario, context), TRUTH)
        runs = tuple(
            RunSample(np.full(50, gap), run.first_token_s, run.prompt_tokens, context) for run in sample.runs
        )
        out.append(replace(sample, runs=runs))
    return tuple(out)


def test_without_noise_every_parameter_is_found(samples: tuple[Sample, ...]) -> None:
    found = fit(exact(samples), draws=20)
    for name, truth in TRUTH.items():
        assert found.values[name] == pytest.approx(truth, rel=0.06), name  # the priors pull a little
    np.testing.assert_allclose(found.predicted_s, found.measured_s, rtol=0.01)


def test_with_noise_intervals_hold_the_truth_and_the_mean_is_near() -> None:
    found = trials(12, draws=80)
    held = [trial.covered[name] for trial in found for name in TRUTH]
    assert np.mean(held) > 0.8
    for name in ("layer_s/a", "layer_s/b", "layer_s/c"):
        assert np.mean([trial.ratio[name] for trial in found]) == pytest.approx(1, abs=0.08), name


def test_noise_is_found_again(samples: tuple[Sample, ...]) -> None:
    noise = fit_noise(samples, fit(samples, draws=20))
    assert np.hypot(noise.common_sigma, noise.own_sigma) == pytest.approx(NOISE["sigma"], rel=0.2)
    assert noise.correlation == pytest.approx(NOISE["correlation"], abs=0.07)
    assert 0.02 < noise.run_sigma < 0.1


def test_placements_that_cannot_separate_are_named(samples: tuple[Sample, ...]) -> None:
    found = fit(samples[:1], draws=20)
    assert any("layer_s/a" in group and "step_overhead_s" in group for group in found.unseparated)
    assert any("live design" in text for text in calibrate_samples(samples[:1], draws=20).warnings)


def test_one_outlier_moves_little(samples: tuple[Sample, ...]) -> None:
    clean, spoilt = exact(samples), list(exact(samples))
    worst = spoilt[6]
    spoilt[6] = replace(worst, runs=tuple(replace(run, gaps_s=run.gaps_s * 3) for run in worst.runs))
    before, after = fit(clean, draws=5), fit(spoilt, draws=5)
    assert after.values["layer_s/a"] == pytest.approx(before.values["layer_s/a"], rel=0.15)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(1e-4, 10.0), min_size=11, max_size=11))
def test_any_gaps_give_times_that_are_not_negative(gaps: list[float]) -> None:
    spoilt = [
        replace(sample, runs=tuple(replace(run, gaps_s=np.full(20, gap)) for run in sample.runs))
        for sample, gap in zip(synthetic(3), gaps, strict=True)
    ]
    found = fit(spoilt, draws=3)
    assert all(np.isfinite(value) and value >= 0 for value in found.values.values())


def test_nothing_to_fit_and_mixed_engines_are_refused(samples: tuple[Sample, ...]) -> None:
    with pytest.raises(CalibrationError, match="no measurement"):
        fit([])
    other = samples[1].scenario.model_copy(
        update={"engine": samples[1].scenario.engine.model_copy(update={"name": "exo-legacy"})}
    )
    with pytest.raises(CalibrationError, match="engines exo, exo-legacy"):
        fit([samples[0], replace(samples[1], scenario=other)])


def test_repeated_visits_say_how_far_sessions_differ(samples: tuple[Sample, ...]) -> None:
    """Without any the usual spread; each further visit is one degree of freedom beside the belief's one."""
    assert usual_session_sigma(samples) == pytest.approx(0.1)
    steady = [replace(one, visits_s=(0.1, 0.1 * np.exp(0.02))) for one in samples]
    expected = np.sqrt((0.1**2 + len(steady) * 0.02**2 / 2) / (1 + len(steady)))
    assert usual_session_sigma(steady) == pytest.approx(expected)
    few = steady[:2]  # too few to see what the model misses
    assert fit_noise(few, fit(few, draws=20)).session_sigma == pytest.approx(usual_session_sigma(few))


def test_a_scenario_that_says_what_a_context_costs_is_believed(samples: tuple[Sample, ...]) -> None:
    names = ("layer_s/a", "context_cost")
    plain = prior(names, [one.scenario for one in samples])
    assert plain.beliefs["context_cost"] == (1.5, 3.0)
    device = samples[0].scenario.devices["a"]
    assert device.speed is not None
    dear = device.model_copy(update={"speed": device.speed.model_copy(update={"context_cost": 9.0})})
    told = prior(names, [samples[0].scenario.model_copy(update={"devices": {"a": dear}})])
    assert told.beliefs["context_cost"] == (9.0, 9.0)
