"""plan: prices and their faults, what an answer says, and the scenarios that it hands back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sim import plan_cmd
from simulator import catalog
from simulator.engine.base import engine
from simulator.errors import CatalogError, PlacementError, ScenarioError, SimulatorError, UnitError
from simulator.files import load, loads
from simulator.plan.buy.money import Money, read_money
from simulator.plan.buy.options import read_allowed, shelf
from simulator.plan.buy.plan import plan
from simulator.plan.buy.prices import PriceBook, PricesFile, price_data
from simulator.run.predict import predict
from simulator.scenario import DeviceSpec, Scenario

DESK = """
name: desk
model: {name: Llama-3.3-70B}
engine: llama-rpc
access_points: {home: {}}
devices:
  macbook: {kind: MacBook Air M4, memory: 24 GB, link: {kind: wifi6}}
  laptop: {kind: Linux laptop, memory: 32 GB, link: {kind: wifi6}}
  pixel: {kind: Pixel 8 Pro, memory: 12 GB, link: {kind: wifi6}}
workload: {prompt_tokens: 64, output_tokens: 32, runs: 1}
replications: 40
"""


def desk() -> Scenario:
    return loads(DESK, Scenario)


def euros(amount: float) -> Money:
    return Money(amount=amount, currency="EUR")


# --- prices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["800", "EUR 800", "800 eur", "-5 EUR", "800 CHF", "1e9 EUR", ""])
def test_money_needs_amount_and_currency(text: str) -> None:
    with pytest.raises(UnitError, match="is no price"):
        read_money(text)


def test_energy_and_goods_are_not_confused() -> None:
    assert read_money("0.30 EUR/kWh", energy=True).amount == 0.3
    with pytest.raises(UnitError):
        read_money("0.30 EUR/kWh")
    with pytest.raises(UnitError):
        read_money("0.30 EUR", energy=True)


def test_a_list_price_is_converted_and_taxed() -> None:
    book = PriceBook("EUR", PricesFile(usd_per_eur=1.25, tax="25 %"))
    quote = book.device(catalog.device("Mac mini M4"))
    assert quote is not None
    assert quote.amount == pytest.approx(599 / 1.25 * 1.25)
    assert (quote.label, quote.as_of) == ("catalogue", "2026-09-30")


def test_more_memory_costs_more_and_is_assumed() -> None:
    book = PriceBook("USD")
    small, big = (book.device(catalog.device("Mac mini M4", size * 2**30)) for size in (16, 32))
    assert small is not None
    assert big is not None
    assert big.amount - small.amount == pytest.approx(400)  # Apple's two steps of 200 USD
    assert (small.label, big.label) == ("catalogue", "assumed")


def test_a_bare_card_comes_with_a_host() -> None:
    quote = PriceBook("USD").device(catalog.device("RTX 3090"))
    assert quote is not None
    assert quote.amount == pytest.approx(800 + 500)
    assert "host" in quote.what
    assert quote.label == "assumed"


def test_the_users_price_comes_first_and_without_tax() -> None:
    own = loads("devices: {Mac mini M4 24 GB: 700 EUR}\naccessories: {ethernet_cable: 3 EUR}", PricesFile)
    book = PriceBook("EUR", own)
    quote = book.device(catalog.device("Mac mini M4", 24 * 2**30))
    assert quote is not None
    assert (quote.amount, quote.label) == (700, "yours")
    assert book.accessory("ethernet_cable").amount == 3


def test_faults_of_a_price_file_name_their_lines() -> None:
    text = "devices:\n  Mac mini M44: 700 EUR\naccessories:\n  ethernet_cabel: 3 EUR\n"
    with pytest.raises(ScenarioError) as caught:
        loads(text, PricesFile, "prices.yaml")
    assert "prices.yaml:2: " in str(caught.value)
    assert "prices.yaml:4: " in str(caught.value)
    assert "ethernet_cable" in str(caught.value)
    with pytest.raises(ScenarioError, match=r"prices\.yaml:1"):
        loads("tax: 19 EUR", PricesFile, "prices.yaml")


def test_every_figure_of_the_planner_has_source_and_confidence() -> None:
    data = price_data()
    rows = [*data.currencies.values(), *data.accessories.values(), *data.memory, *data.socketed, *data.watts]
    assert all(
        row.source and row.confidence in ("exact-from-table", "read-from-text", "from-memory", "assumed")
        for row in rows
    )
    for name, ladder in data.quantisations.items():
        sizes = [catalog.model("Llama-3.3-70B", step, name).total_bytes for step in ladder]
        assert sizes == sorted(sizes, reverse=True)
    assert all(catalog.network(row.network) and data.accessories[row.cable] for row in data.thunderbolt)
    assert all(catalog.device(row.device).name == row.device for row in data.socketed)


# --- options --------------------------------------------------------------------------------------------------------


def test_only_machines_on_which_the_engine_runs_are_offered() -> None:
    scenario = desk().replace(engine="exo")
    facts = engine("exo").facts
    offers = shelf(scenario, PriceBook("EUR"), 5000).offers
    assert len(offers) > 20
    assert {catalog.device(offer.spec.kind or "").platform for offer in offers} <= set(facts.runs_on)


def test_a_device_that_is_not_owned_is_for_sale() -> None:
    book = PriceBook("EUR", loads("devices: {Pixel 8 Pro: 450 EUR}", PricesFile))
    options = shelf(desk(), book, 800, own=["macbook", "laptop"], allow=())
    assert [(offer.name, offer.price, offer.owned) for offer in options.offers] == [("pixel", 450, False)]
    assert [states[0].name for states in options.owned] == ["macbook", "laptop"]
    with pytest.raises(CatalogError, match="pixel is not among --own"):
        shelf(desk(), PriceBook("EUR"), 800, own=["macbook", "laptop"], allow=())


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(SimulatorError, match="did you mean 'macbook'"):
        shelf(desk(), PriceBook("EUR"), 800, own=["macbok"])
    with pytest.raises(SimulatorError, match="did you mean 'network'"):
        read_allowed("netwrk")
    assert read_allowed("macs, network") == ("macs", "network")


def test_an_access_point_helps_only_old_links() -> None:
    options = shelf(desk(), PriceBook("EUR"), 800, allow=("network",))
    phone = next(states[0] for states in options.owned if states[0].name == "pixel")
    assert list(options.access_points([phone])) == []  # Wi-Fi 6 already, and no newer radio
    old = desk().replace(devices={"air": {"kind": "MacBook Air M3", "link": {"kind": "wifi24"}}})
    options = shelf(old, PriceBook("EUR"), 800, allow=("network",))
    (state,) = options.owned[0]
    assert options.under(state, "wifi6").spec.link.kind == "wifi6"
    assert [network for network, _ in options.access_points([state])] == ["wifi6", "wifi7"]


def test_memory_goes_only_where_there_are_sockets() -> None:
    scenario = desk().replace(
        devices={"laptop": {"kind": "Linux laptop", "memory": "16 GB"}, "macbook": {"kind": "MacBook Air M4"}}
    )
    states = {options[0].name: len(options) for options in shelf(scenario, PriceBook("EUR"), 800).owned}
    assert states == {"laptop": 2, "macbook": 1}


# --- the plan -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return plan(desk(), euros(700), 1.3, allow=("macs", "network"), most_purchases=1)


def test_a_plan_answers_with_reasons(found) -> None:
    result = found.plan
    assert "the cheapest that is expected to reach 1.3 tokens/s: buy Mac mini M4" in result.answer
    assert any(
        "memory bandwidth of laptop" in reason and "is the limit" in reason
        for reason in result.options[0].reasons
    )
    assert any("wiring" in reason for reason in result.options[0].reasons)
    assert result.considered == result.pruned + result.evaluated


SLOW_LAPTOP = """
name: one
model: {name: own, layers: 4, layer_bytes: 1 GB, hidden: 1}
engine: llama-rpc
access_points: {home: {}}
devices:
  laptop: {memory: 32 GB, speed: {decode_bandwidth: 40 GB/s, prefill_flops: %s}, link: {kind: ethernet_1g}}
