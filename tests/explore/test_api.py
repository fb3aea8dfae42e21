"""The API answers what the command line answers, and says what is wrong in its words."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sim.explore.pool import Pool, Refused
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


def test_of_one_browser_the_newest_request_alone_is_answered(client: Any) -> None:
    """Twelve at once by each of ten browsers: what a newer one has overtaken is dropped, not queued."""

    async def burst() -> list[list[int]]:
        return list(await asyncio.gather(*(drag(f"browser-{number}") for number in range(10))))

    async def drag(name: str) -> list[int]:
        asks = []
        for rtt in range(1, 13):
            edit = {"path": ["devices", "laptop", "link", "rtt"], "value": f"{rtt} ms"}
            asked = {"scenario": SMALL, "edits": [edit], "quick": True}
            heads = {"x-sim-client": name}
            asks.append(asyncio.create_task(client.sent("POST", "/api/predict", json=asked, headers=heads)))
            await asyncio.sleep(0.002)
        found = [await one for one in asks]
        assert "rtt: 12 ms" in found[-1].json()["yaml"]
        return [one.status_code for one in found]

    for statuses in asyncio.run(burst()):
        assert statuses[-1] == 200
        assert set(statuses) <= {200, 409}
        assert statuses.count(409) >= 8


def test_too_much_is_refused_before_it_is_computed(client: Any) -> None:
    heavy = SMALL.replace("replications: 80", "replications: 900000")
    found = client.post("/api/predict", json={"scenario": heavy})
    assert found.status_code == 422
    assert "more than the 5,000,000 that the page does" in found.json()["error"]
    assert found.json()["faults"][0]["path"] == "replications"


def test_what_takes_too_long_is_ended_and_the_next_is_answered() -> None:
    pool = Pool(None, 1, SMALL)

    async def both() -> dict[str, Any]:
        with pytest.raises(Refused, match="took longer than"):
            await pool.ask("predict", {"scenario": SMALL}, most_s=0.0)
        return dict(json.loads(await pool.ask("predict", {"scenario": SMALL, "quick": True})))

    assert asyncio.run(both())["prediction"]["scenario"] == "small"
    pool.close()


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("place", {"objective": "chat"}, "best"),
        ("sweep", {"over": "devices.laptop.link.rtt=1ms,30ms"}, "points"),
        ("dropout", {"device": "laptop"}, "recovery_s"),
        ("plan", {"budget": "50 EUR", "allow": "network", "most_purchases": 0}, "options"),
    ],
)
def test_each_question_is_answered(client: Any, path: str, body: dict[str, Any], key: str) -> None:
    assert asked(client, path, scenario=SMALL, **body)[key]


def test_comparison_is_that_of_the_command_line(client: Any) -> None:
    other = SMALL.replace("ethernet_1g", "wifi5").replace("name: small", "name: other")
    pair = [loads(text, Scenario) for text in (SMALL, other)]
    expected = json.loads(compare(pair).model_dump_json())
    assert asked(client, "compare", scenarios=[SMALL, other]) == expected


def test_wrong_bodies_are_told_in_one_sentence(client: Any) -> None:
    for body in (
        {},
        {"scenario": 1},
        {"scenario": SMALL, "more": 1},
        [],
        {"scenario": "{{{"},
        {"scenario": "a: &b"},
    ):
        found = client.post("/api/predict", json=body)
        assert found.status_code == 422
        assert found.json()["error"]
        assert "Traceback" not in found.text


def test_an_object_is_a_scenario_too_and_the_schema_says_so(client: Any) -> None:
    plain = {
        "name": "two",
        "model": {"name": "Llama-3.2-3B"},
        "devices": {"a": {"kind": "MacBook Air M4", "memory": "16 GB"}},
    }
    answer = asked(client, "predict", scenario=plain, quick=True)
    assert answer["prediction"]["scenario"] == "two"
    schema = client.get("/api/openapi.json").json()
    assert schema["components"]["schemas"]["Scenario"]["properties"]["devices"]
    assert {"/api/predict", "/api/compare", "/api/place", "/api/plan"} <= schema["paths"].keys()


def test_a_measurement_is_laid_over_the_prediction(client: Any) -> None:
    file = next((Path(__file__).parents[2] / "results" / "local" / "held_out").glob("*.jsonl.gz"))
    content = gzip.decompress(file.read_bytes()).decode()
    found = asked(client, "measured", scenario=SMALL, name="mine.jsonl", content=content)
    assert found["held"]["verdict"] in ("inside", "slower", "faster")
    assert found["curves"]["measured"]["curve"]
    wrong = client.post("/api/measured", json={"scenario": SMALL, "name": "mine.jsonl", "content": "x"})
    assert wrong.json()["error"].startswith("mine.jsonl")
