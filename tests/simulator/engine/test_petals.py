"""Petals' chain: theory, sizes as seen on the wire, recordings of real processes, SimPy against the recursion."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator import load
from simulator.cluster.cluster import Wire
from simulator.complete import complete
from simulator.engine.petals import ENGINE
from simulator.engine.petals.chain import Chain
from simulator.engine.petals.flow import backoff_s, flow_facts
from simulator.errors import CatalogError, ScenarioError
from simulator.laws import Constant, Exponential, Streams
from simulator.laws.closed_forms import mean_value_analysis
from simulator.laws.law import Floats
from simulator.model.model import Model
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.scenario import SpeedSpec
from tests.helpers import (
    INSTANT,
    SMALL,
    agrees,
    by_recursion,
    by_simpy,
    device,
    inter_token_s,
    job,
    jobs,
    link,
    simulate,
)

FLOW = Path(__file__).parents[2] / "data" / "petals" / "flow.csv"
RECORDED = Model("random-18", 18, 256, 0.7e6, 0.7e6, 0, 0, 0.0, 2e6, 2e6, 2048.0, 1.4e6, 1e6, 1024.0)
"""The model that was recorded: 18 blocks of hidden size 256 in 32 bits."""


def chain_of(servers: int, delay_s: float = 0.0, *, push: bool = False, **changes: object) -> Job:
    """A client without blocks and so many servers; each message takes `delay_s`."""
    devices = [device(f"d{i}", link=link(delay_s / 2)) for i in range(servers + 1)]
    share, more = divmod(SMALL.layers, servers)
    layers = [0, *[share + (i < more) for i in range(servers)]]
    a_job = job(devices, "petals", layers=layers, **changes)  # type: ignore[arg-type]
    return replace(a_job, engine=replace(a_job.engine, push=push))


@pytest.mark.parametrize("servers", [1, 2, 3, 5])
@pytest.mark.parametrize("push", [False, True])
def test_a_token_costs_two_delays_per_server_or_one_more_than_servers(servers: int, push: bool) -> None:
    delay_s = 0.02
    found = inter_token_s(chain_of(servers, delay_s, push=push)) - inter_token_s(chain_of(servers, push=push))
    assert found == pytest.approx((servers + 1 if push else 2 * servers) * delay_s, rel=1e-9)


@pytest.mark.parametrize("push", [False, True])
@given(a_job=jobs("petals", prompts=200))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_simpy_gives_what_the_recursion_gives(push: bool, a_job: Job) -> None:
    if push:  # what is pushed travels beside the client's own copies, which on shared air meet
        wired = [replace(one, link=replace(one.link, shared=False)) for one in a_job.cluster.devices]
        a_job = replace(a_job, cluster=replace(a_job.cluster, devices=tuple(wired)))
    a_job = replace(a_job, engine=replace(a_job.engine, push=push))
    assert ENGINE.is_recursion_exact(a_job)
    fast = by_recursion(a_job, 2)
    for row in range(2):
        np.testing.assert_allclose(fast[:, :, row], by_simpy(a_job, row), rtol=1e-9)


@pytest.mark.parametrize("chats", [1, 3, 6])
def test_exponential_servers_meet_mean_value_analysis(chats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chats are the customers of a closed network: servers are queues, messages and client are delays."""
    services_s, tokens, rows = (0.010, 0.006, 0.003), 220, 16

    def exponential(self: Chain, chat: int) -> Floats:
        streams = Streams(9, self.draws.first, self.draws.rows)
        laws = [Exponential(mean=f"{mean!r} s") for mean in services_s]
        return np.stack([streams.draws(f"{chat}/{at}", law, tokens) for at, law in enumerate(laws)], axis=1)

    monkeypatch.setattr(Chain, "server_s", exponential)
    monkeypatch.setattr(Chain, "client_s", lambda self, chat: np.zeros((tokens, self.draws.rows)))
    a_job = chain_of(3, 0.002, output_tokens=tokens, concurrency=chats)
    theory = mean_value_analysis(services_s, delay_s=6 * 0.002, customers=chats)
    gaps = [
        np.mean(times[:, 160] - times[:, 30]) / 130 for times in (by_simpy(a_job, row) for row in range(rows))
    ]
    agrees(np.array(gaps), theory.cycle_s)


