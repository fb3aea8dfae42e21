"""The search: costs that the engines confirm, placements that nothing beats, bounds that hold, forms that work."""

from __future__ import annotations

import json
import sys
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.errors import PlacementError, ScenarioError
from simulator.files import load, loads
from simulator.laws.law import Floats
from simulator.placement.memory import overfull
from simulator.plan.place.bound import first_token_bound_s, tokens_per_s_bound
from simulator.plan.place.costs import decode_costs, mean_parts, prompt_costs
from simulator.plan.place.forms import forms, scenario_yaml
from simulator.plan.place.search import OBJECTIVES, search
from simulator.plan.place.solve import value_s
from simulator.plan.place.trial import manual
from simulator.prepare import ground, prepare
from simulator.result.summary import tokens_per_s
from simulator.run.evaluate import token_times_s
from simulator.runtime.ring_costs import RingCosts
from simulator.scenario import PlacementSpec, Scenario

ROOT = Path(__file__).parents[3]
ENGINES = ("exo", "exo-legacy", "llama-rpc")
MODEL = {
    "name": "test",
    "layers": 80,
    "hidden": 4096,
    "layer_bytes": "400 MB",
    "head_bytes": "400 MB",
    "embedding_bytes": "400 MB",
    "kv_bytes_per_token_per_layer": "4 kB",
    "activation_bytes": "8 kB",
}


def random_scenario(
    seed: int, devices: int | None = None, engine: str = "exo", *, noisy: bool = True, **changes: Any
) -> Scenario:
    """A cluster of 2 to 8 devices that holds the model, some on one air, some on cables."""
    rng = np.random.default_rng(seed)
    count = devices or int(rng.integers(2, 9))
    memory_gb = rng.uniform(4, 30, count)
    memory_gb *= max(
        1.0, 45 / memory_gb.sum()
    )  # of 32 GB of layers, with head, embedding and engine on each device
    memory_gb += 1.6
    members: dict[str, Any] = {}
    for at in range(count):
        median_ms = rng.lognormal(1.0, 0.8)
        law = (
            {"law": "lognormal", "median": f"{median_ms:.4g} ms", "sigma": 0.6}
            if noisy
            else {"law": "constant", "value": f"{median_ms:.4g} ms"}
        )
        asked = {"serving_overhead": f"{at} ms"} if engine == "llama-rpc" else {}
        speed = {
            "decode_bandwidth": f"{rng.lognormal(3.5, 0.9):.4g} GB/s",
            "prefill_flops": f"{rng.lognormal(1, 1):.4g} TFLOPS",
            "layer_overhead": "50 us",
            **asked,
            "stage_overhead": f"{rng.uniform(0, 2):.3g} ms",
            "batch_cost": float(rng.uniform(0, 0.2)),
            "decode_spread": 0.15 if noisy else 0.0,
            "prefill_spread": 0.0,
        }
        # clients of both kinds: those with a card keep the head
        kind = {"platform": ("nvidia-cuda", "x86-cpu")[at % 2]} if engine == "llama-rpc" else {}
        members[f"d{at}"] = kind | {
            "memory": f"{memory_gb[at]:.4g} GB",
            "speed": speed,
            "noise": {"sigma": 0.05 if noisy else 0.0},
            "link": {
                "delay": law,
                "rate": f"{rng.lognormal(3, 1):.4g} MB/s",
                "shared": bool(rng.integers(2)),
                "delay_spread": 0.2 if noisy else 0.0,
                "rate_spread": 0.0,
            },
        }
    costs = {
        "name": engine,
        "step_overhead": "1 ms",
        "hop_overhead": "0.2 ms",
        "overhead_spread": 0.0,
        "memory_overhead": "0.3 GB",
    }
    return Scenario.model_validate(
        {
            "name": f"random_{seed}",
            "model": MODEL,
            "engine": costs,
            "common_noise": {"sigma": 0.0},
            "devices": members,
            "placement": "speed",
            "workload": {"prompt_tokens": 16, "output_tokens": 24, "runs": 1},
            "seed": seed,
            "replications": 30,
        }
        | changes
    )


