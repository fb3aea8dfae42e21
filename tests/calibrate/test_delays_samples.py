"""What is no delay is refused with value, rule and way out; whatever else comes gives a usable law or that refusal."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.delays import CANDIDATES, choose, fit_laws, fit_round_trips, table
from calibrate.delays.sample import FITTED_AT_MOST
from simulator.errors import CalibrationError
from tests.calibrate.delay_truths import TRUTHS, draws


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "no delays at all"),
        ([0.01, 0.0, 0.02], r"sample 2 of 3 is 0 s; .*between 1 ns and 1e6 s; .*half of its step"),
        (
            [0.01, -0.002, -1],
            r"sample 2 of 3 is -0\.002 s \(2 such samples\); .*round trips on one monotonic clock",
        ),
        ([0.01, float("nan")], "sample 2 of 2 is nan s; .*count them as losses"),
        ([float("inf")], "sample 1 of 1 is inf s"),
        ([12e6], "sample 1 of 1 is 1.2e.07 s; .*samples are seconds"),
        ([1e-12], "sample 1 of 1 is 1e-12 s"),
        (["fast"], "must be numbers of seconds"),
        ([None], "nan s|must be numbers"),
        ([[0.01, 0.02]], "2 dimensions"),
        (None, "must be numbers"),
        (0.01, "must be numbers"),
    ],
)
def test_what_is_no_delay_is_refused(samples, said):
    for fit in (fit_laws, fit_round_trips):
        with pytest.raises(CalibrationError, match=said):
            fit(samples)


def test_an_unknown_candidate_is_refused_with_the_nearest_name():
    with pytest.raises(
        CalibrationError, match=r"'wiebull' is no candidate law, did you mean 'weibull'\?; choose from"
    ):
        fit_laws([0.01], candidates=["wiebull"])
    with pytest.raises(CalibrationError, match="'empirical' is no candidate for round trips"):
        fit_round_trips([0.01], candidates=["empirical"])


def test_too_few_samples_for_what_was_asked():
    with pytest.raises(CalibrationError, match="4 samples with 4 different values cannot carry gamma"):
        fit_laws([0.01, 0.02, 0.03, 0.04], candidates="gamma")


@pytest.mark.parametrize("samples", [[0.01], [0.01] * 50])
def test_one_value_is_a_constant(samples):
    fits = fit_laws(samples)
    assert [fit.name for fit in fits] == ["constant"]
    assert fits[0].law.value == 0.01
    assert fits[0].delta_bic == 0
    assert fits[0].ks == fits[0].tail_error_p99 == 0
    assert fits[0].warnings[-1].startswith("left out for")


def doubts(samples):
    return " | ".join(choose(fit_laws(samples)).warnings)


def test_nothing_is_doubted_in_five_thousand_good_samples():
    assert [doubts(draws(TRUTHS["lognormal"], 5_000, seed)) for seed in range(3)] == [""] * 3


def test_ticks_of_a_millisecond_are_said_and_carry_no_spike():
    x = np.ceil(draws(TRUTHS["lognormal"], 3_000, 0) * 1e3) / 1e3
    fits = fit_laws(x)
    assert "duplicates: clock resolution 1 ms" in doubts(x)
    mixture = next(fit for fit in fits if fit.name == "lognormal mixture")
    # rounding spreads a value over a tick: no component may be narrower than tick / sqrt(12)
    for part in mixture.law.parts:
        assert part.of.sigma * part.of.median >= 0.99e-3 / 12**0.5
    assert choose(fits).law.mean_s == pytest.approx(x.mean(), rel=0.05)


def test_a_component_is_no_narrower_than_the_rounding_of_the_clock():
    """Half of the samples read exactly 3 ms: without the floor a component would close in on them."""
    x = np.ceil(draws(TRUTHS["lognormal"], 3_000, 0) * 1e3) / 1e3
    x[::2] = 3e-3
    mixture = fit_laws(x, candidates=["lognormal mixture"])[0].law
    narrowest = min(part.of.sigma * part.of.median for part in mixture.parts)
    assert narrowest == pytest.approx(1e-3 / 12**0.5, rel=0.1)


def test_microseconds_do_not_count_as_ticks():
    assert "duplicates" not in doubts(np.round(draws(TRUTHS["lognormal"], 5_000, 0), 6))


def test_drift_is_said():
    x = draws(TRUTHS["lognormal"], 3_000, 0)
    assert "drift: first and last third differ, median" in doubts(x * np.linspace(1, 1.5, 3_000))
    assert "drift" not in doubts(x)


def test_a_light_tail_is_said_and_not_chosen():
    x = draws(TRUTHS["lognormal mixture"], 2_000, 3)
    fits = fit_laws(x, candidates=["gamma", "lognormal", "empirical"])
    assert all(fit.tail == "too light" for fit in fits if fit.name != "empirical")
    assert "tail too light: " in " ".join(fits[0].warnings)
    assert choose(fits).name == "empirical"
    assert choose(fit_laws(x)).name == "lognormal mixture"


def test_too_few_for_p99_is_said():
    assert "too few samples for p99: 300 of 500" in doubts(draws(TRUTHS["gamma"], 300, 1))


def test_the_bounds_of_a_shift_are_said():
    x = draws(TRUTHS["shifted weibull"], 2_000, 0)
    fit = next(fit for fit in fit_laws(x) if fit.name == "shifted weibull")
    gap = (np.median(x) - x.min()) / 2_000
    assert fit.parameter("shift").value == pytest.approx(x.min() - gap, rel=1e-9)
    assert fit.parameter("shift").stderr == pytest.approx(gap)
    assert any(doubt.startswith("shift at the bound: ") for doubt in fit.warnings)
    u = 0.02 * np.random.default_rng(0).beta(5, 1, 2_000)  # skewed to the left: a shift only hurts
    fit = next(fit for fit in fit_laws(u) if fit.name == "shifted weibull")
    assert fit.parameter("shift").value == 0
    assert "shift at the bound 0: the family without a shift says the same" in fit.warnings


def test_bimodal_samples_get_two_parts():
    rng = np.random.default_rng(0)
    x = np.where(rng.random(2_000) < 0.5, rng.normal(5e-3, 2e-4, 2_000), rng.normal(20e-3, 1e-3, 2_000))
    fit = choose(fit_laws(x))
    assert fit.name == "lognormal mixture"
    assert [part.of.median for part in fit.law.parts] == pytest.approx([5e-3, 20e-3], rel=0.02)


def test_a_million_samples_are_thinned_the_same_way_each_time():
    x = draws(TRUTHS["gamma"], 1_000_000, 0)
    started = time.perf_counter()
    first = fit_laws(x, candidates=["gamma", "lognormal"])
    assert time.perf_counter() - started < 10
    assert first[0].n == FITTED_AT_MOST
    assert "fitted to 20000 of 1000000 samples, drawn evenly with a fixed seed" in first[0].warnings
    assert choose(first).name == "gamma"
    assert fit_laws(x, candidates=["gamma"])[0].law == next(fit for fit in first if fit.name == "gamma").law


def test_five_thousand_samples_take_under_a_second():
    """Best of three, so that a busy machine does not decide."""
    x = draws(TRUTHS["lognormal mixture"], 5_000, 0)
    fit_laws(x[:100])  # imports scipy.stats

    def spent():
        started = time.perf_counter()
        fit_laws(x)
        return time.perf_counter() - started

    assert min(spent() for _ in range(3)) < 1


def test_the_table_ranks_and_says_common_doubts_once():
    x = draws(TRUTHS["lognormal"], 300, 0)
    fits = fit_laws(x)
    lines = table(fits).splitlines()
    assert lines[0].split()[:4] == ["rank", "law", "p", "dBIC"]
    assert [line.split()[0] for line in lines[1 : len(fits) + 1]] == [str(i) for i in range(1, 11)]
    assert lines[1].split()[1:4] == ["lognormal", "2", "0.0"]
    assert "median 8" in lines[1]
    assert "+/-" in lines[1]
    assert sum("too few samples for p99" in line for line in lines) == 1
    assert [fit.bic is None for fit in fits] == [False] * 8 + [True] * 2
    assert all(fits[i].bic <= fits[i + 1].bic for i in range(7))
    assert table(()) == "no laws fitted"
    with pytest.raises(ValueError, match="no fits"):
        choose(())


times = st.one_of(
    st.floats(1e-9, 1e6),
    st.floats(1e-3, 0.1),
    st.sampled_from([1e-9, 1e-3, 2e-3, 1e6]),
    st.integers(1, 50).map(lambda k: k * 1e-3),
)
anything = st.one_of(times, st.floats(), st.just(0.0), st.just(-1.0))
repeated = st.lists(times, min_size=1, max_size=6).flatmap(
    lambda few: st.lists(st.sampled_from(few), max_size=60)
)


def usable(fit):
    """A law with finite moments, that survives a file."""
    assert np.isfinite([fit.law.mean_s, fit.law.variance_s2, fit.ks, fit.tail_error_p99]).all()
    assert fit.law.mean_s > 0
    reread = type(fit.law).model_validate(fit.law.model_dump(mode="json"))
    assert reread.mean_s == pytest.approx(fit.law.mean_s, rel=1e-6)
    assert 0 <= fit.ks <= 1
    for each in fit.parameters:
        assert each.stderr is None or (np.isfinite(each.stderr) and each.stderr >= 0), each


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(
        st.lists(times, max_size=60),
        st.lists(times, min_size=12, max_size=60),
        repeated,
        st.lists(anything, max_size=20),
    )
)
def test_weird_samples_give_usable_laws_or_a_refusal(samples):
    try:
        fits = fit_laws(samples)
    except CalibrationError:
        assert not samples or not all(1e-9 <= each <= 1e6 for each in samples)
        return
    assert {fit.name for fit in fits} <= set(CANDIDATES)
    for fit in fits:
        usable(fit)
    usable(choose(fits))
    assert table(fits)


@settings(max_examples=5, deadline=None)
@given(st.one_of(st.lists(times, min_size=12, max_size=25), repeated.filter(bool)))
def test_weird_round_trips_give_usable_laws(samples):
    for fit in fit_round_trips(samples):
        usable(fit)
