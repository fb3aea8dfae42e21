"""One loss in the middle of a reply: the number of attempts where chance has no part in it."""

from __future__ import annotations

import pytest

from simulator.scenario import Scenario
from simulator.swarm.loss import NEVER, predict_loss
from simulator.swarm_spec import LossSpec

LINK = {"delay": {"law": "constant", "value": "1 ms"}, "rate": "1 Gbit/s", "label": "measured"}
FAR = {**LINK, "delay": {"law": "constant", "value": "8 ms"}}
SPEED = {"decode_bandwidth": "20 GB/s", "prefill_flops": "1 Tflop/s"}
SPANS = {"anna": (0, 16), "ben": (16, 32), "spare": (16, 32)}


def swarm(**told: object) -> Scenario:
    devices = {name: {"memory": "16 GB", "speed": SPEED, "link": LINK} for name in ("laptop", "anna", "ben")}
    return Scenario.model_validate(
        {
            "name": "loss",
            "model": {"name": "Llama-3.1-8B", "quantisation": "4bit"},
            "engine": "petals",
            "devices": {**devices, "spare": {**devices["ben"], "link": FAR}},
            "placement": {"layers": {"laptop": 0, "anna": 16, "ben": 16}, "roles": {"laptop": "embedding"}},
            "workload": {"prompt_tokens": 16, "output_tokens": 60},
            "swarm": {"update_period": "5 s", "repairs": ["eof", "replay"], "patience": "20 s", **told},
        }
    )


@pytest.mark.parametrize(
    ("after_look_s", "attempts", "waited_s"),
    # the spare is taken at the first attempt behind the look that leaves the dead one out: 0, 1, 3, 7 s
    [(0.5, 4, 7), (2.5, 3, 3), (4.5, 2, 1)],
)
def test_the_next_look_decides(after_look_s: float, attempts: int, waited_s: float) -> None:
    found = predict_loss(swarm(), SPANS, LossSpec(server="ben", at=f"{after_look_s} s"), 20)
    assert found is not None
    assert (found.likeliest, found.is_determined) == (attempts, True)
    assert found.phases_s["waited_s"] == pytest.approx(waited_s, abs=0.1)
    assert found.recovery_s is not None
    assert found.recovery_s[1] == pytest.approx(sum(found.phases_s.values()), rel=0.1)


def test_without_a_spare_it_waits_for_who_comes_back() -> None:
    spans = {name: span for name, span in SPANS.items() if name != "spare"}
    scenario = swarm()
    without = scenario.model_copy(
        update={"devices": {name: one for name, one in scenario.devices.items() if name != "spare"}}
    )
    found = predict_loss(without, spans, LossSpec(server="ben", at="1 s", back_after="4 s"), 10)
    assert found is not None
    assert found.attempts == {4: 1.0}


def test_as_it_is_shipped_it_never_goes_on() -> None:
    found = predict_loss(swarm(repairs=[]), SPANS, LossSpec(server="ben", at="1 s"), 10)
    assert found is not None
    assert (dict(found.attempts), found.recovery_s) == ({NEVER: 1.0}, None)


def test_a_server_that_hangs_is_asked_in_vain_as_long_as_its_connection_passes_for_open() -> None:
    """Noticed after the time-out; the look behind that leaves it out, while its answer is waited for."""
    told = swarm(request_timeout="4 s", update_period="5 s")
    found = predict_loss(told, SPANS, LossSpec(server="ben", at="0.5 s", how="hang"), 20)
    assert found is not None
    assert found.likeliest == 2
    assert found.phases_s["waited_s"] == pytest.approx(4.0 + 1.0, abs=0.1)
