"""Cost equations against figures worked out by hand, and what must grow with what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.model.model import Model
from simulator.runtime.cost import crowding, decode_s, head_s, prefill_s, seconds_per_layer
from simulator.scenario import SpeedSpec
from tests.helpers import EXPERTS, SMALL, device, devices

LLAMA_70B = Model("70B", 80, 8192, 0.5e9, 0.5e9, 0, 0, 0.0, 0.6e9, 0.6e9, 4096.0, 1.7e9, 2.1e9, 16384.0)
LAPTOP = device(
    "laptop", speed=SpeedSpec(decode_bandwidth="50 GB/s", prefill_flops="2 TFLOPS", layer_overhead="100 us")
)
SIZES = st.integers(1, 80)


def test_decode_reads_weights_and_cache() -> None:
    """20 layers at 1000 tokens: 20 (0.5 GB + 4.096 MB) / 50 GB/s + 20 x 0.1 ms."""
    assert float(decode_s(LAPTOP, LLAMA_70B.average(20), 1000)) == pytest.approx(20 * 0.504096 / 50 + 0.002)


def test_decode_of_a_batch_is_bound_by_flops_at_last() -> None:
    """64 chats: 64 x 20 x 1.7 Gflop / 2 Tflop/s is more than 20 x 0.5 GB / 50 GB/s."""
    assert float(decode_s(LAPTOP, LLAMA_70B.average(20), 0, 64)) == pytest.approx(
        64 * 20 * 1.7e9 / 2e12 + 0.002
    )


def test_prefill_counts_causal_attention() -> None:
    """100 tokens after 50: 10 layers x (100 x 1.7 Gflop + 4 x 8192 x (100 x 50 + 100 x 100 / 2)) at 2 Tflop/s."""
    flops = 10 * (100 * 1.7e9 + 4 * 8192 * (100 * 50 + 5000))
    assert prefill_s(LAPTOP, LLAMA_70B.average(10), 100, 50) == pytest.approx(flops / 2e12 + 0.001)


def test_a_short_prompt_still_reads_the_weights() -> None:
    assert prefill_s(LAPTOP, LLAMA_70B.average(10), 1) == pytest.approx(10 * 0.5 / 50 + 0.001)


def test_chunks_cost_as_much_as_the_whole_where_flops_count() -> None:
    whole = prefill_s(LAPTOP, LLAMA_70B.average(10), 4096)
    parts = sum(prefill_s(LAPTOP, LLAMA_70B.average(10), 1024, start) for start in range(0, 4096, 1024))
    assert parts == pytest.approx(whole + 3 * 10 * 1e-4)


def test_head_and_empty_shards() -> None:
    assert head_s(LAPTOP, LLAMA_70B) == pytest.approx(0.6 / 50)
    assert float(decode_s(LAPTOP, LLAMA_70B.average(0), 9)) == prefill_s(LAPTOP, LLAMA_70B.average(0), 9) == 0


def test_background_work_and_further_chats_slow_a_device_down() -> None:
    """Half of a device gives half of its speed; a chat more at batch cost 0.5 adds half of one."""
    half = replace(LAPTOP, background_load=0.5)
    slower = seconds_per_layer(half, LLAMA_70B) / seconds_per_layer(LAPTOP, LLAMA_70B)
    assert slower == pytest.approx(2)
    rows = replace(LAPTOP, speed=LAPTOP.speed.model_copy(update={"batch_cost": 0.5}))
    assert crowding(rows, 3) == pytest.approx(2.0)


def test_a_token_reads_its_own_experts_and_a_batch_ever_more_of_them() -> None:
    """2 of 8 experts of 1.25 MB, beside 1.5 MB that are shared; 50 tokens touch all of them."""
    assert EXPERTS.average(1).bytes_read(1) == pytest.approx(4e6)
    assert EXPERTS.average(1).bytes_read(2) == pytest.approx(1.5e6 + 10e6 * (1 - 0.75**2))
    assert EXPERTS.average(1).bytes_read(50) == pytest.approx(11.5e6, rel=1e-5)
    assert SMALL.average(1).bytes_read(50) == SMALL.layer_bytes


@given(
    devices("any"),
    SIZES,
    SIZES,
    st.integers(0, 8000),
    st.integers(0, 8000),
    st.sampled_from([SMALL, EXPERTS]),
)
@settings(deadline=None)
def test_more_layers_context_or_chats_never_cost_less(any_device, a, b, c, d, model) -> None:
    few, many, short, long = min(a, b), max(a, b), min(c, d), max(c, d)
    assert decode_s(any_device, model.average(few), short) <= decode_s(any_device, model.average(many), short)
    assert decode_s(any_device, model.average(few), short) <= decode_s(any_device, model.average(few), long)
    assert decode_s(any_device, model.average(few), short, few) <= decode_s(
        any_device, model.average(few), short, many
    )
    assert prefill_s(any_device, model.average(few), short + 1) <= prefill_s(
        any_device, model.average(few), long + 1
    )
    assert prefill_s(any_device, model.average(few), 9, short) <= prefill_s(
        any_device, model.average(few), 9, long
    )
    assert head_s(any_device, model, few) <= head_s(any_device, model, many)


@given(devices("any"), SIZES, st.floats(1, 10), st.sampled_from([SMALL, EXPERTS]))
@settings(deadline=None)
def test_a_faster_device_never_costs_more(any_device, layers, factor, model) -> None:
    speed = any_device.speed
    for name in ("decode_bandwidth", "prefill_flops"):
        faster = replace(any_device, speed=speed.model_copy(update={name: getattr(speed, name) * factor}))
        assert decode_s(faster, model.average(layers), 100) <= decode_s(
            any_device, model.average(layers), 100
        )
        assert prefill_s(faster, model.average(layers), 100) <= prefill_s(
            any_device, model.average(layers), 100
        )
        assert head_s(faster, model) <= head_s(any_device, model)


@given(devices("any"), SIZES, st.integers(1, 9))
@settings(deadline=None)
def test_cost_of_many_contexts_is_the_cost_of_each(any_device, layers, batch) -> None:
    contexts = np.array([0, 10, 4000])
    together = decode_s(any_device, SMALL.average(layers), contexts, batch)
    assert together.tolist() == [
        float(decode_s(any_device, SMALL.average(layers), c, batch)) for c in contexts
    ]
