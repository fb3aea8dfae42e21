"""A refusal names what makes the scenario fit, and each way really does."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.complete import complete
from simulator.errors import PlacementError
from simulator.files import dumps, loads
from simulator.prepare import prepare
from simulator.run.predict import predict
from simulator.run.ways_out import ways_out
from simulator.scenario import Scenario

EIGHT = """
name: minis
model: {name: DeepSeek-V3, quantisation: 4bit}
engine: exo-legacy
placement: exo-legacy
devices:
""" + "".join(
    f"  m{at}: {{kind: Mac mini M4 Pro, memory: 64 GB, link: {{kind: thunderbolt5}}}}\n" for at in range(1, 9)
)
TOWER = "processors: {gpu: {kind: CARD}, cpu: {kind: Ryzen 9 9950X CPU desktop, memory: RAM GB}}"
"""A device of two processors."""


def tower(card: str, ram: int, offload: str = "") -> str:
    told = TOWER.replace("CARD", card).replace("RAM", str(ram))
    return "{" + told + (f", offload: {offload}" if offload else "") + "}"


def asked(model: str, bits: str, engine: str, devices: str, more: str = "") -> Scenario:
    text = f"name: a\nmodel: {{name: {model}, quantisation: {bits}}}\nengine: {engine}\ndevices: {devices}\n"
    return loads(text + more + "\n", Scenario)


REFUSALS = {
    "Metal's default share": asked(
        "Llama-3.3-70B", "4bit", "exo", "{m: {kind: Mac mini M4 Pro, memory: 48 GB}}"
    ),
    "a limit below that default": asked(
        "Llama-3.3-70B", "4bit", "exo", "{m: {kind: MacBook Pro M4 Pro, memory: 48 GB, usable_memory: 30 GB}}"
    ),
    "a raised limit": asked(
        "Llama-3.3-70B", "6bit", "exo", "{m: {kind: MacBook Pro M4 Pro, memory: 48 GB, usable_memory: 46 GB}}"
    ),
    "legacy EXO on two Macs": asked(
        "Llama-3.3-70B",
        "4bit",
        "exo-legacy",
        "{m: {kind: Mac mini M4 Pro, memory: 24 GB}, n: {kind: Mac mini M4, memory: 16 GB}}",
    ),
    "Strix Halo, GTT": asked(
        "Qwen3-235B-A22B", "Q3_K_M", "llama-rpc", "{m: {kind: Ryzen AI Max+ 395, memory: 128 GB}}"
    ),
    "Strix Halo, too small": asked(
        "Qwen3-Next-80B-A3B", "Q8_0", "llama-rpc", "{m: {kind: Ryzen AI Max+ 395, memory: 64 GB}}"
    ),
    "a card": asked("Qwen2.5-14B", "Q8_0", "llama-rpc", "{m: {kind: RTX 3060 12GB desktop}}"),
    "a card, long context": asked(
        "Llama-3.1-8B",
        "Q8_0",
        "llama-rpc",
        "{m: {kind: RTX 3060 12GB desktop}}",
        "workload: {prompt_tokens: 100000, output_tokens: 64}",
    ),
    "a card, 16 bits": asked("Qwen3-14B", "F16", "llama-rpc", "{m: {kind: RTX 4090 desktop}}"),
    "an Android phone": asked("Llama-3.1-8B", "Q8_0", "llama-rpc", "{p: {kind: Pixel 8 Pro}}"),
    "an iPhone": asked("Llama-3.1-8B", "4bit", "exo", "{p: {kind: iPhone 16 Pro}}"),
    "a Raspberry Pi": asked("Llama-3.1-8B", "Q8_0", "llama-rpc", "{p: {kind: Raspberry Pi 5, memory: 8 GB}}"),
    "70B on three of them": asked(
        "Llama-3.3-70B",
        "Q4_K_M",
        "llama-rpc",
        "{p: {kind: Raspberry Pi 5, memory: 8 GB}, q: {kind: Raspberry Pi 5, memory: 8 GB},"
        " r: {kind: Raspberry Pi 5, memory: 16 GB}}",
        "placement: even",
    ),
    "a Jetson": asked("Llama-3.1-8B", "Q6_K", "llama-rpc", "{j: {kind: Jetson Orin Nano}}"),
    "70B at 16 bits on Macs": asked(
        "Llama-3.3-70B",
        "bf16",
        "exo",
        "{m: {kind: Mac Studio M3 Ultra, memory: 96 GB}, n: {kind: MacBook Pro M4 Max, memory: 36 GB}}",
    ),
    "long context": asked(
        "Llama-3.1-8B",
        "4bit",
        "exo",
        "{m: {kind: MacBook Air M2, memory: 16 GB}}",
        "workload: {prompt_tokens: 60000, output_tokens: 64}",
    ),
    "long context, legacy": asked(
        "Llama-3.1-8B",
        "4bit",
        "exo-legacy",
        "{m: {kind: MacBook Air M2, memory: 8 GB}}",
        "workload: {prompt_tokens: 30000, output_tokens: 64}",
    ),
    "eight chats": asked(
        "Llama-3.1-8B",
        "8bit",
        "exo",
        "{m: {kind: MacBook Air M2, memory: 16 GB}}",
        "workload: {prompt_tokens: 8000, output_tokens: 64, concurrency: 8}",
    ),
    "-ngl too high": asked(
        "Llama-3.3-70B", "Q4_K_M", "llama-rpc", f"{{t: {tower('RTX 3090 desktop', 64, '{gpu_layers: 81}')}}}"
    ),
    "card and RAM too small": asked(
        "Llama-3.3-70B", "Q8_0", "llama-rpc", f"{{t: {tower('RTX 3090 desktop', 32)}}}"
    ),
    "too few experts in RAM": asked(
        "gpt-oss-120b",
        "MXFP4",
        "llama-rpc",
        f"{{t: {tower('RTX 3060 12GB desktop', 64, '{cpu_moe_layers: 4}')}}}",
    ),
    "EXO on a tower": asked("Qwen3-32B", "8bit", "exo", f"{{t: {tower('RTX 3090 desktop', 64)}}}"),
    "a split by hand": asked(
        "Llama-3.3-70B",
        "4bit",
        "exo",
        "{m: {kind: MacBook Pro M4 Pro, memory: 48 GB}, p: {kind: iPhone 16 Pro}}",
        "placement: {layers: {m: 20, p: 60}}",
    ),
    "a DGX Spark": asked("gpt-oss-120b", "bf16", "exo", "{m: {kind: DGX Spark}}"),
}


@pytest.mark.parametrize("scenario", REFUSALS.values(), ids=REFUSALS)
def test_no_advice_leads_to_a_second_refusal(scenario: Scenario) -> None:
    """What each way says is written into the scenario, which is saved, read again and predicted."""
    with pytest.raises(PlacementError) as refusal:
        predict(scenario)
    found = ways_out(scenario)
    assert found
    for way in found:
        assert way.words in str(refusal.value)
        again = loads(dumps(way.scenario), Scenario).model_copy(update={"replications": 2})
        assert predict(again, with_what_ifs=False).summary.tokens_per_s.median > 0, way.words


@pytest.mark.parametrize("scenario", REFUSALS.values(), ids=REFUSALS)
def test_nothing_is_advised_that_was_not_tried(scenario: Scenario) -> None:
    """'Take a smaller quantisation' helps nobody where none of them fits."""
    with pytest.raises(PlacementError) as refusal:
        predict(scenario)
    assert "take a" not in str(refusal.value)
    assert "move layers" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a card", "an Android phone", "a Raspberry Pi", "a card, 16 bits"])
def test_a_device_with_as_much_to_spare_as_is_missing_makes_it_fit(name: str) -> None:
    scenario = REFUSALS[name]
    with pytest.raises(PlacementError, match="to spare") as refusal:
        prepare(scenario)
    missing_gb = float(str(refusal.value).split("add a device with ")[1].split(" GB")[0])
    (use,) = prepare(ways_out(scenario)[0].scenario).memory
    full = complete(scenario).model
    beside_gb = (use.overhead_bytes + (full.embedding_bytes or 0) + (full.head_bytes or 0)) / 1e9
    # figures are rounded to three digits
    spare = f"{{usable_memory: {missing_gb * 1.005 + beside_gb} GB, "
    spare += "speed: {decode_bandwidth: 50 GB/s, prefill_flops: 1 TFLOPS}, link: {kind: ethernet_1g}}"
    more = {
        **scenario.devices,
        "spare": loads(f"name: s\nmodel: x\ndevices: {{s: {spare}}}", Scenario).devices["s"],
    }
    assert prepare(scenario.model_copy(update={"devices": more})).memory


def test_the_setting_that_raises_a_macs_limit_is_named_and_works() -> None:
    """Eight minis of 64 GB: EXO showed this model on them, with the wired limit raised."""
    scenario = loads(EIGHT, Scenario)
    with pytest.raises(
        PlacementError, match=r"usable_memory: 63\.35 GB on m1, .*, m8 .*iogpu\.wired_limit_mb=60416"
    ):
        predict(scenario)
    raised = {
        name: spec.model_copy(update={"usable_memory": 63.35e9}) for name, spec in scenario.devices.items()
    }
    assert prepare(scenario.model_copy(update={"devices": raised})).memory


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("Metal's default share", "iogpu.wired_limit_mb="),
        ("Strix Halo, GTT", "ttm.pages_limit="),
        ("an iPhone", "increased-memory-limit entitlement"),
        ("a limit below that default", "iogpu.wired_limit_mb="),
        ("-ngl too high", "leave offload of t out"),
        ("a split by hand", "with placement: speed"),
        ("long context", "workload.prompt_tokens: 44800"),
        ("eight chats", "workload.concurrency: 2"),
        ("a card", "model.quantisation: Q6_K"),
    ],
)
def test_the_way_is_the_one_that_people_of_that_platform_take(name: str, setting: str) -> None:
    assert any(setting in way.words for way in ways_out(REFUSALS[name]))


def test_what_is_made_for_mixtures_is_not_advised_for_dense_models() -> None:
    told = [way.words for scenario in REFUSALS.values() for way in ways_out(scenario)]
    assert not any("MXFP4" in words or "bf16" in words for words in told)


def test_rows_that_no_k_quant_divides_make_no_smaller_file() -> None:
    """gpt-oss has rows of 2,880: its Q2_K and Q3_K_M are published with nearly the 63 GB of MXFP4."""
    scenario = asked("gpt-oss-120b", "MXFP4", "llama-rpc", "{m: {kind: Ryzen AI Max+ 395, memory: 64 GB}}")
    assert not ways_out(scenario)


def test_legacy_exo_off_macs_is_not_told_to_take_fewer_bits() -> None:
    """It ran 16 bits there and nothing else."""
    scenario = loads(
        "name: l\nmodel: Llama-3.1-8B\nengine: exo-legacy\ndevices: {x: {kind: RTX 3060 12GB desktop}}\n",
        Scenario,
    )
    assert ways_out(scenario) == ()


def test_where_nothing_helps_it_says_so() -> None:
    scenario = loads(
        "name: big\nmodel: {name: Llama-3.1-405B, quantisation: 4bit}\ndevices: {p: {kind: Pixel 6}}\n",
        Scenario,
    )
    with pytest.raises(PlacementError, match="none of these makes it fit"):
        predict(scenario)


def test_the_embedding_of_llama_cpp_stays_in_the_memory_of_a_cards_host() -> None:
    """gpt-oss-20b runs on 12 GB (geerlingguy/ai-benchmarks): its embedding is not on the card."""
    text = "name: c\nmodel: gpt-oss-20b\nengine: ENGINE\ndevices: {x: {kind: RTX 3060 12GB desktop}}\n"
    (use,) = prepare(loads(text.replace("ENGINE", "llama-rpc"), Scenario)).memory
    assert use.embedding_bytes == 0
    mac = loads(
        text.replace("ENGINE", "llama-rpc").replace("RTX 3060 12GB desktop", "MacBook Pro M4 Pro"), Scenario
    )
    assert prepare(mac).memory[0].embedding_bytes > 0.5e9


def test_fewer_bits_are_tried_for_a_config_too() -> None:
    config = Path(__file__).parents[2] / "data" / "configs" / "qwen3-32b.json"
    scenario = loads(
        f"name: c\nmodel: {{name: own, hf_config: {config}}}\nengine: llama-rpc\n"
        "devices: {x: {kind: MacBook Pro M4 Pro, memory: 24 GB}}\n",
        Scenario,
    )
    with pytest.raises(PlacementError, match=r"model\.quantisation: "):
        predict(scenario)


@pytest.mark.parametrize(
    ("engine", "count", "placement", "way"),
    [
        ("dllama", 2, "{rule: speed}", "take rule 'dllama'"),
        ("{name: exo, sharding: tensor, backend: ring}", 2, "{rule: even}", "take rule 'exo-tensor'"),
        ("dllama", 3, "{}", "take 1 or 2"),
    ],
)
def test_a_rule_that_does_not_suit_the_engine_is_no_question_of_memory(
    engine: str, count: int, placement: str, way: str
) -> None:
    """Adding a device leads to the same refusal; the message has its own way out."""
    devices = ", ".join(f"m{index}: {{kind: MacBook Air M4, memory: 16 GB}}" for index in range(count))
    text = f"name: t\nmodel: Llama-3.1-8B\nengine: {engine}\nplacement: {placement}\ndevices: {{{devices}}}\n"
    with pytest.raises(PlacementError, match=way) as error:
        predict(loads(text, Scenario), with_what_ifs=False)
    assert "tried" not in str(error.value)
    assert "add a device" not in str(error.value)
