"""The fit: it finds what was put in, says what it cannot tell apart, and never takes a negative time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from calibrate.applied import apply
from calibrate.calibration import calibrate_samples
from calibrate.fit import SESSIONS_OVER_RUNS, fit
from calibrate.forward import Design, design, gap_s, job_of, parameter_names
from calibrate.noise import fit_noise
from calibrate.prior import prior
from calibrate.samples import RunSample, Sample
from calibrate.truth import NOISE, TRUTH, synthetic
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


def test_without_noise_every_parameter_is_found(noiseless: tuple[Sample, ...]) -> None:
    found = fit(noiseless, draws=20)
    for name, truth in TRUTH.items():
        assert found.values[name] == pytest.approx(truth, rel=0.06), name  # the priors pull a little
    np.testing.assert_allclose(found.predicted_s, found.measured_s, rtol=0.01)


def scattered(
    samples: tuple[Sample, ...], generator: np.random.Generator, session: float, run: float
) -> tuple[Sample, ...]:
    """The samples with an error of each session and of each run (log sd)."""
    out = []
    for sample in samples:
        moved = np.exp(generator.normal(0, session) + generator.normal(0, run, len(sample.runs)))
        runs = (replace(each, gaps_s=each.gaps_s * by) for each, by in zip(sample.runs, moved, strict=True))
        out.append(replace(sample, runs=tuple(runs)))
    return tuple(out)


@pytest.fixture(scope="module")
def noiseless(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    return exact(samples)


@pytest.fixture(scope="module")
def at_truth(samples: tuple[Sample, ...]) -> Design:
    names = parameter_names([sample.scenario for sample in samples])
    return design([job_of(sample.scenario, sample.runs[0].context) for sample in samples], names, TRUTH)


@pytest.fixture
def linear(at_truth: Design, monkeypatch: pytest.MonkeyPatch) -> None:
    """Designs as the tangent at the truth: a twentieth of the time, for what is about the solution alone."""

    def tangent(jobs: object, names: tuple[str, ...], at: dict[str, float]) -> Design:
        assert names == at_truth.names
        here = np.array([at[name] for name in names])
        return replace(at_truth, at=here, base=at_truth.base + at_truth.matrix @ (here - at_truth.at))

    monkeypatch.setattr("calibrate.fit.design", tangent)


@pytest.mark.usefixtures("linear")
def test_with_noise_intervals_hold_the_truth_and_values_lie_on_both_sides(
    noiseless: tuple[Sample, ...],
) -> None:
    """Fixed seeds, and bounds so far from what they give that another platform's last digits cannot matter."""
    trials = 20
    found = [
        fit(scattered(noiseless, np.random.default_rng(seed), 0.05, 0.05), draws=40) for seed in range(trials)
    ]
    for name, truth in TRUTH.items():
        column = found[0].names.index(name)
        low, high = np.array([np.quantile(one.draws[:, column], [0.05, 0.95]) for one in found]).T
        held = int(np.sum((low <= truth) & (truth <= high)))
        # of an interval that holds 85 % no more than one set of trials in a million holds so few
        assert held >= binom.ppf(1e-6, trials, 0.85), f"{name}: {held} of {trials}"
        above = int(np.sum([one.values[name] > truth for one in found]))
        # an estimate without bias is above the truth as often as below
        assert binom.ppf(1e-6, trials, 0.5) <= above <= binom.ppf(1 - 1e-6, trials, 0.5), f"{name}: {above}"


def grown(samples: tuple[Sample, ...], cost: float) -> tuple[Sample, ...]:
    """Packed weights, one short prompt for all, and gaps that grow as a context of that cost makes them."""
    out = []
    for sample in samples:
        model = sample.scenario.model.model_copy(
            update={"layer_flops": 0.5 * (sample.scenario.model.layer_flops or 0.0)}
        )
        scenario = sample.scenario.model_copy(update={"model": model})
        shorter, longer = (gap_s(job_of(scenario, at), TRUTH | {"context_cost": cost}) for at in (40, 100))
        gaps_s = np.linspace(shorter, longer, 60)
        runs = tuple(RunSample(gaps_s, run.first_token_s, 40, 70) for run in sample.runs)
        out.append(replace(sample, scenario=scenario, runs=runs))
    return tuple(out)


