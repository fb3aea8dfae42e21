"""Tensor parallelism against closed forms: what a token costs where nothing is random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.engine.exo.ring import NOTICE_BYTES
from simulator.runtime.collective import MESH_SMALL_BYTES, Algorithm, Operation, alone_s, rounds
from simulator.runtime.cost import decode_s, head_s
from tests.helpers import SMALL, SPEED, by_recursion, device, job, link

DELAY_S, BYTES_PER_S = 0.001, 1e8


def gaps_s(**wanted: object) -> np.ndarray:
    """Inter-token times after the first, whose looks other tokens do not have."""
    a_job = job(**wanted)  # type: ignore[arg-type]
    return np.diff(by_recursion(a_job, 1)[0, :, 0])[1:]


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
@pytest.mark.parametrize("size_bytes", [4.0, 16e3, 1e6])
def test_closed_forms(ranks: int, size_bytes: float) -> None:
    """T ring = 2 (N - 1) (D + S / (N beta)); T mesh = D + (N - 1) S / beta, above 32 KiB in two halves."""
    others = ranks - 1

    def seconds(operation: Operation, algorithm: Algorithm) -> float:
        return alone_s(rounds(operation, algorithm, ranks, size_bytes), DELAY_S, 1 / BYTES_PER_S)

    wire_s = size_bytes / BYTES_PER_S
    assert seconds("all_reduce", "ring") == pytest.approx(2 * others * (DELAY_S + wire_s / ranks))
    assert seconds("all_gather", "ring") == pytest.approx(others * (DELAY_S + wire_s))
    assert seconds("all_reduce", "exchange") == pytest.approx(DELAY_S + others * wire_s)
    assert seconds("all_to_all", "mesh") == pytest.approx(DELAY_S + others * wire_s / ranks)
    halves = 2 * (DELAY_S + others * wire_s / ranks)
    small = ranks == 2 or size_bytes <= MESH_SMALL_BYTES
    assert seconds("all_reduce", "mesh") == pytest.approx(DELAY_S + others * wire_s if small else halves)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("algorithm", ["ring", "mesh", "exchange"])
def test_a_token_is_its_parts_of_layers_and_two_collectives_each(ranks: int, algorithm: Algorithm) -> None:
    """On equal ranks: layers / N, the whole head, 2 L all-reduces, and the notice."""
    side = link(DELAY_S / 2, rate=BYTES_PER_S)
    devices = [device(f"d{i}", link=side) for i in range(ranks)]
    found = gaps_s(devices=devices, engine_name="exo-tensor", algorithm=algorithm)
    part = SMALL.stretch(0, SMALL.layers).part(ranks)
    compute_s = float(decode_s(devices[0], part, 0.0)) + head_s(devices[0], SMALL)
    reduce_s = alone_s(
        rounds("all_reduce", algorithm, ranks, SMALL.activation_bytes), DELAY_S, 1 / BYTES_PER_S
    )
    notice_s = alone_s(rounds("all_gather", algorithm, ranks, NOTICE_BYTES), DELAY_S, 1 / BYTES_PER_S)
    assert found == pytest.approx(compute_s + 2 * SMALL.layers * reduce_s + notice_s, rel=1e-9)


def test_the_slowest_rank_paces_every_layer() -> None:
    """Equal parts whatever the devices: one at half speed costs what two of its kind would."""
    slow = device("d1", speed=SPEED.model_copy(update={"decode_bandwidth": SPEED.decode_bandwidth / 2}))
    slow_pair = [replace(slow, name="d0"), slow]
    mixed = gaps_s(devices=[device("d0"), slow], engine_name="exo-tensor")
    assert mixed == pytest.approx(gaps_s(devices=slow_pair, engine_name="exo-tensor"), rel=1e-9)
    assert mixed[0] > 1.9 * gaps_s(devices=[device("d0"), device("d1")], engine_name="exo-tensor")[0]


def test_what_a_layer_costs_beside_its_arithmetic_is_not_divided() -> None:
    launching = SPEED.model_copy(update={"layer_overhead": 0.002})
    pair = [device(f"d{i}", speed=launching) for i in range(2)]
    plain = gaps_s(devices=[device("d0"), device("d1")], engine_name="exo-tensor")
    assert gaps_s(devices=pair, engine_name="exo-tensor") - plain == pytest.approx(0.002 * SMALL.layers)


def test_kv_is_divided_and_a_latent_cache_is_not() -> None:
    kind = SMALL.kinds[0]
    assert kind.part(4).kv_bytes_per_token == kind.kv_bytes_per_token / 4
    latent = kind.model_copy(update={"latent": True})
    assert latent.part(4).kv_bytes_per_token == kind.kv_bytes_per_token
    assert latent.part(4).weight_bytes == kind.weight_bytes / 4


def test_six_forward_passes_of_collectives_come_before_the_first_token() -> None:
    """A chunk, two single tokens, two that end the prompt and one ahead (recorded: about six)."""
    pair = [device(f"d{i}", link=link(0.001)) for i in range(2)]
    near = [device(f"d{i}") for i in range(2)]
    asked = {"engine_name": "exo-tensor", "prompt_tokens": 30}
    first_s = [by_recursion(job(devices, **asked), 1)[0, 0, 0] for devices in (pair, near)]  # type: ignore[arg-type]
    rounds_of_a_pass = 2 * 2 * SMALL.layers
    # a round trip's worth of small rounds comes on top
    assert (first_s[0] - first_s[1]) / 0.002 / rounds_of_a_pass == pytest.approx(6.2, abs=0.2)
