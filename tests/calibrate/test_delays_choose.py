"""The rule of choice on rankings made by hand."""

import numpy as np

from calibrate.delays import choose, fit_laws
from calibrate.delays.mixture import _climb
from tests.calibrate.delay_truths import TRUTHS, draws

FITS = {fit.name: fit for fit in fit_laws(draws(TRUTHS["lognormal"], 2_000, 0))}


def ranked(**changes):
    """The named fits with a BIC and a verdict on their tail."""
    return [
        FITS[name.replace("_", " ")].model_copy(update={"bic": bic, "tail": tail})
        for name, (bic, tail) in changes.items()
    ]


def test_the_smallest_bic_is_chosen():
    assert choose(ranked(gamma=(20.0, "ok"), shifted_lognormal=(10.0, "ok"))).name == "shifted lognormal"


def test_within_a_bic_of_two_the_simpler_is_chosen():
    assert choose(ranked(gamma=(11.9, "ok"), shifted_lognormal=(10.0, "ok"))).name == "gamma"
    assert choose(ranked(gamma=(12.1, "ok"), shifted_lognormal=(10.0, "ok"))).name == "shifted lognormal"


def test_a_law_whose_tail_holds_goes_before_a_better_bic_whose_tail_does_not():
    for verdict in ("too light", "too heavy"):
        assert choose(ranked(gamma=(90.0, "ok"), lognormal=(10.0, verdict))).name == "gamma"
    assert choose(ranked(gamma=(90.0, "ok"), lognormal=(10.0, "unknown"))).name == "lognormal"


def test_when_no_tail_holds_the_samples_themselves_are_taken_if_they_are_many():
    none_holds = ranked(gamma=(90.0, "too light"), lognormal=(10.0, "too light"))
    assert choose([*none_holds, FITS["empirical"]]).name == "empirical"
    few = FITS["empirical"].model_copy(update={"n_effective": 499.0})
    assert choose([*none_holds, few]).name == "lognormal"
    assert choose(none_holds).name == "lognormal"


def test_without_any_likelihood_the_nearest_is_taken():
    assert choose([FITS["constant"], FITS["empirical"]]).name == "empirical"


def test_a_component_does_not_close_in_on_one_sample():
    """Started on the smallest sample it keeps what the penalty adds, 2 / sqrt(n) of the whole variance."""
    z = np.sort(np.log(draws(TRUTHS["lognormal"], 400, 0)))
    z[0] = z[1] - 2.0
    on_one = np.array([1 / 400, 399 / 400]), np.array([z[0], z[1:].mean()]), np.array([1e-4, z[1:].var()])
    (_, _, variances), likelihood = _climb(z, on_one, 1e-9, 200)
    assert np.isfinite(likelihood)
    assert variances[0] >= 0.9 * 0.1 * z.var() / 1.1