workload: {prompt_tokens: 8, output_tokens: 16, runs: 1}
replications: 20
"""


@pytest.mark.parametrize(
    ("flops", "words"),
    [
        # a step takes max(4 GB / 40 GB/s, 16 Gflop / flops): 100 ms of reading against 1.6, 80, 100 and 400 ms
        ("10 TFLOPS", "memory bandwidth of laptop (laptop) is the limit: .* would give +9.%$"),
        (
            "0.2 TFLOPS",
            "memory bandwidth of laptop .* would give +2.%, as its arithmetic limits then; twice both +9.%",
        ),
        (
            "0.16 TFLOPS",
            "twice its memory bandwidth or its arithmetic alone would change nothing, both would give +9.%",
        ),
        ("0.04 TFLOPS", "arithmetic of laptop .* is the limit: .* twice that arithmetic would give +100%$"),
    ],
)
def test_a_reason_names_what_a_step_waits_for(flops: str, words: str) -> None:
    result = plan(loads(SLOW_LAPTOP % flops, Scenario), euros(0), allow=()).plan
    (reason,) = result.options[0].reasons
    assert re.search(words.replace("+", r"\+").replace("(", r"\(").replace(")", r"\)"), reason), reason


def test_options_are_a_front_with_probabilities_and_watts(found) -> None:
    rows = found.plan.options
    assert [row.price for row in rows] == sorted(row.price for row in rows)
    medians = [row.tokens_per_s.median for row in rows]
    assert medians == sorted(medians)
    assert all(row.idle_w < row.busy_w for row in rows)
    assert all(0 <= (row.goal_probability or 0) <= 1 for row in rows)
    assert rows[-1].price == pytest.approx(sum(quote.amount for quote in rows[-1].quotes), abs=0.01)


def test_each_option_is_a_scenario_that_gives_the_same(found) -> None:
    row, made = found.plan.options[-1], found.scenarios[-1]
    again = predict(made, evaluator="recursion", with_what_ifs=False)
    assert again.summary.tokens_per_s.median == row.tokens_per_s.median
    assert {shard.device: shard.layers for shard in again.prepared.job.shards} == row.placement


def test_a_goal_out_of_reach_is_said_with_its_bound(found) -> None:
    result = plan(desk(), euros(0), 8.0, allow=()).plan
    assert "nothing within 0 EUR is expected to reach 8 tokens/s" in result.answer
    assert max(row.tokens_per_s.median for row in result.options) < result.ceiling_tokens_per_s * 1.05 < 8


def test_what_fits_nowhere_is_refused() -> None:
    scenario = desk().replace(devices={"pixel": {"kind": "Pixel 8 Pro"}})
    with pytest.raises(PlacementError, match=r"no mix of devices within 50 EUR holds Llama-3\.3-70B"):
        plan(scenario, euros(50), allow=("network",))


def test_roles_cannot_be_planned() -> None:
    with pytest.raises(SimulatorError, match=r"remove placement\.roles"):
        plan(desk().replace(placement={"roles": {"pixel": "head"}}), euros(0))


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command("plan")(plan_cmd.plan)
    made.command("cost")(plan_cmd.cost)
    return made


def test_the_command_writes_scenarios_that_load(app: typer.Typer, tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text(DESK, encoding="utf-8")
    done = CliRunner().invoke(
        app,
        [
            "plan",
            str(path),
            "--budget",
            "40 EUR",
            "--goal",
            "1 tokens/s",
            "--allow",
            "network",
            "--json",
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["budget"] == {"amount": 40.0, "currency": "EUR"}
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert files[-1] == "plan.json"
    assert len(files) == 1 + len(document["options"])
    for name in files[:-1]:
        assert load(tmp_path / "out" / name, Scenario).placement.layers


def test_the_command_prints_an_answer(app: typer.Typer, tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text(DESK, encoding="utf-8")
    done = CliRunner().invoke(app, ["plan", str(path), "--budget", "0 EUR", "--allow", "network"])
    assert done.exit_code == 0, done.output
    assert "answer:" in done.stdout
    assert "doubt:" in done.stdout


def test_two_mini_pcs_with_usb4_are_joined_by_a_cable_at_its_price() -> None:
    """The link that two Strix Halo have between them, not the bridge of two Macs."""
    strix = {"kind": "Framework Desktop / Strix Halo 128 GB", "link": {"kind": "ethernet_1g"}}
    two = desk().model_copy(
        update={"devices": {name: DeviceSpec.model_validate(strix) for name in ("left", "right")}}
    )
    book = PriceBook("EUR")
    asked = shelf(two, book, 100.0, ["left", "right"], ("network",))
    ((cable,),) = asked.cables([states[0] for states in asked.owned])
    assert (cable.network, cable.ends) == ("usb4", ("left", "right"))
    assert cable.quote.amount == pytest.approx(book.accessory("cable_thunderbolt4").amount)
    assert cable.quote.amount == pytest.approx(30 / 1.16 * 1.2, rel=0.02)
