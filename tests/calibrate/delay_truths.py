"""Laws of known parameters, and samples of them, for the tests of delay fitting."""

import numpy as np

from simulator.laws import Exponential, Gamma, Lognormal, Mixture, Part, Weibull

TRUTHS = {
    "lognormal": Lognormal(median="8 ms", sigma=0.6),
    "gamma": Gamma(mean="4 ms", shape=2.0),
    "weibull": Weibull(scale="4 ms", shape=1.5),
    "exponential": Exponential(mean="3 ms", shift="2 ms"),
    "shifted lognormal": Lognormal(median="3 ms", sigma=0.8, shift="2 ms"),
    "shifted gamma": Gamma(mean="4 ms", shape=2.5, shift="3 ms"),
    "shifted weibull": Weibull(scale="4 ms", shape=0.7, shift="1 ms"),
    "lognormal mixture": Mixture(
        parts=(
            Part(weight=0.95, of=Lognormal(median="3 ms", sigma=0.3)),
            Part(weight=0.05, of=Lognormal(median="100 ms", sigma=0.5)),
        )
    ),
}


def draws(law, n, seed):
    """`n` independent draws (s); of a mixture each draw picks its part."""
    rng = np.random.default_rng(seed)
    if isinstance(law, Mixture):
        chosen = rng.random(n) < law.parts[0].weight
        return np.where(chosen, *(part.of.quantile(rng.random(n)) for part in law.parts))
    return law.quantile(rng.random(n))
