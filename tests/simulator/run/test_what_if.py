"""What-ifs that could change nothing are not offered."""

import pytest

from simulator.run.predict import predict
from simulator.scenario import Scenario

LAPTOP = {"kind": "MacBook Air M4", "memory": "32 GB", "link": {"kind": "wifi6"}}


def changes(devices, **more):
    scenario = Scenario.model_validate(
        {"name": "alone", "model": "Llama-3.1-8B", "devices": devices, "replications": 5, **more}
    )
    return [what_if.change for what_if in predict(scenario).what_ifs]


@pytest.mark.parametrize("engine", ["exo", "exo-legacy", "llama-rpc"])
def test_one_machine_alone_is_told_nothing_about_wires_or_splits(engine):
    assert changes({"mac": LAPTOP}, engine=engine) == []


def test_two_machines_on_wifi_are():
    found = changes({"mac": LAPTOP, "other": LAPTOP})
    assert "wire every device (1 Gbit/s Ethernet)" in found
