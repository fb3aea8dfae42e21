"""Layers of one model may differ: what they weigh, read, keep and compute, and where they go."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import ScenarioError
from simulator.files import loads
from simulator.layer import LayerKind
from simulator.model.stretch import Stretch
from simulator.placement.partition import partition
from simulator.plan.place.search import search
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.runtime.cost import decode_s, prefill_s
from simulator.scenario import Scenario, SpeedSpec
from tests.helpers import SMALL, device

DENSE = LayerKind(
    weight_bytes=300e6, active_bytes=300e6, kv_bytes_per_token=1000, flops=6e8, attention_flops_per_token=4096
)
WINDOW = DENSE.model_copy(update={"kv_window_tokens": 128})
LINEAR = DENSE.model_copy(
    update={"kv_bytes_per_token": 0.0, "state_bytes": 5e4, "attention_flops_per_token": 0.0}
)
MIXTURE = LayerKind(
    weight_bytes=100e6, active_bytes=30e6, experts=8, experts_per_token=2, expert_bytes=80e6, flops=6e7
)

SPARSE = DENSE.model_copy(
    update={"kv_read_tokens": 500, "index_bytes_per_token": 200.0, "index_flops_per_token": 512.0}
)


def test_a_stretch_is_the_sum_of_its_layers() -> None:
    held = Stretch((DENSE, WINDOW, LINEAR, MIXTURE), (1, 2, 3, 4))
    assert held.layers == 10
    assert held.weight_bytes == 6 * 300e6 + 4 * 100e6
    assert held.bytes_read() == 6 * 300e6 + 4 * 30e6
    # two tokens touch 1 - (3/4)**2 = 7/16 of the experts
    assert held.bytes_read(2) == pytest.approx(6 * 300e6 + 4 * (10e6 + 80e6 * 7 / 16))
    assert held.bytes_read(1, mixture_cost=2.0) == 6 * 300e6 + 8 * 30e6


def test_a_window_keeps_its_last_tokens_and_a_state_does_not_grow() -> None:
    held = Stretch((DENSE, WINDOW, LINEAR), (1, 1, 1))
    np.testing.assert_allclose(held.kv_bytes([100, 1000]), [200e3 + 5e4, 1000e3 + 128e3 + 5e4])
    assert float(held.kv_bytes(1000, sequences=3)) == pytest.approx(3 * 1178e3)
    np.testing.assert_allclose(held.attention_flops([100, 1000]), [4096 * 200, 4096 * 1128])


def test_sparse_attention_keeps_all_and_reads_what_its_index_picks() -> None:
    """Of `c` tokens `(kv - index) min(c, k) + index c`, and flops alike; up to `k` there is nothing to pick."""
    held, context = Stretch((SPARSE, LINEAR), (2, 1)), [300.0, 500.0, 4000.0]
    np.testing.assert_allclose(held.kv_bytes(context), [2 * 1000 * c + 5e4 for c in context])
    by_hand = [2 * 800 * 300 + 5e4, 2 * 800 * 500 + 5e4, 2 * (800 * 500 + 200 * 4000) + 5e4]
    np.testing.assert_allclose(held.kv_bytes_read(context), by_hand)
    np.testing.assert_allclose(held.kv_bytes_read(4000, sequences=3), 3 * by_hand[-1])
    flops = [2 * 4096 * 300, 2 * 4096 * 500, 2 * (4096 * 500 + 512 * 4000)]
    np.testing.assert_allclose(held.attention_flops(context), flops)


def test_a_step_of_sparse_attention_takes_what_it_reads() -> None:
    host = device("a", speed=SpeedSpec(decode_bandwidth="1 GB/s", prefill_flops="1000 TFLOPS"))
    seconds = float(decode_s(host, Stretch((SPARSE,), (1,)), 4000.0))
    assert seconds == pytest.approx((300e6 + 800 * 500 + 200 * 4000) / 1e9)
    masked = SPARSE.model_copy(update={"kv_read_tokens": None})
    assert float(decode_s(host, Stretch((masked,), (1,)), 4000.0)) == pytest.approx((300e6 + 4e6) / 1e9)


def test_a_prompt_of_sparse_attention_masks_and_asks_the_index_on_top() -> None:
    held, seen = Stretch((SPARSE,), (1,)), 400 * 200 + 400**2 / 2
    assert held.prompt_attention_flops(400, 200) == pytest.approx((4096 + 512) * seen)
    assert held.prompt_attention_flops(300, 200) == pytest.approx(4096 * (300 * 200 + 300**2 / 2))


@given(st.integers(1, 300), st.integers(0, 300), st.integers(1, 300))
def test_a_prompt_attends_to_what_each_of_its_tokens_sees(tokens: int, context: int, window: int) -> None:
    """Against the sum token by token, to within half a token each: the closed form integrates."""
    kind = WINDOW.model_copy(update={"kv_window_tokens": window, "attention_flops_per_token": 1.0})
    exact = sum(min(context + i, window) for i in range(tokens))
    assert Stretch((kind,), (1,)).prompt_attention_flops(tokens, context) == pytest.approx(exact, abs=tokens)


def test_average_layers_cost_what_they_did() -> None:
    """One kind of layer is the model by averages: 24 layers of 12 MB at 12 GB/s."""
    laptop = device("laptop")
    assert float(decode_s(laptop, SMALL.stretch(0, 24), 0)) == pytest.approx(24e-3)
    assert float(decode_s(laptop, SMALL.average(2.5), 0)) == pytest.approx(2.5e-3)
    assert prefill_s(laptop, SMALL.stretch(3, 3), 100) == 0


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=8),
    st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=1, max_size=3),
    st.integers(5, 40),
)
def test_runs_are_the_best_of_all(work: list[int], speeds: list[float], cap: int) -> None:
    caps = [float(cap)] * len(speeds)
    found = partition(work, work, speeds, caps)
    every = []
    for cuts in combinations(range(1, len(work)), len(speeds) - 1):
        ends = [0, *cuts, len(work)]
        runs = [sum(work[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
        if all(run <= limit for run, limit in zip(runs, caps, strict=True)):
            every.append(max(run / speed for run, speed in zip(runs, speeds, strict=True)))
    if found is None:
        assert every == []
        return
    ends = np.cumsum([0, *found]).tolist()
    value = max(sum(work[a:b]) / speed for a, b, speed in zip(ends, ends[1:], speeds, strict=False))
    assert value == pytest.approx(min(every))


UNEVEN = """
name: uneven
model: {name: own, layers: 12, hidden: 1000, layer_bytes: 150 MB, head_bytes: 10 MB,
        layer_kinds: KINDS, layer_pattern: [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]}
