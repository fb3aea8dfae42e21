"""Answers that take longer: where the layers go, what to buy, one field along its values, losses, swarms,
and what became of predictions. Each public function is one thing that can be asked, as in `answers`.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sim.dropout_cmd import with_drop
from sim.explore.answers import few, scenario_of, text_of
from sim.place_cmd import document, find
from simulator.errors import SimulatorError
from simulator.files import dumps
from simulator.scenario import Scenario

__all__ = ["discover", "dropout", "look", "measured", "place", "plan", "swarm", "sweep", "truth"]

MOST_POINTS = 32
"""Of a sweep: a curve on a page; tables are for `sim sweep`."""
DROPOUTS, SWARMS = 20, 1
"""Replications, which SimPy goes through one by one."""
MOST_TRIALS = 2000


def _asked(asked: dict[str, Any], folder: str | None) -> Scenario:
    return scenario_of(text_of(asked), folder)


def place(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """`sim place --json`, and the scenario with the best placement as text."""
    from simulator.plan.place.trial import manual

    scenario = _asked(asked, folder)
    answer, ways = find(scenario, asked["objective"])
    best = ways.ranking[0].scenario if ways else None
    if best is None and answer is not None and answer.best.placement is not None:
        best = scenario.model_copy(update={"placement": manual(answer.best.placement)})
    return document(answer, ways) | {"yaml": dumps(best, best.question) if best else None}


def plan(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """`sim plan --json`, and each option's scenario as text."""
    from simulator.plan.buy.money import read_money
    from simulator.plan.buy.options import read_allowed
    from simulator.plan.buy.plan import plan as find_plan
    from simulator.plan.buy.prices import own_prices
    from simulator.units import TOKENS_PER_S, read_quantity

    goal = read_quantity(asked["goal"], TOKENS_PER_S) if asked.get("goal") else None
    found = find_plan(
        few(_asked(asked, folder)),
        read_money(asked["budget"]),
        goal,
        allow=read_allowed(asked.get("allow")),
        prices=own_prices(),
        most_purchases=asked["most_purchases"],
    )
    return found.plan.model_dump() | {"yaml": [dumps(made, made.question) for made in found.scenarios]}


def sweep(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """The rows of `sim sweep` over one field, of few replications."""
    from simulator.plan.sweep.points import number, parse_axis
    from simulator.plan.sweep.sweep import evaluate_point, plan_sweep

    scenario, axis = few(_asked(asked, folder)), parse_axis(asked["over"])
    if len(axis.values) > MOST_POINTS:
        raise SimulatorError(
            f"--over has {len(axis.values)} values, and the page draws {MOST_POINTS}; give fewer"
        )
    tasks = plan_sweep(scenario, [axis]).tasks
    rows = [json.loads(evaluate_point(key, payload))["row"] for key, payload in tasks]
    points = [
        {"value": value, "number": number(value), **row} for value, row in zip(axis.values, rows, strict=True)
    ]
    return {"path": axis.path, "is_log": axis.is_log, "replications": scenario.replications, "points": points}


def dropout(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """`sim dropout --json` of fewer replications, and the rows of the recovery plot."""
    from simulator.churn.estimate import predict_dropout
    from simulator.churn.picture import recovery_table

    scenario = with_drop(_asked(asked, folder), asked["device"], asked.get("at_token"), asked["silent"])
    found = predict_dropout(
        scenario.model_copy(update={"replications": min(DROPOUTS, scenario.replications)})
    )
    answer = found.document()
    if found.recovery_s is not None:
        table = recovery_table(found)
        answer["chart"] = {"title": table.title, "subtitle": table.subtitle, "rows": dict(table.rows)}
    return answer


def swarm(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """`sim swarm --json` of one replication, with who served what when."""
    from simulator.swarm.study import rows_of, swarm_answer

    scenario = _asked(asked, folder)
    if scenario.swarm is not None and asked.get("hours"):
        hours = {"hours": asked["hours"]}
        scenario = scenario.model_copy(update={"swarm": scenario.swarm.model_copy(update=hours)})
    rows = rows_of(scenario, SWARMS)
    answer: dict[str, Any] = swarm_answer(scenario, rows).model_dump(mode="json")
    return answer | {"rate_over_time": rows[0]["rate_over_time"], "counts": rows[0]["counts"]}


def truth(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """What became of predictions: `sim ledger --json`, and each trial as a point."""
    from calibrate.trials import standing, trials, worst
    from calibrate.trials_report import by_ground

    found = trials(Path(asked["results"]))
    return {
        "grounds": [standing(name, ones).model_dump() for name, ones in by_ground(found).items()],
        "all": standing("all", found).model_dump(),
        "misses": [trial.model_dump() for trial in worst(found)],
        "trials": [
            {"ground": one.ground, "name": one.name, "error": one.error, "held": one.held.get(90)}
            for one in found[:MOST_TRIALS]
        ],
    }


def measured(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """A measurement beside the prediction: its figures, both distributions, and the verdict."""
    from simulator.result.measured import measured_summary
    from simulator.result.measurement import read_measurement
    from simulator.result.table import inter_token_table
    from simulator.run.glance import glance
    from simulator.run.held_against import held_against

    with tempfile.TemporaryDirectory() as place:
        # its name tells nothing that a path could do: the reader takes a file, packed or plain
        file = Path(place) / "measurement.jsonl"
        file.write_text(asked["content"], encoding="utf-8")
        try:
            found = measured_summary(read_measurement(file))
        except SimulatorError as error:
            raise SimulatorError(str(error).replace(str(file), asked["name"])) from None
    seen = glance(_asked(asked, folder))
    rate = found.summary.tokens_per_s.median
    return {
        "measured": found.document(),
        "predicted": seen.document(),
        "held": held_against(seen.prepared, seen.summary.tokens_per_s, rate).model_dump(),
        "curves": {
            name: dict(inter_token_table(times_s).rows) | {"unit": inter_token_table(times_s).unit}
            for name, times_s in (("measured", found.times_s), ("predicted", seen.times_s))
        },
    }


def _only_here(folder: str | None) -> None:
    """Refuse who asks from elsewhere: what is sent into this network must not be others' choice."""
    if folder is None:
        raise SimulatorError(
            "clusters are looked at on loopback alone; start `sim explore` without --listen there"
        )


def look(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """One look at a cluster, as `sim live watch` has it, with the rate of the file that a run writes now."""
    from live.watch.follow import Followed
    from sim.live_watch_cmd import look_at

    _only_here(folder)
    found = asdict(look_at(asked["cluster"])())
    if asked.get("follow"):
        followed = Followed(Path(asked["follow"]))
        followed.read()
        found["measured"] = {
            "tokens_per_s": followed.rate,
            "tokens": followed.tokens,
            "has_ended": followed.has_ended,
        }
    return found


def discover(asked: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """Who announces itself on this LAN, as `sim live discover`."""
    from live.discover import Options
    from live.discover import discover as listen

    _only_here(folder)
    seen = listen(Options(seconds=asked["seconds"]))
    return {"found": [asdict(one) for one in seen.found], "faults": list(seen.faults)}
