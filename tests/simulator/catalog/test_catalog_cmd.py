"""`sim catalog`: tables for people, one JSON document for programs; a cheap import."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sim.catalog_cmd import app
from simulator import catalog
from simulator.engine.base import engine
from simulator.errors import CatalogError
from simulator.prepare import prepare
from simulator.scenario import Scenario

COMMANDS = {
    "devices": 357,
    "platforms": 13,
    "models": 139,
    "networks": 27,
    "engines": 10,
    "quantisations": 103,
}


@pytest.mark.parametrize(("command", "entries"), COMMANDS.items())
def test_json_is_one_document_with_every_entry(command, entries):
    result = CliRunner().invoke(app, [command, "--json"])
    assert result.exit_code == 0
    assert len(json.loads(result.output)) == entries


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["devices", "--search", "pixel 9"], ["Pixel 9 / 9 Pro", "GB/s", "68.3", "from-memory", "~"]),
        (["platforms"], ["apple-metal", "one chip: not tested", "107 us"]),
        (["models", "-s", "70b"], ["Llama-3.3-70B", "39.7 GB", "42.5 GB"]),
        (["networks"], ["wifi24", "2.55 ms, 7.2%", "tailscale"]),
        (["quantisations", "-s", "q4_k_m"], ["bits/weight", "GGUF", "4.822"]),
        (["engines"], ["llama-rpc", "~2.3 ms", "1.25 ms"]),
    ],
)
def test_tables_hold_figures_with_units(arguments, words):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_piped_fits_120_columns(command):
    lines = CliRunner().invoke(app, [command]).output.splitlines()
    assert len(lines) > COMMANDS[command]
    assert max(map(len, lines)) <= 120


def test_every_list_that_an_unknown_name_points_to_is_there():
    for lookup, kind in (
        (catalog.device, "device"),
        (catalog.model, "model"),
        (catalog.network, "network"),
        (engine, "engine"),
        (lambda name: catalog.model("Llama-3.3-70B", name), "quantisation"),
    ):
        with pytest.raises(CatalogError, match=f"`sim catalog {kind}s` lists all"):
            lookup("zzz")
        assert f"{kind}s" in COMMANDS


def test_the_engine_that_a_hint_names_can_be_prepared():
    with pytest.raises(CatalogError) as error:
        engine("llama.cp")
    hinted = str(error.value).split("did you mean '")[1].split("'")[0]
    device = {"memory": "16 GB", "speed": {"decode_bandwidth": "100 GB/s", "prefill_flops": "4 TFLOPS"}}
    scenario = Scenario.model_validate(
        {
            "name": "alias",
            "engine": hinted,
            "model": {"name": "Llama-3.1-8B"},
            "access_points": {"home": {}},
            "devices": {"macbook": {"kind": "MacBook Air M4"}, "own": device | {"link": {"kind": "wifi6"}}},
        }
    )
    by_alias, by_name = (prepare(scenario.replace(engine=name)) for name in (hinted, "llama-rpc"))
    assert by_alias.scenario == by_name.scenario


def test_a_search_without_a_hit_says_how_many_there_are():
    result = CliRunner().invoke(app, ["devices", "--search", "zzz"])
    assert result.exit_code == 2
    assert "nothing in devices contains 'zzz', no name comes near; without --search all 357" in result.output


def test_importing_the_catalogue_reads_no_data_and_no_heavy_package():
    code = (
        "import sys, simulator.catalog as c; from simulator.catalog.tables import table\n"
        "assert table.cache_info().currsize == 0\n"
        "c.device('MacBook Air M4')\n"
        "heavy = {'yaml', 'scipy', 'altair', 'gguf', 'rich', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("3070 laptop", "RTX 3070 Laptop"),
        ("mini m4pro", "Mac mini M4 Pro"),
        ("geforce-free 3090", None),
        ("m1 ultra 48", "Mac Studio M1 Ultra 48c"),
    ],
)
def test_a_search_finds_by_parts_of_names(typed, name):
    result = CliRunner().invoke(app, ["devices", "--json", "--search", typed])
    assert name is None or name in {entry["name"] for entry in json.loads(result.output)}
    assert name is not None or json.loads(result.output) == []


def test_a_search_without_a_hit_names_what_comes_near():
    result = CliRunner().invoke(app, ["devices", "--search", "rtx 3o70"])
    assert result.exit_code == 2
    assert "did you mean 'RTX 3070'" in result.output