devices:
  a: {memory: MEMORY GB, speed: {decode_bandwidth: 50 GB/s, prefill_flops: 1 TFLOPS}, link: LINK}
  b: {memory: MEMORY GB, speed: {decode_bandwidth: 50 GB/s, prefill_flops: 1 TFLOPS}, link: LINK}
engine: {name: ENGINE, memory_overhead: 0 B}
placement: speed
workload: {prompt_tokens: 16, output_tokens: 8, runs: 1}
replications: 4
"""
LIGHT = DENSE.model_copy(update={"weight_bytes": 100e6, "active_bytes": 100e6})


def written() -> str:
    return UNEVEN.replace("LINK", "{delay: {law: constant, value: 1 ms}, rate: 1 GB/s}")


def uneven(engine: str = "exo", memory: str = "4") -> Scenario:
    kinds = json.dumps([DENSE.model_dump(), LIGHT.model_dump()])
    text = written().replace("KINDS", kinds).replace("ENGINE", engine).replace("MEMORY", memory)
    return loads(text, Scenario)


def test_layers_go_by_what_they_weigh() -> None:
    """Three layers of 300 MB and nine of 100: equal devices take 900 MB each, not six layers each."""
    job = prepare(uneven()).job
    assert job.placement.layer_counts == {"a": 3, "b": 9}
    times = [float(decode_s(one, job.held(rank), 0)) for rank, one in enumerate(job.ring)]
    assert times == pytest.approx([0.018, 0.018])


@pytest.mark.parametrize("engine", ["exo", "exo-legacy", "llama-rpc"])
def test_both_evaluators_agree_where_layers_differ(engine: str) -> None:
    job = prepare(uneven(engine)).job
    fast, simpy = (token_times_s(job, 2, evaluator) for evaluator in ("recursion", "simpy"))
    np.testing.assert_allclose(fast, simpy, rtol=1e-9)


def test_memory_counts_the_layers_that_are_there() -> None:
    """1 GB each: 3 x 300 MB fit beside a head of 10 MB, six average layers would not show whether they do."""
    prepared = prepare(uneven(memory="1"))
    assert [use.weights_bytes for use in prepared.memory] == [900e6, 900e6]
    answer = search(uneven(memory="1"))
    assert answer.best.placement is not None
    assert answer.best.placement.layer_counts == {"a": 3, "b": 9}
    assert not answer.proof.exact


def test_a_pattern_without_kinds_is_refused() -> None:
    with pytest.raises(ScenarioError, match="layer_kinds and layer_pattern belong together"):
        loads(
            UNEVEN.replace("layer_kinds: KINDS, ", "").replace("ENGINE", "exo").replace("MEMORY", "4"),
            Scenario,
        )
    with pytest.raises(ScenarioError, match="layer_pattern names kind 7"):
        loads(
            written()
            .replace("[0, 0, 0,", "[7, 0, 0,")
            .replace("KINDS", json.dumps([DENSE.model_dump()]))
            .replace("ENGINE", "exo")
            .replace("MEMORY", "4"),
            Scenario,
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experts_per_token": 20}, "20 experts per token of 8 experts"),
        ({"expert_bytes": 8e9}, "they are part of it"),
        ({"active_bytes": 2e8}, "no more can be read than there is"),
        ({"active_bytes": 1e6}, "the experts of a token alone have"),
        ({"active_bytes": 0}, "greater than 0"),
    ],
)
def test_a_layer_that_contradicts_itself_is_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LayerKind.model_validate(MIXTURE.model_dump() | changes)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ("layer_bytes: 1 B", "on average; give that"),
        ("layer_bytes: 100 TB", "on average; give that"),
        ("layer_bytes: 150 MB, experts: 1, experts_per_token: 100000", "experts per token of 1 experts"),
        ("layer_bytes: 150 MB, experts: 8, experts_per_token: 2, expert_layer_bytes: 80 GB", "part of it"),
    ],
)
def test_numbers_of_a_model_that_contradict_each_other_are_refused(numbers: str, said: str) -> None:
    kinds = json.dumps([DENSE.model_dump(), LIGHT.model_dump()])
    text = written().replace("layer_bytes: 150 MB", numbers).replace("KINDS", kinds)
    with pytest.raises(ScenarioError, match=said):
        loads(text.replace("ENGINE", "exo").replace("MEMORY", "4"), Scenario)


def test_a_batch_whose_tokens_prefer_the_same_experts_reads_fewer() -> None:
    """By hand for two tokens: a beta law of mean p and shape a is left alone by `q (b + 1) / (a + b + 1)`."""
    kind = LayerKind(
        weight_bytes=90e6,
        active_bytes=30e6,
        flops=1e6,
        kv_bytes_per_token=1,
        experts=16,
        experts_per_token=4,
        expert_bytes=80e6,
    )
    rest = 0.25 * (16 / 4 - 1)
    by_hand = 1 - 0.75 * (rest + 1) / (0.25 + rest + 1)
    assert kind.bytes_read(1, 0.25) == pytest.approx(kind.bytes_read(1))
    assert kind.bytes_read(2, 0.25) == pytest.approx(10e6 + 80e6 * by_hand)
    read = [kind.bytes_read(batch, 0.25) for batch in (1, 2, 4, 8, 64)]
    assert read == sorted(read)
    assert all(some < kind.bytes_read(batch) for some, batch in zip(read[1:], (2, 4, 8, 64), strict=True))
    # the more even, the nearer to independent choices
    assert kind.bytes_read(8, 1000.0) == pytest.approx(kind.bytes_read(8), rel=1e-3)


def test_prompts_of_mixtures_fill_tiles_and_latent_attention_has_its_price() -> None:
    mixture = LayerKind(
        weight_bytes=90e6,
        active_bytes=30e6,
        flops=1e6,
        kv_bytes_per_token=1,
        experts=16,
        experts_per_token=4,
        expert_bytes=80e6,
    )
    held = Stretch((mixture,), (2.0,))
    # 512 tokens ask all 16 experts, 128 to each: five more each are 3.9 % more
    assert held.prompt_flops(512, 1.5, 5.0) == pytest.approx(2 * 1e6 * 1.5 * 512 * (1 + 5 / 128))
    # one token asks four experts, each with a tile of its own
    assert held.prompt_flops(1, 1.5, 5.0) == pytest.approx(2 * 1e6 * 1.5 * (1 + 5))
    latent = Stretch((mixture.model_copy(update={"latent": True}),), (2.0,))
    assert latent.prompt_flops(512, 1.5, 5.0, 1.3) == pytest.approx(1.3 * held.prompt_flops(512, 1.5, 5.0))
    dense = Stretch((LayerKind(weight_bytes=3e7, active_bytes=3e7, flops=1e6, kv_bytes_per_token=1),), (2.0,))
    assert dense.prompt_flops(512, 1.5, 5.0, 1.3) == 2 * 1e6 * 512
