"""EXO's model cards: each is a model of the catalogue in its own quantisation, or says what is missing."""

import json
import random
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from live.errors import LiveError
from live.exo.cards import model_of_card
from live.exo.scenario import scenario_of
from live.exo.state import parse_state
from sim.main import app
from simulator.catalog import model
from simulator.complete import complete
from simulator.scenario import Scenario
from tests.live.exo.test_scenario import macs

# the text cards of exo-explore/exo resources/inference_model_cards at commit b5375f8c (2026-06-22)
LINES = (Path(__file__).parents[2] / "data/exo/model_cards.jsonl").read_text(encoding="utf-8").splitlines()
CARDS = {card["model_id"]: card for card in map(json.loads, LINES)}
# whose size is not in bytes, or is mixed, by more than what the units explain
ODD = ("Kimi-K2-Thinking", "Coder-480B-A35B-Instruct-8bit")


def test_all_of_exos_text_cards_are_here():
    assert len(CARDS) == 123


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_every_card_is_a_model_of_the_catalogue(card):
    notes = []
    spec = model_of_card(card, notes)
    facts = model(spec.name, spec.quantisation, "MLX")
    assert facts.hidden == card["hidden_size"]
    assert abs(facts.layers - card["n_layers"]) <= 1  # EXO counts one too few in two families
    assert facts.total_bytes == pytest.approx(
        card["storage_size"]["in_bytes"], rel=0.15 if card["model_id"].endswith(ODD) else 0.131
    )
    assert (facts.experts > 0) == ("-A" in card["model_id"] or facts.params_active < 0.5 * facts.params_total)


def test_the_catalogue_lists_a_card_by_its_id():
    result = CliRunner().invoke(app, ["catalog", "models", "--search", "moonshotai/Kimi-K2.6", "--json"])
    assert [entry["name"] for entry in json.loads(result.output)] == ["Kimi-K2.5"]
    assert CliRunner().invoke(app, ["catalog", "models", "--search", "me/unheard-of"]).exit_code != 0


@pytest.mark.parametrize(
    ("card_id", "name", "quantisation"),
    [
        ("mlx-community/Qwen3.5-122B-A10B-4bit", "Qwen3.5-122B-A10B", "4bit"),
        ("mlx-community/llama-3.3-70b-instruct-fp16", "Llama-3.3-70B", "bf16"),
        ("mlx-community/GLM-4.7-8bit-gs32", "GLM-4.7", "8bit-gs32"),
        ("mlx-community/DeepSeek-V3.2-8bit", "DeepSeek-V3.2", "8bit"),
        ("mlx-community/DeepSeek-V4-Flash", "DeepSeek-V4-Flash", "MXFP4-Q8"),
        ("mlx-community/GLM-5-MXFP4-Q8", "GLM-5", "MXFP4-Q8"),
        ("moonshotai/Kimi-K2.6", "Kimi-K2.5", "4bit-bf16"),
    ],
)
def test_mixtures_stay_mixtures_and_16_bits_stay_16(card_id, name, quantisation):
    spec = model_of_card(CARDS[card_id], [])
    assert (spec.name, spec.quantisation) == (name, quantisation)


def test_a_mixture_reads_what_its_name_says():
    """69.6 GB were read for each token, and five tokens/s predicted."""
    made, notes = scenario_of(parse_state(macs()), CARDS["mlx-community/Qwen3.5-122B-A10B-4bit"])
    full = complete(made).model
    assert full.layers * full.active_layer_bytes + full.head_bytes == pytest.approx(5.1e9, rel=0.02)
    assert not [note for note in notes if note.startswith("model")]


def test_fp16_weighs_what_it_weighs():
    made, _ = scenario_of(parse_state(macs()), CARDS["mlx-community/llama-3.3-70b-instruct-fp16"])
    full = complete(made).model
    assert full.layers * full.layer_bytes == pytest.approx(137e9, rel=0.02)


def test_a_contradiction_is_said():
    notes = []
    model_of_card(CARDS["mlx-community/DeepSeek-V4-Flash"], notes)
    assert any("says 8bit, but its 155.1 GB are nearest to MXFP4-Q8" in note for note in notes)


