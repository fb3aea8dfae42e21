"""llama.cpp RPC: sizes as seen on the wire, theory of a star, and SimPy against the recursion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from simulator import load
from simulator.cluster.cluster import PowerSave
from simulator.complete import complete
from simulator.engine.base import engine
from simulator.engine.llama.recursion import is_recursion_exact
from simulator.engine.llama.star import LlamaStar
from simulator.errors import CatalogError
from simulator.laws import Constant, Lognormal
from simulator.model.model import Model
from simulator.prepare import prepare
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.scenario import Scenario
from tests.helpers import SPEED, by_recursion, by_simpy, device, inter_token_s, job, jobs, link, simulate

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


@pytest.mark.parametrize("client_layers", [0, 8])
@pytest.mark.parametrize("servers", [1, 2, 4])
@pytest.mark.parametrize(
    ("protocol", "per_server", "of_first", "of_last"),
    [
        ("1.0", 1 + 1 + 3, 1, 1),
        ("2.0", 1 + 1, 0, 0),
        ("3.5.1", 1 + 1, 0, 0),
        ("3.6", 1, 0, 0),
        ("7", 1, 0, 0),
    ],
)
def test_older_protocols_wait_for_answers(
    protocol: str, per_server: int, of_first: int, of_last: int, client_layers: int, servers: int
) -> None:
    """Round trips of a token, by both evaluators: the read; a graph's answer before 3.6; before 2.0 those of
    three tensors to each server, of one more to the first where the client has layers, and of one more to the last
    (four for one server and a client without layers, as pull 12943 counts).
    """
    layers = [client_layers, *[4] * (servers - 1), 24 - client_layers - 4 * (servers - 1)]

    def of(delay_s: float) -> Job:
        devices = [device(f"d{i}", link=link(delay_s)) for i in range(servers + 1)]
        a_job = job(devices, "llama-rpc", layers=layers)
        return replace(a_job, engine=replace(a_job.engine, protocol=protocol))

    round_trips = servers * per_server + of_first * (client_layers > 0) + of_last
    for evaluate in (by_recursion, by_simpy):
        far, near = (np.diff(evaluate(of(delay_s))[0, -2:], axis=0) for delay_s in (0.005, 0.0))
        np.testing.assert_allclose(far - near, round_trips * 2 * 2 * 0.005)


def test_older_protocols_send_the_graph_with_each_token() -> None:
    seen = star([0, 16], 20)
    old = LlamaStar(replace(seen.job, engine=replace(seen.job.engine, protocol="2.0")), seen.draws)
    graph_bytes = 1501 + 16 * 12_680 + 2_408
    # and without the two tensors of 8 bytes that tell places in the caches
    assert (old.decode_request_bytes(1) - seen.decode_request_bytes(1))[1:].tolist() == [
        graph_bytes - 13 - 2 * (314 + 8)
    ] * 4


def test_a_protocol_that_nobody_knows_is_refused() -> None:
    def asked(engine_name: str, protocol: object) -> None:
        complete(load("thunderbolt_macs").replace(engine={"name": engine_name, "protocol": protocol}))

    for unknown in ("0.9", "8", 9.1, "newest", "", "9" * 500, [1]):
        with pytest.raises(
            CatalogError, match=r"no known protocol of engine 'llama-rpc'.* 1\.0, 2\.0, 3\.6, 7\.0"
        ):
            asked("llama-rpc", unknown)
    with pytest.raises(CatalogError, match="'exo' has no protocols to choose from; leave `protocol` out"):
        asked("exo", "1.0")
    for known in ("1.0", 2, 3.5, "v3.6.1", "7.0.1"):
        asked("llama-rpc", known)


def test_a_server_works_for_what_it_is_asked_and_a_client_does_not() -> None:
    """3 ms for each device that is asked: nothing on the client, and shared between them in an uncertain world."""
    slow = SPEED.model_copy(update={"serving_overhead": 0.003})
    for count in (1, 2, 4):
        a_job, plain = (
            job([device(f"d{i}", speed=speed) for i in range(count)], "llama-rpc") for speed in (slow, SPEED)
        )
        assert inter_token_s(a_job) - inter_token_s(plain) == pytest.approx((count - 1) * 0.003)
    unsure = job([device(f"d{i}", speed=slow) for i in range(3)], "llama-rpc", overhead_log_sd=0.7)
    gaps = np.diff(by_recursion(unsure, 400)[0], axis=0)[-1] - inter_token_s(
        job([device(f"d{i}") for i in range(3)], "llama-rpc")
    )
    assert np.log(gaps / 0.006).std() == pytest.approx(0.7, rel=0.1)


def with_card(a_job: Job) -> Job:
    """The same where the client is no processor, so that it computes the last layers and the head."""
    return replace(a_job, engine=replace(a_job.engine, head_not_on=("x86-cpu",)))


@pytest.mark.parametrize("servers", [1, 3])
def test_logits_stay_on_a_client_with_a_card(servers: int) -> None:
    """Who computes changes no sum, and latencies are as many; the last reply is a hidden state instead of logits,
    and the last server gets neither the head's graph nor the tensor that asks for its token.
    """
    rate, model = 1e6, OBSERVED

    def of(delay_s: float) -> Job:
        devices = [device(f"d{i}", link=link(delay_s, rate=rate)) for i in range(servers + 1)]
        return replace(job(devices, "llama-rpc", prompt_tokens=20, output_tokens=6), model=model)

    for evaluate in (by_recursion, by_simpy):
        kept, sent = (np.diff(evaluate(a_job)[0], axis=0)[-1] for a_job in (with_card(of(0.0)), of(0.0)))
        logits, hidden = 4 * 512, model.activation_bytes
        # and the first server adds up one state instead of two
        np.testing.assert_allclose(sent - kept, (logits - hidden + 314 + 4 + 314 + hidden) / rate, rtol=1e-9)
        far = np.diff(evaluate(with_card(of(0.005)))[0], axis=0)[-1]
        np.testing.assert_allclose(far - kept, servers * 2 * 2 * 0.005)


def test_a_client_that_comes_last_computes_while_servers_read_on() -> None:
    """Chunks of 512 on perfect links: the servers' chunks in series, then the client's of the last one, if shorter."""
    a_job = with_card(
        job([device(f"d{i}") for i in range(3)], "llama-rpc", prompt_tokens=4 * 512, layers=[4, 10, 10])
    )
    star = LlamaStar(a_job, Draws(a_job, 0, 1))
    assert star.client_is_last
    on_servers = star.prefill_s[:, 1:, 0].sum(axis=1)
    assert (star.prefill_s[:, 0, 0] < on_servers).all()
    for evaluate in (by_recursion, by_simpy):
        assert float(np.ravel(evaluate(a_job)[0, 0])[0]) == pytest.approx(
            on_servers.sum() + star.prefill_s[-1, 0, 0]
        )


@given(jobs("llama-rpc", chats=4, prompts=1500))
@many
def test_recursion_is_simpy_with_a_card_in_the_client(a_job: Job) -> None:
    a_job = with_card(a_job)
    if is_recursion_exact(a_job):
        np.testing.assert_allclose(by_recursion(a_job, 2)[:, :, 1], by_simpy(a_job, 1), rtol=1e-9)


@pytest.mark.parametrize("protocol", ["1.0", "2.0"])
@given(jobs("llama-rpc", chats=4, prompts=1500))
@settings(parent=many, max_examples=40)
def test_so_it_is_in_older_protocols(protocol: str, a_job: Job) -> None:
    a_job = with_card(a_job)
    a_job = replace(a_job, engine=replace(a_job.engine, protocol=protocol))
    if is_recursion_exact(a_job):
        np.testing.assert_allclose(by_recursion(a_job, 2)[:, :, 1], by_simpy(a_job, 1), rtol=1e-9)


def test_who_holds_the_head() -> None:
    """The client where it has a card and layers, else the last server; memory is counted where it is computed."""

    def holders(client: str, layers: dict[str, int]) -> tuple[int, list[str]]:
        devices = {"client": {"kind": client}, "server": {"kind": "Mac mini M4 Pro", "memory": "64 GB"}}
        told = {"name": "two", "model": "Llama-3.1-8B", "engine": "llama-rpc", "devices": devices}
        ready = prepare(Scenario.model_validate(told | {"placement": {"layers": layers}}))
        return ready.job.head_rank, [row.device for row in ready.memory if row.head_bytes]

    halves = {"client": 16, "server": 16}
    assert holders("MacBook Pro M4 Max", halves) == (0, ["client"])
    assert holders("MacBook Pro M4 Max", {"server": 16, "client": 16}) == (0, ["server"])
    assert holders("Pixel 8 Pro", halves) == (1, ["server"])
    assert holders("MacBook Pro M4 Max", {"client": 0, "server": 32}) == (1, ["server"])


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


@pytest.mark.parametrize("protocol", ["1.0", "2.0"])
@given(jobs("llama-rpc", chats=4, prompts=1500))
@settings(parent=many, max_examples=40)
def test_recursion_is_simpy_in_older_protocols(protocol: str, a_job: Job) -> None:
    a_job = replace(a_job, engine=replace(a_job.engine, protocol=protocol))
    if is_recursion_exact(a_job):
        np.testing.assert_allclose(by_recursion(a_job, 2)[:, :, 1], by_simpy(a_job, 1), rtol=1e-9)


@pytest.mark.parametrize("protocol", [None, "1.0"])
@pytest.mark.parametrize("prompt_tokens", [20, 100, 1500])
def test_critical_path_has_no_gap(prompt_tokens: int, protocol: str | None) -> None:
    slow = link(Lognormal(median="3 ms", sigma=0.5), rate=2e6)
    devices = [device(f"d{i}", link=slow) for i in range(3)]
    a_job = job(devices, "llama-rpc", prompt_tokens=prompt_tokens, output_tokens=5)
    a_job = replace(a_job, engine=replace(a_job.engine, protocol=protocol))
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
