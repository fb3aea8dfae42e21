"""One value changes, and every other character of the text stays."""

from __future__ import annotations

from typing import Any

import pytest

from sim.explore.edit import edited, without_device
from simulator.errors import ScenarioError
from simulator.files.tree import parse
from tests.explore.conftest import SMALL


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        ("devices.laptop.memory", "64 GB", "memory: 32 GB", "memory: 64 GB"),
        ("devices.macbook.link.kind", "wifi5", "wifi6", "wifi5"),
        ("devices.macbook.link.rtt", "9 ms", "{kind: wifi6}", "{kind: wifi6, rtt: 9 ms}"),
        ("engine", "llama-rpc", "engine: exo", "engine: llama-rpc"),
        ("engine.sharding", "tensor", "engine: exo", "engine: {name: exo, sharding: tensor}"),
        ("workload.runs", 3, "runs: 2", "runs: 3"),
        ("seed", 7, "replications: 80", "replications: 80\nseed: 7"),
        ("workload.runs", None, ", runs: 2", ""),
        ("replications", None, "replications: 80\n", ""),
        ("devices.laptop.noise.sigma", 0.1, "   # a cable\n", "   # a cable\n    noise: {sigma: 0.1}\n"),
        (
            "question",
            "is it: fast? # yes",
            "replications: 80",
            'replications: 80\nquestion: "is it: fast? # yes"',
        ),
        ("devices.laptop.link", {"kind": "wifi5"}, "{kind: ethernet_1g}", "{kind: wifi5}"),
        ("placement", {"layers": {"macbook": 1}}, "placement: speed", "placement: {layers: {macbook: 1}}"),
        ("devices.new one", {"kind": "RTX 3090"}, "# a cable\n", "# a cable\n  new one: {kind: RTX 3090}\n"),
    ],
)
def test_a_value_is_changed_where_it_lies(path: str, value: Any, old: str, new: str) -> None:
    assert edited(SMALL, path.split("."), value) == SMALL.replace(old, new)


@pytest.mark.parametrize(
    "typed", ["", "a\nb", "}", "{a: 1", "a: b", "[1, 2", "*x", "&x", "!!python/name:os", "- a", "x #y"]
)
def test_what_is_typed_stays_one_value(typed: str) -> None:
    made = edited(SMALL, ("devices", "macbook", "kind"), typed)
    before, after = (parse(text.encode()).root.value for text in (SMALL, made))  # type: ignore[union-attr]
    assert after["devices"]["macbook"]["kind"] in (typed.strip(), None, "")
    after["devices"]["macbook"]["kind"] = before["devices"]["macbook"]["kind"]
    assert after == before


def test_a_device_goes_with_all_that_names_it() -> None:
    text = SMALL.replace(
        "placement: speed", "placement: {layers: {macbook: 8, laptop: 20}, order: [laptop, macbook]}"
    )
    text += "wires:\n  - {between: [macbook, laptop], kind: thunderbolt4}\n"
    left = parse(without_device(text, "laptop").encode()).root.value  # type: ignore[union-attr]
    assert list(left["devices"]) == ["macbook"]
    assert left["placement"] == {"order": ["macbook"]}
    assert "wires" not in left
    assert "# a comment that stays" in without_device(text, "laptop")


@pytest.mark.parametrize("path", [("name", "x"), ("devices", "macbook", "memory", "x")])
def test_a_path_that_leads_nowhere_is_refused(path: tuple[str | int, ...]) -> None:
    with pytest.raises(ScenarioError, match="nothing of the scenario lies there"):
        edited(SMALL, path, 1)
