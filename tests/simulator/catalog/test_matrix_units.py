"""Prompts run on matrix units where a chip has them: whose peak, what share of it, how sure."""

from math import hypot

import pytest

from simulator.catalog import decode_speed, device, platform, prefill_speed, stored_as
from simulator.catalog.speed import matrix_peak, unpacking_share


@pytest.mark.parametrize("runtime", ["llama.cpp", "mlx"])
def test_prompts_run_on_matrix_units_and_decoding_on_shaders(runtime):
    """An M5 reads prompts 2 to 4 times as fast for its shaders' flop/s as an M4, and unpacks weights no faster."""
    on = platform("apple-metal", runtime)
    m4, m5 = device("M4 Max"), device("M5 Max Mac 40c")
    gain = {
        name: prefill_speed(facts, on).flop_per_s / facts.flop_per_s
        for name, facts in (("m4", m4), ("m5", m5))
    }
    assert gain["m4"] == pytest.approx(on.prefill_efficiency)
    assert 2 < gain["m5"] / gain["m4"] < matrix_peak("apple-metal", m5.chip) == 4
    assert prefill_speed(m5, on).log_sd == on.prefill_log_sd
    nested = stored_as("any", "Q4_K_M", "GGUF")
    lost = m5.memory_bytes_per_s * on.decode_efficiency / decode_speed(m5, on, nested).bytes_per_s - 1
    share = unpacking_share("apple-metal", runtime, m5.chip)
    flops = share * on.unpacking_nested * nested.flops_per_byte / m5.flop_per_s
    assert lost == pytest.approx(flops * m5.memory_bytes_per_s * on.decode_efficiency)


def test_matrix_units_that_nobody_measured_with_a_runtime_are_less_sure():
    on = platform("apple-metal").model_copy(update={"runtime": "another"})
    known, unknown = (prefill_speed(device(name), on) for name in ("M4 Max", "M5 Max Mac 40c"))
    assert known.log_sd == on.prefill_log_sd
    assert unknown.log_sd == pytest.approx(hypot(on.prefill_log_sd, 0.3))


def test_cards_have_the_peak_of_their_tensor_cores_by_generation():
    """Per shader and clock Turing has twice the tensor flops of Ampere and later, at GeForce's rate of adding in fp32."""
    # shaders and boost clock (GHz) of NVIDIA's white papers, flops of a shader and clock
    for name, shaders, clock, each in (
        ("RTX 2060 SUPER", 2176, 1.65, 8),
        ("RTX 2080 Ti", 4352, 1.545, 8),
        ("RTX 3090", 10496, 1.695, 4),
        ("RTX 4090", 16384, 2.52, 4),
        ("RTX 5060 Laptop", 3328, (1.455 * 2.497) ** 0.5, 4),
    ):
        assert device(name).flop_per_s == pytest.approx(shaders * clock * each * 1e9, rel=0.01), name
