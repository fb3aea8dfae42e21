"""The API answers what the command line answers, and says what is wrong in its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.files import loads
from simulator.run.compare import compare
from simulator.run.glance import glance
from simulator.scenario import Scenario
from tests.explore.conftest import SMALL


def asked(client: Any, path: str, **body: Any) -> Any:
    found = client.post(f"/api/{path}", json=body)
    assert found.status_code == 200, found.text
    return found.json()


def test_figures_are_those_of_sim_run(client: Any, printed: Any, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    said = json.loads(printed("run", str(file), "--json")[1])
    answer = asked(client, "predict", scenario=SMALL)
    assert answer["prediction"] == said
    assert answer["yaml"] == SMALL
    assert sum(one["share"] for one in answer["parts"]) == pytest.approx(1)


def test_a_first_answer_is_that_of_fewer_replications(client: Any) -> None:
    answer = asked(client, "predict", scenario=SMALL, quick=True)
    fewer = loads(
        SMALL.replace("replications: 80", "replications: 60").replace("runs: 2", "runs: 1"), Scenario
    )
    assert answer["is_quick"]
    assert answer["prediction"] == json.loads(json.dumps(glance(fewer).document()))


def test_an_edit_changes_the_text_and_the_ghost_is_the_paired_difference(client: Any) -> None:
    edits = [{"path": ["devices", "laptop", "link", "rtt"], "value": "40 ms"}]
    answer = asked(client, "predict", scenario=SMALL, edits=edits, against=SMALL)
    slow = SMALL.replace("{kind: ethernet_1g} ", "{kind: ethernet_1g, rtt: 40 ms} ")
    assert answer["yaml"] == slow
    pair = [loads(text, Scenario).replace(name=name) for name, text in (("before", SMALL), ("after", slow))]
    row = next(one for one in compare(pair).ranking if one.scenario == "after")
    assert answer["against"].items() >= json.loads(row.model_dump_json(exclude={"scenario"})).items()
    assert answer["against"]["probability_better"] == 0


def test_faults_are_those_of_files_with_path_and_line(client: Any, printed: Any, tmp_path: Path) -> None:
    wrong = SMALL.replace("{kind: ethernet_1g}", "{kind: ethernet_1g, rtt: 40}").replace("engine:", "engin:")
    found = client.post("/api/predict", json={"scenario": wrong})
    assert found.status_code == 422
    file = tmp_path / "scenario"
    file.write_text(wrong)
    code, _, said = printed("run", str(file))
    assert code == 2
    assert found.json()["error"] in said.replace(f"{file}:", "scenario:")
    assert {(one["path"], one["line"]) for one in found.json()["faults"]} == {
        ("engin", 3),
        ("devices.laptop.link.rtt", 10),
    }
