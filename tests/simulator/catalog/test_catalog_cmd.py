"""`sim catalog`: tables for people, one JSON document for programs; a cheap import."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sim.catalog_cmd import app

COMMANDS = {"devices": 88, "platforms": 13, "models": 35, "networks": 15, "engines": 3}


@pytest.mark.parametrize(("command", "entries"), COMMANDS.items())
def test_json_is_one_document_with_every_entry(command, entries):
    result = CliRunner().invoke(app, [command, "--json"])
    assert result.exit_code == 0
    assert len(json.loads(result.output)) == entries


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["devices", "--search", "pixel 9"], ["Pixel 9 / 9 Pro", "68.3 GB/s", "from-memory", "~"]),
        (["platforms"], ["apple-metal", "one chip: not tested", "152 us"]),
        (["models", "-s", "70b"], ["Llama-3.3-70B", "40.7 GB", "42.5 GB"]),
        (["networks"], ["wifi24", "7.2% of messages 25.7 ms", "tailscale"]),
        (["engines"], ["llama-rpc", "~2.3 ms", "1.25 ms"]),
    ],
)
def test_tables_hold_figures_with_units(arguments, words):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert [word for word in words if word not in text] == []


def test_a_search_without_a_hit_says_how_many_there_are():
    result = CliRunner().invoke(app, ["devices", "--search", "zzz"])
    assert result.exit_code == 2
    assert "nothing in devices contains 'zzz'; without --search all 88" in result.output


def test_importing_the_catalogue_reads_no_data_and_no_heavy_package():
    code = (
        "import sys, simulator.catalog as c; from simulator.catalog.tables import table\n"
        "assert table.cache_info().currsize == 0\n"
        "c.device('MacBook Air M4')\n"
        "heavy = {'yaml', 'scipy', 'altair', 'gguf', 'rich', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
