"""Whatever happens, the simulation ends, and no token is lost or doubled.

`CHURN_EXAMPLES=1000` runs as many scripts as were once asked for; by default fewer do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.churn.study import Evening, Study
from simulator.churn.trace import ChurnTrace
from simulator.scenario import Scenario
from tests.simulator.churn.scripts import scenarios

EXAMPLES = int(os.environ.get("CHURN_EXAMPLES", "80"))


def checked(trace: ChurnTrace, wanted: int, engine: str) -> None:
    for reply in trace.replies:
        assert len(reply.times_s) <= wanted
        assert reply.complete != reply.given_up, "a reply is complete or given up"
        if engine != "exo-legacy":  # whose broadcasts may overtake each other, and then arrive together
            assert len(set(reply.times_s)) == len(reply.times_s), "two tokens at once: one of them is doubled"
    tokens_join_up(trace)
    assert all(a <= b for a, b in pairwise(moments(trace))), "time ran backward"


def tokens_join_up(trace: ChurnTrace) -> None:
    """Each epoch begins with the token after the last one of the epoch before."""
    for reply in trace.replies:
        starts = [token for token, _ in reply.epochs]
        assert starts == sorted(set(starts))
        assert not starts or starts[0] == 0
        resumed = [recovered.token for recovered in reply.recoveries if recovered.resumed_s is not None]
        assert set(resumed) <= set(starts), "a reply resumes with the very token at which it broke off"
        for recovered in reply.recoveries:
            if recovered.resumed_s is not None:
                assert reply.times_s[recovered.token] == recovered.resumed_s
                before = reply.times_s[recovered.token - 1] if recovered.token else reply.started_s
                assert before <= recovered.fault_s <= recovered.resumed_s


def moments(trace: ChurnTrace) -> Iterator[float]:
    """The times of each reply's tokens and phases, reply by reply: one is made at a time."""
    for reply in trace.replies:
        stamps = [reply.started_s, *reply.times_s]
        assert stamps == sorted(stamps)
        for recovered in reply.recoveries:
            phases = [time for phase in recovered.phases for time in phase[1:]]
            assert phases == sorted(phases)
            assert all(time >= recovered.fault_s for time in phases)
    yield from (happening.time_s for happening in trace.happened)


def memory_holds(trace: ChurnTrace) -> None:
    for _, placed in trace.placements:
        assert all(use.fits for use in placed.memory)
        assert sum(shard.layers for shard in placed.job.shards) == placed.job.model.layers


def nobody_works_who_has_left(trace: ChurnTrace) -> None:
    for at_s, placed in trace.placements:
        latest = {
            happening.device: happening.what
            for happening in trace.happened
            if happening.time_s < at_s and happening.what in ("drop", "rejoin", "join")
        }
        assert "drop" not in {latest.get(name) for name in placed.devices}


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(scenarios(), st.booleans())
def test_any_script_ends_and_loses_nothing(scenario: Scenario, evening: bool) -> None:
    requests = Evening(0.01, 300) if evening else None
    study = Study(scenario, 2, requests)
    traces = study.traces()
    for trace in traces:
        checked(trace, scenario.workload.output_tokens, scenario.engine.name)
        memory_holds(trace)
        nobody_works_who_has_left(trace)
    again = Study(scenario, 2, requests).traces()
    assert [told(trace) for trace in again] == [told(trace) for trace in traces]


def told(trace: ChurnTrace) -> bytes:
    """All that happened, to the last bit of every time."""
    replies = [
        (
            reply.asked_s,
            reply.times_s,
            reply.end_s,
            [token for token, _ in reply.epochs],
            [(r.fault_s, r.phases, r.resumed_s, r.refusals) for r in reply.recoveries],
        )
        for reply in trace.replies
    ]
    return repr(
        (replies, trace.happened, [(at, placed.devices) for at, placed in trace.placements], trace.slow)
    ).encode()
