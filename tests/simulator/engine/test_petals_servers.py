"""What weights cost a Petals server: nf4 and LLM.int8 of bitsandbytes on cards, 16 bits elsewhere; its own overhead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.complete import complete
from simulator.engine.petals import ENGINE
from simulator.engine.petals.flow import flow_facts
from simulator.errors import PlacementError
from simulator.library import load
from simulator.model.model import Model
from simulator.prepare import Prepared, ground, prepare
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from tests.helpers import SMALL, device

NF4, INT8, PLAIN = (replace(SMALL, quantisation=bits) for bits in ("nf4", "LLM.int8", "bf16"))
CARD = device("card", platform="nvidia-cuda")


def rooms(quantisation: str | None = None, kind: str = "RTX 3090", model: str = "Llama-2-70B") -> Scenario:
    """Three servers of one kind on a fast network, and a client that holds no blocks."""
    link = {"delay": {"law": "constant", "value": "0 s"}, "rate": "10 Gbit/s", "via": "home"}
    servers = {f"s{at}": {"kind": kind, "link": link} for at in range(3)}
    client = {"laptop": {"kind": "MacBook Air M4", "memory": "32 GB", "link": link}}
    return load("petals_or_exo").replace(
        model={"name": model, "quantisation": quantisation},
        devices=client | servers,
        placement={"rule": "manual", "layers": {"laptop": 0, "s0": 27, "s1": 27, "s2": 26}},
    )


def inter_token_s(prepared: Prepared) -> float:
    times_s = token_times_s(prepared.job, 200)[0]
    return float((times_s[-1] - times_s[0]).mean() / (len(times_s) - 1))


@pytest.mark.parametrize(
    ("said", "known"),
    [(None, "nf4"), ("4bit", "nf4"), ("NF4", "nf4"), ("int8", "LLM.int8"), ("bf16", "bf16")],
)
def test_a_quantisation_is_what_petals_makes_of_its_name(said: str | None, known: str) -> None:
    assert complete(rooms(said)).model.quantisation == known


def test_servers_without_a_card_run_16_bits() -> None:
    """bitsandbytes needs CUDA (or ROCm); the client's own platform decides nothing: nobody quantises the tables."""
    assert complete(rooms(kind="Mac Studio M2 Ultra")).model.quantisation == "bf16"
    with pytest.raises(PlacementError, match="need 1[34]. GB"):
        prepare(load("petals_or_exo").replace(model={"name": "Llama-3.3-70B"}))
    warnings = " ".join(prepare(load("petals_or_exo")).warnings)
    assert "petals ran nf4 models on graphics cards alone" in warnings


def test_tables_stay_at_16_bits_and_blocks_take_their_own() -> None:
    nf4, int8, plain = (ground(rooms(bits)).model for bits in ("nf4", "int8", "bf16"))
    assert nf4.head_bytes == int8.head_bytes == plain.head_bytes == pytest.approx(2 * 32000 * 8192, rel=0.01)
    # norms stay at 16 bits too; 4.127 bits are 4 and scales of 64 values, quantised once more
    assert plain.layer_bytes / nf4.layer_bytes == pytest.approx(16 / 4.127, rel=0.01)
    assert plain.layer_bytes / int8.layer_bytes == pytest.approx(2, rel=0.01)


def test_launches_are_the_most_of_a_block_on_a_fast_card() -> None:
    """Blocks/s of cards that compute faster than torch launches: 751 in nf4 (recorded), and 4.8 ms with LLM.int8."""
    flow = flow_facts()
    assert [flow.launching_s(CARD, one) for one in (NF4, INT8, PLAIN)] == [1.33e-3, 4.8e-3, 1.03e-3]
    assert flow.launching_s(device("pi"), NF4) == 0.7e-3
    apart_s = inter_token_s(prepare(rooms("int8"))) - inter_token_s(prepare(rooms("nf4")))
    assert apart_s == pytest.approx(80 * (4.8e-3 - 1.33e-3), rel=0.15)


def test_kernels_of_older_cards_reach_less() -> None:
    """4-bit kernels against 16 bits at one token: 4.0, 3.4 and 2.2 times on Ada, Ampere and Turing."""
    share = {
        chip: ENGINE.facts.share_on("nvidia-cuda", chip, "nf4")[0]
        for chip in (
            "RTX 4090",
            "RTX 6000 Ada",
            "RTX 3090",
            "RTX A5000",
            "A100 SXM 80GB",
            "Tesla T4",
            "RTX 2080 Ti",
        )
    }
    assert share["RTX 4090"] == share["RTX 6000 Ada"] == 0.8
    assert {share[name] for name in ("RTX 3090", "RTX A5000", "A100 SXM 80GB")} == {0.68}
    assert share["Tesla T4"] == share["RTX 2080 Ti"] == 0.44
    assert ENGINE.facts.share_on("nvidia-cuda", "Tesla T4", "LLM.int8")[0] == 0.8
    assert ENGINE.facts.share_on("x86-cpu", "i5", "nf4") == (1.0, 0.0)


@pytest.mark.parametrize(
    ("model", "tokens", "tasks"),
    [(NF4, 1, 1), (NF4, 2, 8), (INT8, 128, 1), (INT8, 129, 8), (PLAIN, 128, 1), (SMALL, 129, 8)],
)
def test_a_prompt_in_nf4_is_a_task_for_each_block_from_two_tokens_on(
    model: Model, tokens: int, tasks: int
) -> None:
    assert flow_facts().tasks(model, 8, tokens) == tasks


def test_unpacking_makes_a_short_prompt_long() -> None:
    """Published for 80 blocks on one unnamed card: 0.13 s for a token, 0.50 for 16, 0.55 for 64."""
    flow, model = flow_facts(), prepare(rooms("nf4")).job.model
    card = prepare(rooms("nf4")).job.ring[1]
    assert flow.unpacking_s(card, model, 80, 1) == 0
    assert flow.unpacking_s(card, model, 80, 16) == flow.unpacking_s(card, model, 80, 64)
    assert 0.2 < flow.unpacking_s(card, model, 80, 16) < 0.8
    assert flow.unpacking_s(card, replace(model, quantisation="bf16"), 80, 16) == 0


def test_a_card_adds_to_each_step_what_its_authors_count() -> None:
    """18 ms for each server and step (sequence_manager.py:223), of which 5.2 were recorded without a card."""
    facts, flow = ENGINE.facts, flow_facts()
    whole_s = facts.step_overhead_s + 2 * facts.hop_overhead_s + flow.card_s(CARD)
    assert whole_s == pytest.approx(0.018, abs=1e-4)
    assert flow.card_s(device("laptop", platform="x86-cpu")) == 0
