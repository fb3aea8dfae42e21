"""What knows devices of one processor alone refuses a tower, and what the refusal says to write is taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibrate.applied import apply
from calibrate.calibration import load_calibration
from calibrate.forward import parameter_names
from live.local.plan import plan as local_plan
from simulator.churn.study import Study
from simulator.errors import CatalogError, ScenarioError
from simulator.plan.buy.cost import cluster_cost
from simulator.plan.buy.money import Money
from simulator.plan.buy.plan import plan
from simulator.plan.buy.prices import PriceBook
from simulator.run.predict import predict
from simulator.scenario import Scenario

RESULTS = Path(__file__).parents[1] / "results"
TOWER = {
    "processors": {
        "cpu": {"kind": "Ryzen 9 9950X CPU desktop", "memory": "64 GB"},
        "gpu": {"kind": "RTX 3090 desktop", "bus": "pcie4_x16"},
    }
}


def two(tower: dict[str, Any]) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "two",
            "model": {"name": "Llama-3.2-1B", "quantisation": "Q4_K_M"},
            "engine": "llama.cpp",
            "devices": {"laptop": {"kind": "MacBook Air M4", "memory": "16 GB"}, "tower": tower},
            "workload": {"prompt_tokens": 16, "output_tokens": 8, "runs": 1},
            "replications": 4,
        }
    )


def on_the_local_cluster(scenario: Scenario) -> object:
    """Planned up to where it asks for the file of a model that nobody has here."""
    try:
        return local_plan(scenario)
    except ScenarioError:
        raise
    except Exception as error:
        return error


REFUSING: dict[str, Callable[[Scenario], object]] = {
    "plan": lambda scenario: plan(
        scenario, Money(amount=1, currency="EUR"), own=list(scenario.devices), allow=["network"]
    ),
    "dropout": lambda scenario: Study(scenario, replications=4),
    "calibration": lambda scenario: apply(load_calibration(RESULTS / "local/calibration.yaml"), scenario),
    "fit": lambda scenario: parameter_names([scenario]),
    "local cluster": on_the_local_cluster,
}


@pytest.mark.parametrize("offload", [None, {"gpu_layers": 99}], ids=["whole", "offload"])
@pytest.mark.parametrize("what", REFUSING)
def test_the_main_processor_in_place_of_several_is_taken(what: str, offload: Any) -> None:
    with pytest.raises(ScenarioError, match=r"devices\.tower\.processors: .* one processor alone") as refused:
        REFUSING[what](two(TOWER if offload is None else TOWER | {"offload": offload}))
    advice = re.search(r"write `kind: ([^`]+)` in place of it( and offload)?", str(refused.value))
    assert advice is not None, refused.value
    assert bool(advice[2]) == (offload is not None)
    REFUSING[what](two({"kind": advice[1]}))


def test_a_tower_without_a_kind_is_told_what_to_write() -> None:
    cpu = {
        "memory": "64 GB",
        "speed": {"decode_bandwidth": "50 GB/s", "prefill_flops": "1 TFLOPS"},
        "platform": "x86-cpu",
    }
    with pytest.raises(
        ScenarioError, match="platform, memory and speed of its main processor, cpu"
    ) as refused:
        Study(two({"processors": {"cpu": cpu}}))
    assert "in place of it" in str(refused.value)
    Study(two(cpu | {"link": {"kind": "ethernet_1g"}}), replications=4)


def test_a_tower_has_a_cost_when_it_is_owned() -> None:
    """Its two kinds were looked up as one name that no catalogue has."""
    found, book = predict(two(TOWER), with_what_ifs=False), PriceBook("EUR", None)
    with pytest.raises(CatalogError, match=r"as one thing with a price; .*--own tower"):
        cluster_cost(found.scenario, book, prediction=found)
    assert cluster_cost(found.scenario, book, prediction=found, price=900.0).price == 900
    made = cluster_cost(found.scenario, book, prediction=found, own=("tower",))
    assert [device.label for device in made.power.devices if device.device == "tower"] == ["assumed"]
