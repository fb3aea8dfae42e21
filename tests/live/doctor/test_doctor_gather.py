"""Gathering over real sockets, the size of a model, and the commands with their exit codes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from live.agent.facts import AgentFacts
from live.agent.server import Agent, Settings
from live.discover import FoundDevice, Options
from live.discover.exo_udp import Heard
from live.discover.found import AGENT
from live.discover.hosts import Probe, probe, probe_all
from live.discover.look import Sources, discover
from live.discover.mdns import Announced
from live.doctor import examine, gather
from live.doctor.gather import model_need, route_interface
from sim import live_net_cmd
from simulator.errors import LiveError
from tests.live.discover.fakes import head_pages, legacy_pages, pages, server

TOKEN = "correct horse battery"
HERE = AgentFacts("here", "linux", addresses=(("lo", "127.0.0.1", 8),))
QUIET = Sources(
    lambda seconds, namespaces: Heard(),
    lambda seconds: (),
    lambda seconds: Announced(),
    # the addresses in the recording are nobody's here: what a network says of them differs from place to place
    lambda hosts: probe_all([host for host in hosts if host[0].startswith("127.")]),
)


def look(options):
    return discover(options, QUIET)


def test_a_recorded_cluster_is_gathered_and_examined():
    with server(pages(head_pages())) as port, Agent(Settings("phone", TOKEN)) as agent:
        options = Options(hosts=(("127.0.0.1", port),), this_machine=False)
        surroundings = gather(
            options,
            [agent.address, ("127.0.0.1", 1)],
            TOKEN,
            "Llama-3.3-70B-Instruct-4bit",
            look,
            lambda: HERE,
        )
    assert [facts.name for facts in surroundings.facts] == ["here", "phone"]
    assert len(surroundings.silent_agents) == 1
    assert surroundings.need.total_bytes == 38769 * 2**20  # as the recorded EXO lists it
    assert ("127.0.0.1", "lo") in surroundings.routes
    levels = {finding.what: finding.level for finding in examine(surroundings)}
    assert levels["too little free memory for the model"] == "problem"  # 16 GiB are free in the recording
    assert any("clock" in what for what in levels)  # its Date is years away from ours
    assert levels["the agent at 127.0.0.1:1 does not answer"] == "problem"
    assert levels["not checked: ports are open"] == "unknown"  # loopback passes no firewall


def test_the_catalogue_knows_sizes_when_exo_does_not():
    need = model_need("Llama 3.3 70B", ())
    assert 35e9 < need.total_bytes < 45e9
    assert "catalogue" in need.source
    unknown = model_need("Lama 3.3 70B", ())
    assert unknown.total_bytes is None
    assert "did you mean" in unknown.source


def test_an_exo_that_lists_junk_is_no_source():
    with server(pages(head_pages(**{"/models": b"HTTP/1.1 200 OK\r\n\r\n[1]"}))) as port:
        need = model_need("Llama 3.3 70B", (Probe("127.0.0.1", port, "exo"),))
    assert "catalogue" in need.source


def test_the_route_to_loopback_is_loopback():
    assert route_interface("127.0.0.1", HERE) == "lo"
    assert route_interface("not an address", HERE) == ""


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr("live.discover.look.Sources", lambda: QUIET)
    monkeypatch.setattr(discover, "__defaults__", (Options(), QUIET))
    monkeypatch.delenv("LANSIM_TOKEN", raising=False)
    app = typer.Typer()
    for command in (live_net_cmd.discover, live_net_cmd.doctor, live_net_cmd.agent, live_net_cmd.links):
        app.command()(command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_discover_prints_one_json_document(run):
    with server(pages(head_pages())) as port:
        result = run("discover", "--host", f"127.0.0.1:{port}", "--json", "--seconds", "0.1", "--expect", "3")
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["devices"]) == 3


def test_discover_expect_4_says_what_is_missing(run):
    with server(pages(legacy_pages())) as port:
        result = run(
            "discover",
            "--host",
            f"127.0.0.1:{port}",
            "--host",
            "127.0.0.1:1",
            "--seconds",
            "0.1",
            "--expect",
            "4",
        )
    assert result.exit_code == 1
    shown = " ".join(result.stdout.split())
    assert "3 devices" in shown
    assert "found 3 of 4 devices, 1 missing" in shown
    assert "missing: 127.0.0.1:1 (refused" in shown
    assert "bravo" in shown


def test_doctor_exits_1_for_a_problem(run):
    result = run("doctor", "--host", "127.0.0.1:1", "--seconds", "0.1", "--json")
    assert result.exit_code == 1
    whats = [finding["what"] for finding in json.loads(result.stdout)["findings"]]
    assert "EXO does not run on 127.0.0.1" in whats


def test_doctor_without_a_token_does_not_ask_and_claims_nothing(run):
    result = run("doctor", "--agents", "127.0.0.1:9", "--seconds", "0.1", "--json")
    assert result.exit_code == 1
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings["the agents at 127.0.0.1:9 could not be asked"]["value"] == "no token was given"
    assert "LANSIM_TOKEN" in findings["the agents at 127.0.0.1:9 could not be asked"]["way_out"]
    assert not any("by mDNS" in what or "agents answer" in what for what in findings)


def test_discover_of_an_empty_network_says_why_and_exits_0(run):
    result = run("discover", "--seconds", "0.1")
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    for words in (
        "0 devices",
        "likely cause: EXO and our agent run on none",
        "way out: start EXO",
        "--host",
        "--sweep",
    ):
        assert words in shown
    assert json.loads(run("discover", "--seconds", "0.1", "--json").stdout)["missing"]


def test_links_without_agents_names_the_option_and_the_command(run, monkeypatch):
    monkeypatch.setattr("live.discover.mdns.browse", lambda seconds: Announced())
    result = run("links")
    assert isinstance(result.exception, LiveError)
    for words in ("0 agents answer; a link needs two", "--agents", "sim live agent", "LANSIM_TOKEN", "mDNS"):
        assert words in str(result.exception)


def test_links_from_the_command_line(run, tmp_path):
    out = tmp_path / "links.jsonl"
    with Agent(Settings("a", TOKEN, "127.0.0.2")) as a, Agent(Settings("b", TOKEN, "127.0.0.3")) as b:
        agents = ",".join(f"{host}:{port}" for host, port in (a.address, b.address))
        result = run(
            "links",
            "--agents",
            agents,
            "--token",
            TOKEN,
            "--seconds",
            "0.1",
            "--no-loaded",
            "--no-speed",
            "--out",
            str(out),
            "--json",
        )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {(row["source"], row["sink"]) for row in document["links"]} == {("a", "b"), ("b", "a")}
    assert out.exists()


def test_faults_of_the_commands_are_errors_of_the_tree(run, tmp_path):
    for arguments in (
        ["discover", "--host", "a b"],
        ["links", "--agents", "127.0.0.1:1", "--token", TOKEN],
        ["links", "--agents", "a:b", "--token", TOKEN],
        ["agent", "--token", "short", "--no-announce"],
        ["discover", "--namespace", "x" * 70, "--seconds", "0.1"],
    ):
        result = run(*arguments)
        assert isinstance(result.exception, LiveError), (arguments, result.exception)


def test_probe_all_of_nothing():
    assert probe_all([], probe) == ()


def test_an_agent_that_announces_itself_is_asked_with_the_token():
    with Agent(Settings("phone", TOKEN)) as agent:
        where = f"127.0.0.1:{agent.address[1]}"
        row = FoundDevice(name="phone", generation=AGENT, agent=where, addresses=("127.0.0.1",))
        heard = replace(QUIET, announced=lambda _: Announced((row,)))
        options = Options(this_machine=False)
        told = gather(options, (), TOKEN, "", lambda asked: discover(asked, heard), lambda: HERE)
        untold = gather(options, (), "", "", lambda asked: discover(asked, heard), lambda: HERE)
    assert [facts.name for facts in told.facts] == ["here", "phone"]
    assert told.answering_agents == (("127.0.0.1", agent.address[1]),)
    assert [facts.name for facts in untold.facts] == ["here"]