def card_of(card_id, gb, **fields):
    return {
        "model_id": card_id,
        "n_layers": 50,
        "hidden_size": 5000,
        "storage_size": {"in_bytes": int(gb * 1e9)},
        **fields,
    }


def test_a_tuned_model_has_the_shape_it_came_from():
    notes = []
    card = card_of("me/My-Tune", 8.3, n_layers=40, num_key_value_heads=10, quantization="4bit")
    assert model_of_card({**card, "hidden_size": 5120}, notes).name == "Phi-4"
    assert any("taken for one" in note for note in notes)
    # Llama 3 and Qwen2.5 have one with these layers, this width and size: nothing is guessed
    card = card_of("me/My-Tune", 40.6, n_layers=80, num_key_value_heads=8, quantization="4bit")
    assert model_of_card({**card, "hidden_size": 8192}, notes).name == "me/My-Tune"


def test_what_nobody_knows_is_asked_for_or_said():
    notes = []
    spec = model_of_card(card_of("me/New-100B-A5B-4bit", 56), notes)
    assert spec.active_layer_bytes == pytest.approx(spec.layer_bytes / 20)
    assert any("a token reads 5.0% of it" in note for note in notes)
    with pytest.raises(LiveError, match=r"mixtures of experts.*hf_config"):
        model_of_card(card_of("me/DeepSeek-V9", 56, family="deepseek"), [])
    notes = []
    assert model_of_card(card_of("me/New-9B", 5), notes).active_layer_bytes == pytest.approx(1e8)
    assert any("dense one" in note and "active_layer_bytes" in note for note in notes)
    with pytest.raises(LiveError, match="lacks layers, width or size"):
        model_of_card({"model_id": "x", "n_layers": 3}, [])
    with pytest.raises(LiveError, match="tells neither its size"):
        model_of_card({"model_id": "Qwen3-8B", "quantization": "weird"}, [])


def test_layers_that_exo_counts_otherwise_go_to_the_last_device():
    state = parse_state(macs())
    (instance,) = state.instances.values()
    made, notes = scenario_of(state, CARDS["mlx-community/Llama-3.2-3B-Instruct-4bit"], instance=instance)
    assert sum(made.placement.layers.values()) == 28
    assert any("counts 16 layers, Llama-3.2-3B has 28" in note for note in notes)
    assert isinstance(made, Scenario)


NONSENSE = (
    *(
        None,
        True,
        "",
        "x" * 100_000,
        -1,
        0,
        10**9,
        10**400,
        0.5,
        float("nan"),
        float("inf"),
        [],
        [1] * 100_000,
    ),
    *({}, {"in_bytes": -1}, {"in_bytes": 10**30}, {"in_bytes": float("nan")}, {"in_bytes": None}, {"a": {}}),
)


@pytest.mark.parametrize("field", ["model_id", *sorted({key for card in CARDS.values() for key in card})])
def read_or_refused(card):
    """What a card comes to: a model's name, or the one message."""
    started = time.process_time()
    try:
        said = model_of_card(card, []).name
    except LiveError as error:
        said = str(error)
        card = {}
    assert time.process_time() - started < 1.0
    assert "\n" not in said
    assert 0 < len(said) < 500
    assert card or "model" in said


@pytest.mark.parametrize("field", sorted({key for card in CARDS.values() for key in card}))
def test_a_card_with_one_wrong_value_is_read_or_refused_in_one_message(field):
    draws = random.Random(field)
    for value in draws.sample(NONSENSE, 10):
        card = {**draws.choice(list(CARDS.values())), field: value}
        read_or_refused(card)
        read_or_refused({**card, "model_id": "me/unheard-of-7B", "base_model": None, field: value})


def test_a_width_that_none_has_is_named():
    card = {**next(iter(CARDS.values())), "model_id": "me/unheard-of-7B", "base_model": None, "family": "x"}
    for width, shown in ((-1, "-1"), (10**9, "1e.09")):
        with pytest.raises(LiveError, match=rf"layers of width {shown}, must be"):
            model_of_card({**card, "hidden_size": width}, [])


def test_a_card_of_nulls_is_refused():
    with pytest.raises(LiveError, match="names no model"):
        model_of_card(dict.fromkeys(CARDS["mlx-community/GLM-4.7-8bit-gs32"]), [])