def placed(scenario: Scenario, names: list[str], layers: list[int]) -> Scenario:
    chosen = dict(zip(names, layers, strict=True))
    return scenario.model_copy(
        update={"placement": PlacementSpec(rule="manual", layers=chosen, min_devices=len(chosen))}
    )


@pytest.mark.parametrize("engine", [*ENGINES, "vllm"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_mean_cost_is_what_the_engine_takes(engine: str, batch: int) -> None:
    """Constant laws, no noise: the inter-token time in the middle of the reply equals the sum, for every ring order.

    Not counted: with EXO a notice waits for the slowest head and is lighter than the hidden state whose hops are
    charged, and it may find the port busy: differences of a transmission; llama.cpp's first server gets a second tensor.
    """
    if engine == "exo-legacy" and batch > 1:
        pytest.skip("its chats do not decode in step")
    for seed in range(4):
        workload = {"prompt_tokens": 32, "output_tokens": 41, "runs": 1, "concurrency": batch}
        scenario = random_scenario(seed, 4, engine, noisy=False, workload=workload)
        base = ground(scenario)
        costs = decode_costs(base, batch)
        for order in [*list(permutations(range(4), 3))[::5], (2, 0)]:
            layers = [int(costs.layers / len(order))] * len(order)
            layers[0] += costs.layers - sum(layers)
            roomy = scenario.model_copy(
                update={
                    "devices": {
                        name: device.model_copy(update={"usable_memory": 1e12})
                        for name, device in scenario.devices.items()
                    }
                }
            )
            times_s = token_times_s(prepare(placed(roomy, [f"d{at}" for at in order], layers)).job, 1)[
                0, :, 0
            ]
            # from the second token on: EXO's ranks look for other chats while they hand out the first
            measured = (times_s[-1] - times_s[1]) / 39
            mean_s = value_s(costs, order, layers)[0]
            if engine == "exo":
                parts, hidden = mean_parts(base, batch), batch * base.model.activation_bytes
                spare_s = sum(parts.hop_s(b, a, hidden) - parts.hop_s(b, a, 4) for a, b in pairwise(order))
                assert abs(mean_s - measured) <= 2e-4 * measured + spare_s
            else:
                assert mean_s == pytest.approx(measured, rel=1e-2 if engine == "llama-rpc" else 2e-4)


@pytest.mark.parametrize("engine", [*ENGINES, "vllm"])
def test_the_mean_cost_of_a_prompt_is_what_the_engine_takes(engine: str) -> None:
    for seed in range(4):
        scenario = random_scenario(
            seed, 3, engine, noisy=False, workload={"prompt_tokens": 300, "output_tokens": 2, "runs": 1}
        )
        costs = prompt_costs(ground(scenario))
        for order in ((0, 1, 2), (2, 1), (1, 2, 0)):
            layers = [80 - 20 * (len(order) - 1), *[20] * (len(order) - 1)]
            roomy = scenario.model_copy(
                update={
                    "devices": {
                        name: device.model_copy(update={"usable_memory": 1e12})
                        for name, device in scenario.devices.items()
                    }
                }
            )
            first_s = token_times_s(prepare(placed(roomy, [f"d{at}" for at in order], layers)).job, 1)[
                0, 0, 0
            ]
            # left out: EXO's two decode steps end at rank 0 and share one notice; llama.cpp's second tensor per boundary
            assert value_s(costs, order, layers)[0] == pytest.approx(first_s, rel=0.1)


def random_placements(
    costs: RingCosts, rng: np.random.Generator, count: int
) -> tuple[Floats, list[tuple[Any, Any]]]:
    """The mean cost of `count` random placements under the caps, and the best three of them."""
    size = costs.devices
    order = np.argsort(rng.random((count, size)), axis=1)
    members = np.arange(size) < rng.integers(1, size + 1, count)[:, None]
    caps = np.minimum(costs.caps.min(axis=0)[order], costs.layers) * members
    layers = members.astype(int)
    for greedy in (False, True):  # some at random, then what is left in ring order
        for at in range(size):
            room = np.clip(caps[:, at] - layers[:, at], 0, costs.layers - layers.sum(axis=1))
            layers[:, at] += room if greedy else rng.integers(0, np.maximum(room, 0) + 1)
    legal = (
        (layers.sum(axis=1) == costs.layers)
        & np.all(layers <= caps, axis=1)
        & np.all((layers > 0) == members, axis=1)
    )
    found = [
        (tuple(ring[inside]), tuple(held[inside]))
        for ring, held, inside in zip(order[legal], layers[legal], members[legal], strict=True)
    ]
    values = np.array([value_s(costs, *split)[0] for split in found])
    return values, [found[at] for at in np.argsort(values)[:3]]


@pytest.mark.parametrize("engine", ENGINES)
def test_never_worse_than_rules_and_random_placements(engine: str) -> None:
    """On random clusters, under simulation with the same random numbers; mean costs choose which random ones to simulate.

    EXO here; 200 clusters and 10,000 placements each with `benchmarks/bench_place.py --clusters 200`.
    """
    for seed in range(8):
        check_never_worse(random_scenario(seed, engine=engine), placements=500)


def check_never_worse(scenario: Scenario, placements: int) -> int:
    """Raise AssertionError where a rule or a random placement beats the search; return how many were compared."""
    answer = search(scenario)
    base = ground(scenario)
    names = [device.name for device in base.cluster.devices]
    values, best = random_placements(decode_costs(base), np.random.default_rng(scenario.seed), placements)
    assert len(values) == 0 or values.min() >= answer.proof.lower_s * (1 - 1e-9)
    assert answer.best.placement is not None
    best_s = score_s(scenario, manual(answer.best.placement))
    specs = [
        PlacementSpec(
            rule="manual",
            layers={names[at]: int(held) for at, held in zip(*split, strict=True)},
            min_devices=len(split[0]),
        )
        for split in best
    ]
    specs += [manual(option.placement) for option in answer.beside if option.placement is not None]
    for spec in specs:
        # what a gather waits for beyond the means is worth a few thousandths
        assert best_s <= score_s(scenario, spec) * 1.005, (scenario.name, spec)
    return len(values) + len(specs)


def score_s(scenario: Scenario, spec: PlacementSpec) -> float:
    times_s = token_times_s(
        prepare(scenario.model_copy(update={"placement": spec})).job, scenario.replications
    )
    return float(np.median(1 / tokens_per_s(times_s)))


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_beats_the_bound_in_any_replication(engine: str) -> None:
    for seed in range(6):
        scenario = random_scenario(seed, 4, engine)
        base = ground(scenario)
        bound = tokens_per_s_bound(base, 1, fills_pipeline=False)
        first_s = first_token_bound_s(base)
        answer = search(scenario)
        options = [answer.best, *(option for option in answer.beside if option.placement is not None)]
        for option in options:
            assert option.placement is not None
            job = prepare(scenario.model_copy(update={"placement": manual(option.placement)})).job
            times_s = token_times_s(job, scenario.replications)
            assert np.all(tokens_per_s(times_s)[0] <= bound)
            assert np.all(times_s[0, 0] >= first_s)


def test_the_bound_is_reached_by_one_device_that_holds_everything() -> None:
    scenario = random_scenario(1, 3)
    fast = {
        name: device.model_copy(update={"usable_memory": 1e12, "memory": 1e12})
        for name, device in scenario.devices.items()
    }
    answer = search(scenario.model_copy(update={"devices": dict(list(fast.items())[:1])}))
    assert answer.best.tokens_per_s is not None
    assert answer.bound.median == pytest.approx(answer.best.tokens_per_s.median, rel=1e-5)


def test_caps_are_those_of_the_memory_table() -> None:
    """One layer more than the search's cap is refused, the cap itself is not."""
    for engine in ENGINES:
        scenario = random_scenario(3, 3, engine)
        base = ground(scenario)
        caps = mean_parts(base).ring().caps
        first = int(min(caps[1, 0], 78))
        for layers, fits in ((first, True), (first + 1, caps[1, 0] > 78)):
            rest = [1, 79 - layers]
            asked = placed(scenario, ["d0", "d1", "d2"], [layers, *rest])
            roomy = {
                name: device.model_copy(update={"usable_memory": 1e12}) if name != "d0" else device
                for name, device in asked.devices.items()
            }
            asked = asked.model_copy(update={"devices": roomy})
            if fits:
                prepare(asked)
            else:
                with pytest.raises(PlacementError, match="d0"):
                    prepare(asked)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_objective_gives_a_placement_that_fits_and_leads(objective: str, engine: str) -> None:
    workload = {"prompt_tokens": 32, "output_tokens": 8, "runs": 1, "concurrency": 2}
    scenario = random_scenario(2, 3, engine, workload=workload, replications=10)
    answer = search(scenario, objective)  # type: ignore[arg-type]
    assert overfull(answer.memory) is None
    assert answer.proof.exact
    assert answer.proof.gap < 1e-9
    for option in answer.beside:
        assert option.refused is not None or option.gain is not None
        if option.gain is not None:
            assert option.gain.p95 >= 1 - 1e-6
    again = search(scenario, objective)  # type: ignore[arg-type]
    assert again.model_dump_json() == answer.model_dump_json()


def test_users_of_a_pipeline_get_balance_and_one_chat_gets_the_fastest_device() -> None:
    scenario = load(ROOT / "scenarios" / "legacy_phones.yaml", Scenario)
    one, many = search(scenario), search(scenario, "slowest-stage", chats=2)
    assert one.best.placement is not None
    assert many.best.placement is not None
    assert len(one.best.placement.shards) == 1
    assert len(many.best.placement.shards) == 3


def test_pins_and_least_devices_are_kept() -> None:
    scenario = load(ROOT / "scenarios" / "phone_pinned.yaml", Scenario)
    answer = search(scenario)
    assert answer.best.placement is not None
    assert answer.best.placement.head == "pixel"
    assert answer.best.placement.shards[-1].layers == 0
    both = scenario.model_copy(update={"placement": scenario.placement.model_copy(update={"min_devices": 2})})
    assert len([s for s in search(both).best.placement.shards if s.layers]) == 2  # type: ignore[union-attr]


def test_what_fits_nowhere_is_refused_with_figures() -> None:
    scenario = load(ROOT / "scenarios" / "oversize.yaml", Scenario)
    with pytest.raises(PlacementError, match=r"126 layers .* GB are missing"):
        search(scenario)


def test_an_objective_that_is_none_is_named() -> None:
    with pytest.raises(ScenarioError, match="'chta' is unknown.*did you mean 'chat'"):
        search(random_scenario(1), "chta")  # type: ignore[arg-type]


def test_a_refused_rule_is_shown_with_its_reason() -> None:
    answer = search(
        load(ROOT / "scenarios" / "four_devices.yaml", Scenario).model_copy(update={"replications": 3})
    )
    exo = next(option for option in answer.beside if option.name == "exo")
    assert exo.refused is not None
    assert "iphone: 5 layers" in exo.refused


def test_forms_are_ready_to_use() -> None:
    scenario = load(ROOT / "scenarios" / "four_devices.yaml", Scenario)
    answer = search(scenario.model_copy(update={"replications": 3}))
    placement = answer.best.placement
    assert placement is not None
    ready = {form.key: form.document for form in forms(answer)}
    line = scenario_yaml(placement)
    text = f"name: x\nmodel: Llama-3.3-70B\ndevices: {{macbook: {{kind: MacBook Air M4}}, laptop: {{kind: Pixel 6}}}}\n{line}\n"
    assert prepare_counts(loads(text, Scenario)) == placement.layer_counts
    shards = ready["exo"]
    assert [s["PipelineShardMetadata"]["startLayer"] for s in shards] == [
        shard.start_layer for shard in placement.shards
    ]
    assert (
        shards[-1]["PipelineShardMetadata"]["endLayer"] == shards[0]["PipelineShardMetadata"]["nLayers"] == 80
    )
    assert layers_of(ready["llama_cpp"]["flags"], 80) == [shard.layers for shard in placement.shards]
    # with a card in it the client comes last
    counts = [shard.layers for shard in placement.shards]
    assert layers_of(ready["llama_cpp"]["with_client_gpu"], 80) == [0, *counts[1:], counts[0]]
    assert layers_of("--rpc a:1,b:1 --tensor-split 30,21 -ngl 51", 80) == [30, 30, 20]


def prepare_counts(scenario: Scenario) -> dict[str, int]:
    assert scenario.placement.layers is not None
    return dict(scenario.placement.layers)


def layers_of(flags: str, n_layers: int) -> list[int]:
    """What llama.cpp makes of the flags: layer i of the offloaded ones goes where i / ngl falls in the running split."""
    words = flags.split()
    split = [float(part) for part in words[words.index("--tensor-split") + 1].split(",")]
    ngl = int(words[words.index("-ngl") + 1])
    ends = np.cumsum(split) / sum(split)
    start = max(0, n_layers - ngl + 1)
    on = [int(np.searchsorted(ends, (layer - start) / ngl, side="right")) for layer in range(start, n_layers)]
    return [start, *(on.count(server) for server in range(len(split)))]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    import typer

    from sim.place_cmd import place as command

    app = typer.Typer()
    app.command()(command)

    def run(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["place", *args])
        app(list(args), standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_the_command_prints_a_document_and_writes_a_scenario(place: Any, tmp_path: Path) -> None:
    path, out = str(ROOT / "scenarios" / "four_devices.yaml"), tmp_path / "best.yaml"
    document = json.loads(place(path, "--json", "--replications", "5", "--out", str(out)))
    assert {"best", "beside", "bound", "proof", "ready_to_use", "objective"} <= set(document)
    assert load(out, Scenario).placement.layers == {
        s["device"]: s["end_layer"] - s["start_layer"] for s in document["best"]["placement"]["shards"]
    }
    text = place(path, "--replications", "5")
    for word in (
        "nobody can beat",
        "proven optimal",
        "POST /instance",
        "--tensor-split",
        "placement:",
        "refused",
    ):
        assert word in text


def test_a_proof_says_what_it_is_of(place: Any) -> None:
    path = str(ROOT / "scenarios" / "four_devices.yaml")
    for objective in ("p99", "first-token"):
        said = f"the proof is of that stand-in, not of the {objective}"
        assert said in " ".join(place(path, "--replications", "3", "--objective", objective).split())
    assert "stand-in" not in place(path, "--replications", "3")


def test_no_proof_is_claimed_where_layers_differ(place: Any, tmp_path: Path) -> None:
    """The search counts average layers; that is said, and nothing is called optimal without it."""
    path = tmp_path / "uneven.yaml"
    path.write_text(
        "name: uneven\n"
        "model: {name: uneven, layers: 3, hidden: 64, layer_bytes: 40 MB, layer_flops: 8.0e+7,\n"
        "        layer_kinds: [{weight_bytes: 1.0e+7, active_bytes: 1.0e+7, flops: 2.0e+7},\n"
        "                      {weight_bytes: 1.0e+8, active_bytes: 1.0e+8, flops: 2.0e+8}],\n"
        "        layer_pattern: [0, 0, 1]}\n"
        "devices:\n"
        "  a: {memory: 1 GB, speed: {decode_bandwidth: 10 GB/s, prefill_flops: 1 TFLOPS}, link: {kind: ethernet_1g}}\n"
    )
    assert "proven optimal were all layers alike" in place(str(path), "--replications", "3")
