"""Theory first: what was drawn from a law is found again, by scipy.stats as well, with honest standard errors."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from calibrate.delays import CANDIDATES, choose, fit_laws
from calibrate.delays.density import anderson_darling, cumulative, ks, log_density, quantile_s
from calibrate.delays.stderr import parameters_of
from tests.calibrate.delay_truths import TRUTHS, draws

Z90 = 1.6449


@pytest.mark.parametrize("name", TRUTHS)
def test_density_is_the_slope_of_the_distribution_function_and_matches_the_laws_quantiles(name):
    law = TRUTHS[name]
    u = np.linspace(0.02, 0.98, 25)
    x = np.array([quantile_s(law, each) for each in u])
    assert cumulative(law, x) == pytest.approx(u, abs=1e-9)
    if name != "lognormal mixture":  # whose own quantiles interpolate between 131,072 points
        assert x == pytest.approx(law.quantile(u), rel=1e-12)
    step = 1e-6 * x
    slope = (cumulative(law, x + step) - cumulative(law, x - step)) / (2 * step)
    assert np.exp(log_density(law, x)) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "family"), [("lognormal", stats.lognorm), ("gamma", stats.gamma), ("weibull", stats.weibull_min)]
)
def test_likelihood_and_distances_are_those_of_scipy(name, family):
    x = draws(TRUTHS[name], 1_000, 5)
    arguments = family.fit(x, floc=0)
    fit = fit_laws(x, candidates=[name])[0]
    assert fit.log_likelihood == pytest.approx(family.logpdf(x, *arguments).sum(), abs=0.01)
    assert fit.ks == pytest.approx(stats.kstest(x, family.cdf, arguments).statistic, abs=1e-4)
    assert fit.bic - fit.aic == pytest.approx(2 * (np.log(1_000) - 2))


def test_anderson_darling_of_a_normal_sample_is_scipys():
    x = np.sort(np.random.default_rng(1).normal(size=200))
    expected = stats.goodness_of_fit(
        stats.norm, x, known_params={"loc": 0, "scale": 1}, statistic="ad", n_mc_samples=1
    ).statistic
    assert anderson_darling(stats.norm.cdf(x)) == pytest.approx(expected)
    assert ks(stats.norm.cdf(x)) == pytest.approx(stats.kstest(x, "norm").statistic)


@pytest.mark.parametrize("name", TRUTHS)
def test_every_parameter_comes_back(name):
    """Mean over 20 sets of 2,000: within 4 standard errors, and those under 2 %."""
    truth = parameters_of(TRUTHS[name])
    fits = [fit_laws(draws(TRUTHS[name], 2_000, seed), candidates=[name])[0] for seed in range(20)]
    for each in fits[0].parameters:
        values = np.array([fit.parameter(each.name).value for fit in fits])
        error = values.std(ddof=1) / 20**0.5
        tolerance = max(4 * error, 0.005 * truth[each.name])  # the exponential's shift is known to 0.1 %
        assert abs(values.mean() - truth[each.name]) < tolerance, each.name
        assert error < 0.02 * truth[each.name], each.name


@pytest.mark.parametrize("name", ["lognormal", "gamma", "weibull", "shifted gamma"])
def test_ninety_percent_intervals_cover_ninety_percent(name):
    """200 sets of 500 draws: value +/- 1.645 standard errors holds the truth in 80 to 97 % of them."""
    truth = parameters_of(TRUTHS[name])
    inside = Counter()
    for seed in range(200):
        fit = fit_laws(draws(TRUTHS[name], 500, 1_000 + seed), candidates=[name])[0]
        for each in fit.parameters:
            inside[each.name] += (
                each.stderr is not None and abs(each.value - truth[each.name]) < Z90 * each.stderr
            )
    for each, hits in inside.items():
        assert 0.80 <= hits / 200 <= 0.97, (each, hits)


@pytest.mark.parametrize("name", TRUTHS)
def test_the_true_family_is_chosen(name):
    """20 sets of 2,000 each: at least 18 right for every family."""
    chosen = Counter(choose(fit_laws(draws(TRUTHS[name], 2_000, 50 + seed))).name for seed in range(20))
    assert chosen[name] >= 18, chosen


def test_autocorrelated_samples_widen_the_standard_errors():
    """AR(1) logarithms with rho = 0.8: n effective is n (1 - rho) / (1 + rho) = n / 9; naive errors would not cover."""
    inside, shares, naive = 0, [], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z, steps = np.empty(2_000), rng.normal(size=2_000)
        z[0] = steps[0]
        for i in range(1, z.size):
            z[i] = 0.8 * z[i - 1] + 0.6 * steps[i]
        fit = fit_laws(0.008 * np.exp(0.6 * z), candidates=["lognormal"])[0]
        error = abs(fit.parameter("median").value - 0.008)
        inside += error < Z90 * fit.parameter("median").stderr
        naive += error < Z90 * fit.parameter("median").stderr * (fit.n_effective / fit.n) ** 0.5
        shares.append(fit.n_effective / fit.n)
        assert any(doubt.startswith("autocorrelated: effective n") for doubt in fit.warnings)
    assert np.mean(shares) == pytest.approx(1 / 9, rel=0.3)
    assert inside >= 47  # 78 %
    assert naive <= 36  # 60 %


def test_candidates_are_all_there():
    assert len(CANDIDATES) == 10
    assert {fit.name for fit in fit_laws(draws(TRUTHS["gamma"], 100, 0))} == set(CANDIDATES)
