"""What must hold in every run: paths without gaps, shares that sum to one, and speed that never hurts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.laws import Constant
from simulator.result.critical import critical_shares, token_paths
from simulator.result.summary import inter_token_s, summarise, tokens_per_s
from simulator.run.evaluate import replay, token_times_s
from simulator.runtime.job import Job
from simulator.scenario import NoiseSpec
from tests.helpers import SPEED, by_simpy, device, job, jobs, link, ring

few = settings(max_examples=60, deadline=None)
either_engine = st.one_of(
    jobs("exo", chats=10, doze=True),
    jobs("exo-legacy", chats=4, doze=True),
    jobs("exo", prompts=9000, chats=2),
    jobs("llama-rpc", chats=3, doze=True),
)


@given(either_engine, st.integers(0, 2))
@few
def test_critical_paths_are_contiguous_and_sum_to_the_tokens_time(a_job: Job, row: int) -> None:
    recorder = replay(a_job, row)
    for path in token_paths(recorder):
        assert path.end_s >= path.start_s
        if path.end_s == path.start_s:
            continue
        assert path.spans[0].start_s == pytest.approx(path.start_s, abs=1e-9)
        assert path.spans[-1].end_s == pytest.approx(path.end_s, abs=1e-9)
        for before, after in pairwise(path.spans):
            assert before.end_s == pytest.approx(after.start_s, abs=1e-9)
        length_s = sum(span.end_s - span.start_s for span in path.spans)
        assert length_s == pytest.approx(path.end_s - path.start_s, rel=1e-6, abs=1e-9)


@given(either_engine)
@few
def test_shares_sum_to_one_and_seconds_to_the_mean_gap(a_job: Job) -> None:
    recorder = replay(a_job)
    shares = critical_shares([recorder])
    times = by_simpy(a_job)
    assert sum(share.share for share in shares) == pytest.approx(1, rel=1e-6)
    gap_s = float(np.diff(times, axis=1).mean())
    assert sum(share.seconds_per_token for share in shares) == pytest.approx(gap_s, rel=1e-6)
    assert [share.share for share in shares] == sorted((share.share for share in shares), reverse=True)


@given(either_engine)
@few
def test_tokens_come_in_order_and_to_everybody(a_job: Job) -> None:
    times = token_times_s(a_job, 2)
    assert times.shape[1:] == (a_job.workload.output_tokens, 2)
    assert np.all(np.isfinite(times))
    assert np.all(times[:, 0] > 0)
    assert np.all(np.diff(times, axis=1) >= 0)


constant_links = st.builds(
    lambda delay, rate, shared: link(delay, rate, shared=shared),
    st.floats(0, 0.05),
    st.sampled_from([1e5, 1e7]),
    st.booleans(),
)


@st.composite
def certain_jobs(draw: st.DrawFn) -> Job:
    """Constant laws, no noise, any number of layers, in either engine; one legacy chat (several may overtake)."""
    count = draw(st.integers(1, 5))
    speeds = [
        SPEED.model_copy(
            update={
                "decode_bandwidth": draw(st.floats(1e9, 1e11)),
                "prefill_flops": draw(st.floats(1e10, 1e13)),
            }
        )
        for _ in range(count)
    ]
    devices = [device(f"d{i}", speed=speed, link=draw(constant_links)) for i, speed in enumerate(speeds)]
    name = draw(st.sampled_from(["exo", "exo-legacy"]))
    return job(
        devices,
        name,
        layers=[draw(st.integers(1, 9)) for _ in range(count)],
        output_tokens=8,
        prompt_tokens=draw(st.integers(1, 30)),
        concurrency=draw(st.integers(1, 9)) if name == "exo" else 1,
    )


@given(certain_jobs(), st.integers(0, 4), st.floats(1, 20))
@settings(max_examples=150, deadline=None)
def test_a_faster_device_never_finishes_later(a_job: Job, which: int, factor: float) -> None:
    slow = a_job.ring[which % len(a_job.ring)]
    speed = slow.speed.model_copy(
        update={
            "decode_bandwidth": slow.speed.decode_bandwidth * factor,
            "prefill_flops": slow.speed.prefill_flops * factor,
        }
    )
    fast = with_device(a_job, replace(slow, speed=speed))
    assert np.all(token_times_s(fast, 1) <= token_times_s(a_job, 1) * (1 + 1e-12))


@given(certain_jobs(), st.integers(0, 4), st.floats(0, 0.99))
@settings(max_examples=100, deadline=None)
def test_a_nearer_link_never_finishes_later(a_job: Job, which: int, factor: float) -> None:
    far = a_job.ring[which % len(a_job.ring)]
    near = replace(far.link, delay=Constant(value=f"{far.link.delay.mean_s * factor!r} s"))
    times = token_times_s(with_device(a_job, replace(far, link=near)), 1)
    assert np.all(times <= token_times_s(a_job, 1) * (1 + 1e-12))


def with_device(a_job: Job, changed) -> Job:
    devices = tuple(changed if d.name == changed.name else d for d in a_job.cluster.devices)
    return replace(a_job, cluster=replace(a_job.cluster, devices=devices))


def test_rows_do_not_depend_on_how_many_are_asked_for() -> None:
    a_job = job([device(f"d{i}", noise=NoiseSpec(sigma=0.1)) for i in range(2)], output_tokens=2000)
    told: list[int] = []
    many = token_times_s(a_job, 120, progress=told.append)  # more than one block
    np.testing.assert_array_equal(many[:, :, :7], token_times_s(a_job, 7))
    assert told == sorted(told)
    assert len(told) > 1
    assert told[-1] == 120


def test_simpy_can_be_asked_for() -> None:
    a_job = ring(3, 0.001)
    np.testing.assert_allclose(
        token_times_s(a_job, 2, "simpy"), token_times_s(a_job, 2, "recursion"), rtol=1e-9
    )


def test_summary_of_times_worked_out_by_hand() -> None:
    """Two chats in one stream and one in another: rates 2 and 1 tokens/s, first tokens after 1 s and 4 s."""
    times = np.array([[[1.0], [1.5], [2.0]], [[4.0], [5.0], [6.0]]])
    summary = summarise(times, (2, 1))
    assert tokens_per_s(times)[:, 0].tolist() == [2.0, 1.0]
    assert inter_token_s(times)[:, :, 0].tolist() == [[0.5, 0.5], [1.0, 1.0]]
    assert summary.tokens_per_s.median == pytest.approx(5 / 3, rel=1e-5)
    assert summary.first_token_s.median == pytest.approx(2.0)
    assert summary.total_tokens_per_s.median == pytest.approx(3 * 2 / 5)
    assert summary.inter_token_p50_s.median == pytest.approx(0.75)
