"""Answers: a scenario's text in, plain data out, by the very functions that the commands use.

Each public function here is one thing that can be asked; `pool` calls it by its name in another process.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from sim.explore.edit import edited, without_device
from simulator.engine.base import engine
from simulator.errors import Fault, ScenarioError, SimulatorError
from simulator.files import loads
from simulator.files.tree import parse
from simulator.laws.law import median_s
from simulator.library import with_paths
from simulator.own import spelt_out
from simulator.prepare import Prepared, prepare
from simulator.result.folder import prediction_tables
from simulator.result.summary import rates
from simulator.run.compare import against_first
from simulator.run.compare import compare as compare_scenarios
from simulator.run.crossover import other_strategy
from simulator.run.evaluate import scenario_rates
from simulator.run.glance import Glance, glance
from simulator.run.predict import Prediction
from simulator.run.predict import predict as predict_scenario
from simulator.scenario import Scenario

__all__ = ["compare", "few", "predict", "scenario_of", "text_of", "written"]

FEW, FEWER = 60, 4
"""Replications of a first answer: where the recursion is exact, and where SimPy goes row by row."""
MOST_TOKENS = 5_000_000
"""That one answer simulates: 40 MB of token times; more is for the command line."""


def predict(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """A prediction with all that the page draws of it; `folder` is where a model's files may lie.

    Raises ScenarioError, CatalogError, PlacementError.
    """
    text = text_of(asked)
    scenario = scenario_of(text, folder)
    if asked.get("quick"):
        scenario = few(scenario)
    found: Glance = glance(scenario) if asked.get("quick") else predict_scenario(scenario)
    answer = {"yaml": text, "written": written(text), "is_quick": bool(asked.get("quick"))}
    answer |= {"prediction": found.document(), **_drawn(found)}
    if isinstance(found, Prediction):
        answer |= _limits(found)
    if asked.get("against"):
        answer["against"] = _against(_text(asked["against"]), folder, found, bool(asked.get("quick")))
    return answer


def compare(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """`sim compare --json`; scenarios of one name get numbers, one alone meets its other strategy."""
    named, seen = [], set[str]()
    for number, one in enumerate(asked["scenarios"], 1):
        scenario = scenario_of(_text(one), folder)
        if scenario.name in seen:
            scenario = scenario.model_copy(update={"name": f"{scenario.name[:56]}_{number}"})
        seen.add(scenario.name)
        named.append(scenario)
    if len(named) == 1:
        named.append(other_strategy(named[0]))
    return compare_scenarios(named).model_dump()


def text_of(asked: dict[str, Any]) -> str:
    """The scenario's text with what was asked to be changed in it."""
    text = _text(asked["scenario"])
    for change in asked.get("edits") or ():
        path = change["path"]
        is_device_gone = len(path) == 2 and path[0] == "devices" and change.get("value") is None
        text = (
            without_device(text, str(path[1])) if is_device_gone else edited(text, path, change.get("value"))
        )
    return text


def written(text: str) -> dict[str, Any]:
    """What the text says, as plain data; empty where it says nothing."""
    root = parse(text.encode("utf-8", "surrogatepass")).root
    return root.value if root is not None and isinstance(root.value, dict) else {}


def scenario_of(text: str, folder: str | None) -> Scenario:
    """The scenario that a text says, its own words for devices and models spelt out.

    Raises ScenarioError with every fault, for a model's file where `folder` is None, and for too much work.
    """
    scenario = loads(text, Scenario, "scenario")
    named = next((key for key in ("gguf", "hf_config") if getattr(scenario.model, key)), None)
    if named and folder is None:
        reason = "files of this machine are not read for others; give the model's name or its numbers"
        raise ScenarioError("scenario", [Fault(f"model.{named}", reason)])
    if folder is not None:
        scenario = with_paths(scenario, Path(folder) / "scenario.yaml")
    _bounded(scenario)
    return spelt_out(scenario)


def few(scenario: Scenario) -> Scenario:
    """The same with one run in as few worlds as answer at once."""
    job = prepare(scenario).job
    most = FEW if engine(job.engine.name).is_recursion_exact(job) else FEWER
    workload = scenario.workload.model_copy(update={"runs": 1})
    return scenario.model_copy(
        update={"workload": workload, "replications": min(most, scenario.replications)}
    )


def _text(given: str | dict[str, Any]) -> str:
    return given if isinstance(given, str) else json.dumps(given)


def _bounded(scenario: Scenario) -> None:
    work = scenario.workload
    tokens = scenario.replications * work.runs * work.output_tokens * work.concurrency
    if tokens > MOST_TOKENS:
        reason = (
            f"{tokens:,} tokens to simulate are more than the {MOST_TOKENS:,} that the page does; ask for "
            "fewer replications, runs, tokens or chats, or use `sim run`"
        )
        raise ScenarioError("scenario", [Fault("replications", reason)])


def _drawn(found: Glance) -> dict[str, Any]:
    """What the map shows besides the prediction."""
    prepared = found.prepared
    complete = found.scenario.model_dump(mode="json", exclude_none=True, exclude={"posterior"})
    return {
        "ring": [device.name for device in prepared.job.ring],
        "layers": prepared.job.model.layers,
        "links": _links(prepared),
        "complete": complete,
        "text": {
            "tokens_per_s": found.summary.tokens_per_s.text("tokens/s"),
            "total_tokens_per_s": found.summary.total_tokens_per_s.text("tokens/s"),
        },
    }


def _links(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """How each device reaches the LAN; seconds there and back (median, as `rtt` has it), bytes/s."""
    cluster = prepared.job.cluster
    return {
        device.name: {
            "kind": device.link.kind,
            "via": device.link.via,
            "round_trip_s": 2 * median_s(device.link.delay),
            "bytes_per_s": device.link.rate_bytes_per_s,
            "label": device.link.label,
        }
        for device in map(cluster.device, (row.device for row in prepared.memory))
    }


def _limits(found: Prediction) -> dict[str, Any]:
    """Where a token's time goes, in seconds, and the tables of the charts."""
    tables = prediction_tables(found)
    return {
        "parts": [share.model_dump() for share in found.shares],
        "over_worlds": found.bottleneck.over_worlds,
        "charts": {
            name: {
                "title": table.title,
                "subtitle": table.subtitle,
                "rows": dict(table.rows),
                "order": table.order,
                "unit": table.unit,
            }
            for name, table in tables.items()
        },
    }


def _against(text: str, folder: str | None, found: Glance, is_quick: bool) -> dict[str, Any] | None:
    """The paired difference to an older scenario, row by row; None where that one has no answer."""
    try:
        before = _rates(text, folder, is_quick, found.scenario.seed)
    except SimulatorError:
        return None
    after = rates(found.times_s)
    # row i of each is run i % runs of world i // runs, so both need as many of each
    if before.shape != after.shape:
        return None
    return {
        **against_first(("before", "after"), (before, after))[1].model_dump(),
        "text": against_first(("before", "after"), (before, after))[1].difference.text("tokens/s"),
        "before": against_first(("before",), (before,))[0].tokens_per_s.model_dump(),
    }


@lru_cache(maxsize=16)
def _rates(text: str, folder: str | None, is_quick: bool, seed: int) -> Any:
    scenario = scenario_of(text, folder).model_copy(update={"seed": seed})
    return scenario_rates(few(scenario) if is_quick else scenario)