def test_messages_are_as_long_as_on_the_wire() -> None:
    """Recorded for three servers of 6 blocks: 1459, 1360 and 1261 bytes out, 1045 in, less TLS and yamux around them."""
    a_job = job([device(f"d{i}") for i in range(4)], "petals", layers=[0, 6, 6, 6], model=RECORDED)
    chain = Chain(a_job, Draws(a_job, 0, 1))
    out, back = flow_facts().wire_bytes
    requests = [chain.request(0, at) for at in range(3)]
    assert [one.sizes[1] - out for one in requests if one] == pytest.approx([1459, 1360, 1261], abs=2)
    reply = chain.reply(0, 0)
    assert reply is not None
    assert reply.sizes[1] - back == 1045
    # the first step names nobody who follows (16 tokens recorded: 16,667 bytes)
    assert requests[0] is not None
    assert requests[0].sizes[0] - out - (8 - 16) * 1024 == pytest.approx(16667, abs=50)


def recorded_job(row: dict[str, str]) -> Job:
    """The recorded swarm: floors of seconds per block are the servers' speed, relays stand before each server."""
    servers = int(row["servers"])
    blocks = RECORDED.layers // servers
    devices = [device("client")]
    for at in range(servers):
        floor, delay_s = float(row[f"floor{at + 1}_s"]), float(row[f"delay{at + 1}_s"])
        speed = SpeedSpec(
            decode_bandwidth=f"{RECORDED.layer_bytes / floor!r} B/s",
            # prompts were floored too: 16 tokens took half as long again as one
            prefill_flops=f"{16 * RECORDED.layer_flops / (1.5 * floor) / 1e9!r} GFLOPS",
            context_cost=0.0,
        )
        devices.append(device(f"s{at + 1}", speed=speed, link=link(delay_s)))
    costs = ENGINE.facts
    # one of two servers has dialled the other, past whose relay all between them goes
    between = Constant(value=f"{float(row['delay1_s']) / 2!r} s")
    pairs = [frozenset(pair) for pair in combinations([one.name for one in devices[1:]], 2)]
    a_job = job(
        devices,
        "petals",
        layers=[0, *[blocks] * servers],
        model=RECORDED,
        step_overhead_s=costs.step_overhead_s,
        hop_overhead_s=costs.hop_overhead_s,
        prompt_tokens=int(row["prompt_tokens"]),
        output_tokens=20,
        wires=[Wire(pair, "relay", between, INSTANT, 0.0, 0.0) for pair in pairs],
    )
    return replace(
        a_job,
        engine=replace(a_job.engine, push=row["push"] == "1", request_overhead_s=costs.request_overhead_s),
    )


def test_recorded_swarms() -> None:
    """62 runs of real processes on two cores that others used: the quiet tenth of each run's tokens, then the middle.

    With pushes a relay delays one end's dialling only, so runs with unequal delays say nothing of theory there.
    """
    errors: list[float] = []
    middles: list[float] = []
    for row in csv.DictReader(FLOW.read_text().splitlines()):
        delays = {row[f"delay{at + 1}_s"] for at in range(int(row["servers"]))}
        if row["push"] == "1" and len(delays) > 1:
            continue
        times_s = by_recursion(recorded_job(row))[0, :, 0]
        found = float(np.median(np.diff(times_s)))
        errors.append(found / float(row["inter_token_p10_s"]) - 1)
        middles.append(found / float(row["inter_token_median_s"]) - 1)
    assert np.median(np.abs(errors)) < 0.05
    assert np.quantile(np.abs(errors), 0.75) < 0.15
    assert np.median(np.abs(middles)) < 0.10


