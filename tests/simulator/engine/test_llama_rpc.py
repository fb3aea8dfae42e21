"""llama.cpp RPC: sizes as seen on the wire, theory of a star, and SimPy against the recursion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from simulator.cluster.cluster import PowerSave
from simulator.engine.base import engine
from simulator.engine.llama.recursion import is_recursion_exact
from simulator.engine.llama.star import LlamaStar
from simulator.laws import Constant, Lognormal
from simulator.model.model import Model
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from tests.helpers import by_recursion, by_simpy, device, inter_token_s, job, jobs, link, simulate

many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
OBSERVED = Model(
    "random-80mb", 16, 1024, 5.3e6, 5.3e6, 0, 0, 0.0, 294912.0, 434176.0, 1024.0, 1.8e7, 1048576.0, 4096.0
)
"""The model whose messages were counted (docs/llama-rpc-flow.md): hidden 1024, 512 tokens of vocabulary."""


def star(layers: list[int], prompt_tokens: int, output_tokens: int = 6) -> LlamaStar:
    devices = [device(f"d{i}") for i in range(len(layers))]
    a_job = job(devices, "llama-rpc", layers=layers, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    a_job = replace(a_job, model=OBSERVED)
    return LlamaStar(a_job, Draws(a_job, 0, 1))


def test_decode_requests_are_as_long_as_on_the_wire() -> None:
    """700 tokens of prompt, then the cache has 768 places: graph sent once, then reused (recorded, to the byte)."""
    seen = star([4, 4, 4, 4], 700)
    recorded = {1: [64774, 11966, 11966], 2: [59764, 7556, 7556], 3: [62490, 7874, 7874]}
    assert {server: seen.decode_request_bytes(server)[:3].tolist() for server in recorded} == recorded
    assert [seen.reply_bytes(server, 1) for server in (1, 2, 3)] == [4104, 4104, 2056]


def test_a_grown_cache_brings_a_new_graph() -> None:
    """250 tokens of prompt: the 7th decode step is the first beyond 256 places (recorded, to the byte)."""
    seen = star([11, 5], 250, output_tokens=10)
    assert seen.decode_request_bytes(1).tolist() == [79156, *[11260] * 5, 79668, 11772, 11772]


def test_prompt_requests_are_as_long_as_on_the_wire() -> None:
    """Recorded: chunks of 512 and 188 tokens; a client without layers sends one tensor, one with layers sends two."""
    seen = star([4, 4, 4, 4], 700)
    recorded = [[4784162, 4783554, 4786000], [1887954, 1887346, 1890088]]
    for chunk, sizes in enumerate(recorded):
        np.testing.assert_allclose([seen.prompt_request_bytes(s, chunk) for s in (1, 2, 3)], sizes, rtol=3e-4)
    assert star([0, 6, 5, 5], 100).prompt_request_bytes(1, 0) == 542272


def test_two_tensors_cross_a_boundary_from_32_tokens_on() -> None:
    seen = star([4, 4, 4, 4], 700)
    assert [seen.carries_two(server, 32) for server in (1, 2, 3)] == [False, True, True]
    assert not any(seen.carries_two(server, 31) for server in (1, 2, 3))
    assert not any(star([0, 8, 8], 700).carries_two(server, 512) for server in (1, 2))


@pytest.mark.parametrize("servers", [1, 2, 4])
def test_a_token_costs_two_latencies_per_server(servers: int) -> None:
    """Star with delay D on each device's side: 2 D each way between client and server, whatever the layers take."""

    def of(delay_s: float) -> float:
        return inter_token_s(
            job([device(f"d{i}", link=link(delay_s)) for i in range(servers + 1)], "llama-rpc")
        )

    assert of(0.005) - of(0.0) == pytest.approx(servers * 2 * 2 * 0.005)


def test_one_device_sends_nothing() -> None:
    alone, far = (job([device("d0", link=link(delay))], "llama-rpc") for delay in (0.0, 1.0))
    np.testing.assert_array_equal(by_recursion(alone), by_recursion(far))


@given(jobs("llama-rpc", chats=4, prompts=1500))
@many
def test_recursion_is_simpy(a_job: Job) -> None:
    if is_recursion_exact(a_job):
        fast = by_recursion(a_job, 2)
        for row in range(2):
            np.testing.assert_allclose(fast[:, :, row], by_simpy(a_job, row), rtol=1e-9)


@pytest.mark.parametrize("prompt_tokens", [20, 100, 1500])
def test_critical_path_has_no_gap(prompt_tokens: int) -> None:
    slow = link(Lognormal(median="3 ms", sigma=0.5), rate=2e6)
    devices = [device(f"d{i}", link=slow) for i in range(3)]
    a_job = job(devices, "llama-rpc", prompt_tokens=prompt_tokens, output_tokens=5)
    seen = simulate(a_job, spans=True)
    for _, _, time_s, span in seen.tokens:
        assert sum(part.end_s - part.start_s for part in seen.critical_path(span)) == pytest.approx(
            time_s, rel=1e-9
        )


def test_recursion_knows_where_it_is_not_exact() -> None:
    on_air = [device(f"d{i}", link=link(0.001, rate=1e7, shared=True)) for i in range(3)]
    assert is_recursion_exact(job(on_air, "llama-rpc", prompt_tokens=20))
    assert not is_recursion_exact(job(on_air, "llama-rpc", prompt_tokens=600))
    dozing = [
        device("d0"),
        device("d1", link=link(0.001, power_save=PowerSave(0.01, Constant(value="50 ms")))),
    ]
    assert not is_recursion_exact(job(dozing, "llama-rpc"))


def test_engine_facts() -> None:
    found = engine("llama-rpc")
    assert found.head_on == "last"
    assert found.default_rule == "speed"
