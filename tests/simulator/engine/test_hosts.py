"""Devices of several processors: closed forms, limits, memory, refusals, and what others measured."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.complete import complete
from simulator.errors import PlacementError, ScenarioError, SimulatorError
from simulator.plan.place.search import search
from simulator.prepare import Prepared, prepare
from simulator.run.evaluate import scenario_rates
from simulator.run.predict import predict
from simulator.runtime.cost import decode_parts, decode_s, head_s
from simulator.runtime.portions import Divided
from simulator.scenario import Scenario

LAYER, HEAD, HIDDEN = 100e6, 50e6, 1000
CARD = {
    "platform": "nvidia-cuda",
    "memory": "2.5 GB",
    "speed": {"decode_bandwidth": "100 GB/s", "prefill_flops": "50 TFLOPS"},
}
CPU = {
    "platform": "x86-cpu",
    "memory": "64 GB",
    "speed": {"decode_bandwidth": "10 GB/s", "prefill_flops": "1 TFLOPS"},
}
BUS = {"bus_rate": "10 GB/s", "bus_delay": "0.1 ms"}
MODEL = {
    "name": "m",
    "layers": 30,
    "hidden": HIDDEN,
    "layer_bytes": "100 MB",
    "head_bytes": "50 MB",
    "embedding_bytes": "50 MB",
    "kv_bytes_per_token_per_layer": "1 kB",
}
EXPERTS = MODEL | {
    "active_layer_bytes": "30 MB",
    "experts": 8,
    "experts_per_token": 2,
    "expert_layer_bytes": "80 MB",
}


def scenario(processors: dict[str, Any], offload: Any = None, model: Any = MODEL, **more: Any) -> Scenario:
    """One device of these processors, without noise or doubt."""
    told = {
        key: ({**one, **BUS} if one.get("platform") == "nvidia-cuda" else one)
        for key, one in processors.items()
    }
    tower = {"processors": told} | ({} if offload is None else {"offload": offload})
    return Scenario.model_validate(
        {
            "name": "t",
            "model": model,
            "engine": {"name": "llama-rpc", "memory_overhead": "0.3 GB", "step_overhead": "0 ms"},
            "devices": {"tower": tower | {"link": {"kind": "ethernet_1g"}}},
            "workload": {"prompt_tokens": 8, "output_tokens": 16, "runs": 1},
            "replications": 1,
        }
        | more
    )


def divided(asked: Scenario) -> tuple[Prepared, Divided]:
    """The prepared scenario and what each processor of its tower holds."""
    ready = prepare(asked)
    return ready, ready.job.divided["tower"]


def held(found: Divided) -> dict[str, tuple[int, int, int, bool]]:
    """(whole layers, without experts, experts alone, head) by processor."""
    return {
        part.processor.device.name.split("/")[1]: (
            part.whole_layers,
            part.layers_without_experts,
            part.expert_layers,
            part.has_head,
        )
        for part in found.portions
    }


def test_a_split_step_is_the_sum_of_its_processors_and_hand_overs() -> None:
    ready, found = divided(scenario({"gpu": CARD, "cpu": CPU}, {"gpu_layers": 11}))
    assert held(found) == {"cpu": (20, 0, 0, False), "gpu": (10, 0, 0, True)}
    device, model = ready.job.ring[0], ready.job.model
    crossing_s = 1e-4 + 4 * HIDDEN / 10e9
    by_hand_s = 20 * LAYER / 10e9 + 10 * LAYER / 100e9 + crossing_s
    assert float(decode_s(device, found, 0.0)) == pytest.approx(by_hand_s, rel=1e-12)
    head = found.used[-1].processor.device
    assert head_s(head, model) == pytest.approx(HEAD / 100e9)


def test_experts_in_ram_cost_two_crossings_a_layer() -> None:
    ready, found = divided(scenario({"gpu": CARD, "cpu": CPU}, {"cpu_moe_layers": 12}, EXPERTS))
    assert held(found) == {"cpu": (0, 0, 12, False), "gpu": (18, 12, 0, True)}
    crossing_s = 1e-4 + 4 * HIDDEN / 10e9
    on_card = 18 * 30e6 + 12 * (30e6 - 20e6)  # two of eight experts are 20 MB of the 30 MB that a token reads
    by_hand_s = 12 * 20e6 / 10e9 + on_card / 100e9 + 24 * crossing_s
    assert float(decode_s(ready.job.ring[0], found, 0.0)) == pytest.approx(by_hand_s, rel=1e-12)


def test_cards_divide_layers_as_tensor_split_says_and_the_head_counts_as_one() -> None:
    roomy = CARD | {"memory": "40 GB"}
    _, even = divided(scenario({"a": roomy, "b": roomy}))
    assert held(even) == {"a": (16, 0, 0, False), "b": (14, 0, 0, True)}
    _, told = divided(scenario({"a": roomy, "b": roomy}, {"tensor_split": [3, 1]}))
    assert held(told) == {"a": (24, 0, 0, False), "b": (6, 0, 0, True)}
    assert [part.crossings for part in told.portions] == [1, 1]  # out of one bus, into the other


def test_one_card_in_a_tower_is_the_card_as_a_device() -> None:
    kind, plain = "RTX 3090 desktop", {"name": "Llama-3-8B", "quantisation": "Q4_K_M"}
    tower = scenario({"gpu": {"kind": kind}}, model=plain, replications=20)
    told = tower.model_dump(mode="json", exclude_unset=True)
    told["devices"] = {"tower": {"kind": kind, "link": {"kind": "ethernet_1g"}}}
    alone = Scenario.model_validate(told)
    assert np.median(scenario_rates(tower)) == pytest.approx(
        float(np.median(scenario_rates(alone))), rel=0.05
    )
    parts = decode_parts(prepare(tower).job.ring[0], prepare(tower).job.held(0), 100.0)
    assert float(parts[0][1]) == pytest.approx(
        float(decode_s(prepare(alone).job.ring[0], prepare(alone).job.held(0), 100.0))
    )


def test_without_offload_as_much_is_on_the_cards_as_fits() -> None:
    ready, dense = divided(scenario({"gpu": CARD, "cpu": CPU}))
    assert held(dense)["gpu"] == (21, 0, 0, True)  # 0.3 + 0.05 GB of 2.5, and 100 MB each with 24 kB of cache
    assert any("as much as fits" in doubt for doubt in ready.warnings)
    _, mixture = divided(scenario({"gpu": CARD, "cpu": CPU}, model=EXPERTS))
    # all attention stays on the card, and experts of as few layers as needed do not
    assert held(mixture) == {"cpu": (0, 0, 11, False), "gpu": (19, 11, 0, True)}


def test_both_evaluators_agree_on_a_tower() -> None:
    asked = scenario({"gpu": CARD, "cpu": CPU}, {"gpu_layers": 11}, replications=3)
    rates = [predict(asked, evaluator=one, with_what_ifs=False).times_s for one in ("recursion", "simpy")]
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(0, 31),
    experts=st.integers(0, 30),
    split=st.lists(st.integers(1, 9), min_size=2, max_size=2),
)
def test_all_layers_are_somewhere_once(layers: int, experts: int, split: list[int]) -> None:
    roomy = CARD | {"memory": "40 GB"}
    told = {"gpu_layers": layers, "cpu_moe_layers": experts, "tensor_split": split}
    ready, found = divided(scenario({"a": roomy, "b": roomy, "cpu": CPU}, told, EXPERTS))
    by = held(found)
    assert sum(whole + rest for whole, rest, _, _ in by.values()) == 30
    assert sum(rest for _, rest, _, _ in by.values()) == by["cpu"][2]
    assert sum(part.held.weight_bytes for part in found.portions) == pytest.approx(30 * LAYER)
    assert sum(part.has_head for part in found.portions) == 1
    assert found.used[-1].has_head
    assert ready.memory[0].fits


REFUSED: list[tuple[dict[str, Any], Any, Any, str, str]] = [
    ({"gpu": CARD, "cpu": CPU}, {"gpu_layers": 30}, MODEL, "tower/gpu: 29 layers", "offload: gpu_layers"),
    (
        {"gpu": CARD, "cpu": CPU},
        {"tensor_split": [1, 2]},
        MODEL,
        "2 shares for 1 cards (gpu)",
        "give one for each",
    ),
    ({"gpu": CARD}, {"gpu_layers": 3}, MODEL, "devices.tower.offload.gpu_layers", "add it to processors"),
    ({"cpu": CPU}, {"gpu_layers": 3}, MODEL, "no processor is a card", "leave it out"),
    ({"gpu": CARD, "cpu": CPU}, {"cpu_moe_layers": 3}, MODEL, "3 layers' experts", "leave it out"),
    ({"a": CPU, "b": CPU}, None, MODEL, "a and b are host processors", "all sockets"),
    ({"mac": {"kind": "Mac mini M4 Pro"}}, None, MODEL, "shares its memory", "the device's own kind"),
    ({"gpu": CARD, "cpu": {**CPU, "bus": "pcie4_x16"}}, None, MODEL, "processors.cpu.bus", "of each card"),
    ({"gpu": {"kind": "RTX 3090 desktop", "bus": "pcie9"}, "cpu": CPU}, None, MODEL, "pcie9", "pcie"),
    ({"gpu": {"memory": "8 GB"}}, None, MODEL, "processors.gpu", "sim catalog devices"),
]


@pytest.mark.parametrize(
    ("processors", "offload", "model", "what", "way_out"), REFUSED, ids=range(len(REFUSED))
)
def test_one_wrong_thing_is_told_with_the_way_out(
    processors: dict[str, Any], offload: Any, model: Any, what: str, way_out: str
) -> None:
    with pytest.raises(SimulatorError) as caught:
        prepare(scenario(processors, offload, model))
    assert what in str(caught.value)
    assert way_out in str(caught.value)


def test_a_card_does_not_page_and_ram_does() -> None:
    small = CPU | {"memory": "1 GB"}
    asked = scenario({"gpu": CARD, "cpu": small}, {"gpu_layers": 11})
    device = asked.devices["tower"].model_copy(update={"allow_paging": True})
    ready = prepare(asked.model_copy(update={"devices": {"tower": device}}))
    assert any("read from its disk again" in doubt for doubt in ready.warnings)
    full = device.model_copy(
        update={"offload": device.offload and device.offload.model_copy(update={"gpu_layers": 30})}
    )
    with pytest.raises(PlacementError, match="tower/gpu: 29 layers"):
        prepare(asked.model_copy(update={"devices": {"tower": full}}))


def test_an_engine_of_one_processor_says_so_and_a_search_refuses() -> None:
    asked = scenario({"gpu": CARD | {"memory": "40 GB"}, "cpu": CPU})
    on_exo = asked.model_copy(update={"engine": asked.engine.model_copy(update={"name": "exo"})})
    ready = prepare(on_exo)
    assert not ready.job.divided
    assert any(
        "exo computes on one processor of a device, gpu; cpu stand idle" in doubt for doubt in ready.warnings
    )
    with pytest.raises(PlacementError, match="placements with tower cannot be searched"):
        search(asked)


def test_what_belongs_to_a_processor_is_refused_beside_processors() -> None:
    with pytest.raises((ScenarioError, ValueError), match="memory beside processors"):
        Scenario.model_validate(
            {
                "name": "t",
                "model": MODEL,
                "devices": {"tower": {"memory": "8 GB", "processors": {"cpu": CPU}}},
            }
        )


def test_a_complete_tower_completes_to_itself() -> None:
    once = complete(scenario({"gpu": {"kind": "RTX 3090 desktop"}, "cpu": CPU}))
    assert complete(once) == once


ROWS = Path(__file__).parents[2] / "data" / "hosts_measured.csv"
MEASURED = list(csv.DictReader(ROWS.read_text(encoding="utf-8").splitlines()))


def measured_scenario(row: dict[str, str]) -> Scenario:
    """A published set-up as its row tells it."""
    names = [
        name
        for part in row["gpus"].split(";")
        for kind, _, n in [part.partition(" x")]
        for name in [kind] * int(n or 1)
    ]
    processors: dict[str, Any] = {
        f"gpu{i}": {"kind": kind, "bus": row["bus"]} for i, kind in enumerate(names)
    }
    if row["cpu_gb_per_s"]:  # a chip that the catalogue lacks: its platform's share of what was measured
        processors["cpu"] = {
            "platform": "x86-cpu",
            "memory": f"{row['memory_gb']} GB",
            "speed": {
                "decode_bandwidth": f"{0.5863 * float(row['cpu_gb_per_s']):.1f} GB/s",
                "prefill_flops": "0.6 TFLOPS",
                "layer_overhead": "0.01 ms",
                "context_cost": 1.56,
                "mixture_cost": 1.2,
                "decode_spread": 0.27,
                "prefill_spread": 0.65,
            },
        }
    elif row["cpu"]:
        processors["cpu"] = {"kind": row["cpu"], "memory": f"{row['memory_gb']} GB"}
    offload = {key: int(row[key]) for key in ("gpu_layers", "cpu_moe_layers") if row[key]}
    asked = scenario(processors, offload or None, {"name": row["model"], "quantisation": row["quantisation"]})
    told = asked.model_dump(mode="json", exclude_unset=True)
    told |= {"engine": "llama-rpc", "replications": 100}
    told["workload"] = {
        "prompt_tokens": int(row["prompt_tokens"]),
        "output_tokens": int(row["output_tokens"]),
        "runs": 1,
    }
    return Scenario.model_validate(told)


def test_published_towers_are_met() -> None:
    """Fifteen set-ups that others measured: VRAM and RAM, several cards, experts in RAM."""
    errors, inside = [], 0
    for row in MEASURED:
        rates = scenario_rates(measured_scenario(row))
        low, median, high = np.quantile(rates, [0.05, 0.5, 0.95])
        errors.append(abs(median / float(row["tokens_per_s"]) - 1))
        inside += low <= float(row["tokens_per_s"]) <= high
    assert np.median(errors) <= 0.15
    assert max(errors) <= 0.45
    assert inside >= 0.85 * len(MEASURED)