@pytest.mark.parametrize("cost", [0.5, 9.0])
def test_what_a_context_costs_shows_in_how_a_reply_slows_down(
    samples: tuple[Sample, ...], cost: float
) -> None:
    """Prompts of one length leave it to belief, 1.5 +- 3; the reply's own growth tells it."""
    alone = [one for one in samples if one.scenario.workload.concurrency == 1]
    taught = grown(tuple(alone[:5]), cost)
    found = fit(taught, draws=20)
    far = job_of(taught[0].scenario, 400)
    true_s, low_s = (gap_s(far, TRUTH | {"context_cost": one}) for one in (cost, 0.0))
    assert gap_s(far, found.values) - low_s == pytest.approx(true_s - low_s, rel=0.05)
    column = found.names.index("context_cost")
    assert np.std(found.draws[:, column]) < 1.0


def test_noise_is_found_again(samples: tuple[Sample, ...]) -> None:
    noise = fit_noise(samples, fit(samples, draws=20))
    assert np.hypot(noise.common_sigma, noise.own_sigma) == pytest.approx(NOISE["sigma"], rel=0.2)
    assert noise.correlation == pytest.approx(NOISE["correlation"], abs=0.07)
    assert 0.02 < noise.run_sigma < 0.1


def test_placements_that_cannot_separate_are_named(samples: tuple[Sample, ...]) -> None:
    found = fit(samples[:1], draws=20)
    assert any("layer_s/a" in group and "step_overhead_s" in group for group in found.unseparated)
    assert any("live design" in text for text in calibrate_samples(samples[:1], draws=20).warnings)


@pytest.mark.usefixtures("linear")
def test_one_outlier_moves_little(noiseless: tuple[Sample, ...]) -> None:
    clean, spoilt = noiseless, list(noiseless)
    worst = spoilt[6]
    spoilt[6] = replace(worst, runs=tuple(replace(run, gaps_s=run.gaps_s * 3) for run in worst.runs))
    before, after = fit(clean, draws=5), fit(spoilt, draws=5)
    assert after.values["layer_s/a"] == pytest.approx(before.values["layer_s/a"], rel=0.15)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps=st.lists(st.floats(1e-4, 10.0), min_size=11, max_size=11))