def test_a_long_prompt_is_a_task_for_each_block() -> None:
    def tasks(prompt_tokens: int) -> list[int]:
        a_job = chain_of(3, prompt_tokens=prompt_tokens)
        return Chain(a_job, Draws(a_job, 0, 1)).prompt_tasks

    assert tasks(128) == [1, 1, 1]
    assert tasks(129) == [8, 8, 8]


def test_another_chat_slips_in_between_the_blocks_of_a_long_prompt() -> None:
    """Two prompts at once: below 129 tokens the second one waits for all of the first, above they alternate."""

    def queued_s(prompt_tokens: int) -> list[float]:
        slow = replace(device("d1"), speed=SpeedSpec(decode_bandwidth="12 GB/s", prefill_flops="1 TFLOPS"))
        a_job = job(
            [device("d0"), slow], "petals", layers=[0, 24], concurrency=2, prompt_tokens=prompt_tokens
        )
        spans = simulate(a_job, spans=True).spans
        return [span.end_s - span.start_s for span in spans if span.kind == "queue"]

    assert len(queued_s(128)) < len(queued_s(129))
    assert max(queued_s(129)) < max(queued_s(128)) / 2


def test_a_full_cache_refuses_and_the_chat_comes_again() -> None:
    """Room for two chats of 2,000 tokens: the third one is refused at 0, 1, 3, 7 .. s until one of them has ended."""
    a_job = chain_of(1, concurrency=3, prompt_tokens=100, output_tokens=1900)
    times_s = by_simpy(a_job)
    ended_s = times_s[:2, -1].min()
    tries_s = np.cumsum(list(islice(backoff_s(1.0, 60.0), 12)))
    let_in_s = tries_s[tries_s > ended_s][0]
    assert times_s[2, 0] == pytest.approx(let_in_s, abs=0.5)
    assert times_s[2, 0] > ended_s


def test_what_no_server_takes_is_refused_with_the_way_out() -> None:
    for changes, said in (
        ({"prompt_tokens": 2049}, "a Petals server takes 2048 tokens in one request"),
        ({"prompt_tokens": 2000, "output_tokens": 3000}, "keeps 4096 at most; shorten the reply"),
    ):
        with pytest.raises(ScenarioError, match=said):
            by_recursion(chain_of(2, **changes))  # type: ignore[arg-type]


def test_compression_halves_what_a_hidden_state_weighs() -> None:
    model = SMALL
    flow = flow_facts()
    assert flow.state_bytes(model, None) == model.activation_bytes
    assert flow.state_bytes(model, "8bit") == pytest.approx(model.activation_bytes / 2, rel=0.01)


def test_no_other_engine_takes_its_settings() -> None:
    scenario = load("four_devices")
    wrong = scenario.replace(engine={"name": "exo", "push": True})
    with pytest.raises(CatalogError, match="engine 'exo' has no push to choose"):
        complete(wrong)
    assert complete(scenario.replace(engine={"name": "petals", "push": True})).engine.push


@given(st.floats(0.1, 10), st.floats(10, 100))
def test_attempts_wait_longer_and_longer(first_s: float, most_s: float) -> None:
    waits = list(islice(backoff_s(first_s, most_s), 20))
    assert waits[0] == 0
    assert waits[1:] == sorted(waits[1:])
    assert max(waits) == most_s


def test_published_cost_of_a_longer_way() -> None:
    """Llama-2-70B on three servers (arXiv 2312.08361, when pushes worked): 199 to 200 ms more per token at 100 ms of
    round trip than below 5 ms, which is 4 one-way delays; as Petals is shipped now it would be 6.
    """

    def longer_s(*, push: bool) -> float:
        far, near = (inter_token_s(chain_of(3, rtt_s / 2, push=push)) for rtt_s in (0.1, 0.0025))
        return far - near

    assert longer_s(push=True) == pytest.approx(0.1995, rel=0.03)
    assert longer_s(push=False) > 0.29
