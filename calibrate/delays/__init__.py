"""Delay laws: from measured delays to one law with its uncertainty, ranked against the others.

`fit_laws` ranks candidates for one-way delays, `fit_round_trips` for round trips (two crossings), `choose`
takes one, `table` prints the ranking, `hop_delays_s` and `link_rtts_s` read the samples out of a Measurement.
"""

from calibrate.delays.assess import choose
from calibrate.delays.fit import CANDIDATES, fit_laws
from calibrate.delays.law_fit import LawFit, LawParameter
from calibrate.delays.read import Route, hop_delays_s, link_rtts_s
from calibrate.delays.round_trip import fit_round_trips, law_from_rtt
from calibrate.delays.text import table

__all__ = [
    "CANDIDATES",
    "LawFit",
    "LawParameter",
    "Route",
    "choose",
    "fit_laws",
    "fit_round_trips",
    "hop_delays_s",
    "law_from_rtt",
    "link_rtts_s",
    "table",
]