@pytest.mark.usefixtures("linear")
def test_any_gaps_give_times_that_are_not_negative(samples: tuple[Sample, ...], gaps: list[float]) -> None:
    spoilt = [
        replace(sample, runs=tuple(replace(run, gaps_s=np.full(20, gap)) for run in sample.runs))
        for sample, gap in zip(samples, gaps, strict=True)
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
    """Each further visit is one degree of freedom beside the belief's three, which is what runs let believe."""
    few = samples[:2]  # too few to see what the model misses
    runs = [np.log([run.median_s for run in one.runs]) for one in few]
    believed = SESSIONS_OVER_RUNS * np.sqrt(np.mean([np.var(each, ddof=1) for each in runs]))
    assert fit(few, draws=1).lack.repeats_sd == pytest.approx(believed)
    assert fit([replace(one, runs=one.runs[:1]) for one in few], draws=1).lack.repeats_sd == pytest.approx(
        0.1
    )
    steady = [replace(one, visits_s=(0.1, 0.1 * np.exp(0.02))) for one in few]
    found = fit(steady, draws=1).lack
    assert found.repeats_sd == pytest.approx(np.sqrt((3 * believed**2 + 2 * 0.02**2 / 2) / 5))
    assert found.freedom == (0.0, 5)


def test_what_sessions_scatter_by_is_wider_where_few_know_it(samples: tuple[Sample, ...]) -> None:
    """As wide as Student's law has it; with nothing left to see, the belief is told."""
    few, many = fit(samples[:2], draws=1), fit(samples, draws=1)
    ratios = [
        fit_noise(one, each).session_sigma / each.session_sd
        for one, each in ((samples[:2], few), (samples, many))
    ]
    assert ratios[0] == pytest.approx(2.353 / 1.645, rel=0.001)
    assert 1 < ratios[1] < ratios[0]
    assert any("too few measurements" in doubt for doubt in fit_noise(samples[:2], few).warnings)


@pytest.mark.usefixtures("linear")
def test_what_runs_scatter_by_is_not_counted_as_sessions_too(noiseless: tuple[Sample, ...]) -> None:
    """Three runs whose sd is 0.1 move their session's mean by 0.1 / sqrt(3), and are drawn apart."""
    found = [fit(scattered(noiseless, np.random.default_rng(seed), 0.1, 0.1), draws=1) for seed in range(4)]
    taken_off = [one.lack.both_sd**2 - one.session_sd**2 for one in found]
    assert np.mean(taken_off) == pytest.approx(0.1**2 / 3, rel=0.2)


def test_where_weights_are_as_wide_as_hidden_states_a_byte_of_the_cache_costs_as_much_as_one_of_them(
    samples: tuple[Sample, ...],
) -> None:
    def believed(activation_bytes: float) -> tuple[float, float]:
        one = samples[0].scenario.model_copy(update={"devices": {}})
        model = one.model.model_copy(update={"activation_bytes": activation_bytes})
        return prior(("context_cost",), [one.model_copy(update={"model": model})]).beliefs["context_cost"]

    # of 1,024 values; there are 4 bytes for each weight
    assert believed(4 * 1024) == (1.0, 0.5)
    assert believed(2 * 1024) == (1.5, 3.0)


def test_a_scenario_that_says_what_a_context_costs_is_believed(samples: tuple[Sample, ...]) -> None:
    names = ("layer_s/a", "context_cost")
    plain = prior(names, [one.scenario for one in samples])
    assert plain.beliefs["context_cost"] == (1.5, 3.0)
    device = samples[0].scenario.devices["a"]
    assert device.speed is not None
    dear = device.model_copy(update={"speed": device.speed.model_copy(update={"context_cost": 9.0})})
    told = prior(names, [samples[0].scenario.model_copy(update={"devices": {"a": dear}})])
    assert told.beliefs["context_cost"] == (9.0, 9.0)


@pytest.mark.usefixtures("linear")
def test_runs_that_scatter_evenly_move_no_value(noiseless: tuple[Sample, ...]) -> None:
    """Relative to what was measured, runs of 0.74 and 1.35 times a gap made every value 12 % too low."""
    spread = [
        replace(
            one, runs=tuple(replace(one.runs[0], gaps_s=one.runs[0].gaps_s * f) for f in np.exp([-0.3, 0.3]))
        )
        for one in noiseless
    ]
    before, after = fit(noiseless, draws=3), fit(spread, draws=3)
    for name, value in before.values.items():
        assert after.values[name] == pytest.approx(value, rel=0.02), name


def test_first_tokens_scatter_with_the_host_for_all_devices(samples: tuple[Sample, ...]) -> None:
    posterior = apply(calibrate_samples(samples[3:4], draws=40), samples[3].scenario).scenario.posterior
    assert posterior is not None
    draws = dict(zip(posterior.names, np.log(posterior.draws).T, strict=True))
    np.testing.assert_allclose(draws["world/a/prefill"], draws["world/b/prefill"], atol=0.02)
    # a request's own work is unsure, and in other ways than reading
    assert min(np.std(draws["world/engine/request"]), np.std(draws["world/a/prefill"])) > 0.01
    assert abs(np.corrcoef(draws["world/engine/request"], draws["world/a/prefill"])[0, 1]) < 0.98
