"""`sim live discover`, `doctor`, `agent` and `links`: the network under a cluster."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sim.json_output import Json, print_json

__all__ = ["agent", "discover", "doctor", "links"]

PIPE_WIDTH = 240

Hosts = Annotated[
    list[str] | None, typer.Option("--host", help="host or host:port of an EXO node; may be repeated")
]
Seconds = Annotated[float, typer.Option("--seconds", min=0.1, max=600, help="how long to listen")]
Namespace = Annotated[
    list[str] | None, typer.Option("--namespace", help="EXO's namespace, if it is not the default")
]
Sweep = Annotated[
    str, typer.Option("--sweep", help="ask every address of this network, for example 192.168.1.0/24")
]
Token = Annotated[str, typer.Option("--token", envvar="LANSIM_TOKEN", help="pairing token of the agents")]
Agents = Annotated[str, typer.Option("--agents", help="host:port of each agent, with commas between")]


def discover(
    host: Hosts = None,
    expect: Annotated[
        int | None, typer.Option("--expect", min=1, help="exit 1 if fewer devices are found")
    ] = None,
    seconds: Seconds = 4.0,
    namespace: Namespace = None,
    sweep: Sweep = "",
    token: Token = "",
    as_json: Json = False,
) -> None:
    """Show who is on this network: EXO of both generations, our agents, and the hosts that you name."""
    from live.discover import discover as look
    from live.discover import table
    from live.discover.look import networks_here

    options = _options(host, seconds, namespace, sweep, token)
    discovery = look(options)
    # asking hundreds of addresses is for the user to decide, so it is offered and not done
    networks = () if options.hosts or sweep else networks_here()
    complaints = table.missing(discovery, expect, options.hosts, networks) if expect else []
    # An empty table needs its causes too, but only a number that was expected makes it a failure.
    advice = complaints or table.nothing(discovery, options.hosts, networks)
    if as_json:
        print_json(table.as_json(discovery, advice))
    else:
        _print(table.render(discovery, advice))
    if complaints:
        raise typer.Exit(1)


def doctor(
    host: Hosts = None,
    model: Annotated[
        str, typer.Option("--model", help="model that is to fit, as the catalogue or EXO names it")
    ] = "",
    agents: Agents = "",
    token: Token = "",
    strict: Annotated[bool, typer.Option("--strict", help="exit 1 for warnings too")] = False,
    seconds: Seconds = 4.0,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with this network and the way out; exit 1 if anything is a problem."""
    from live.doctor import examine, exit_code, gather
    from live.doctor.run import as_json as findings_json
    from live.doctor.run import render

    seen = gather(_options(host, seconds, namespace, "", token), _addresses(agents), token, model)
    findings = examine(seen)
    if as_json:
        print_json(findings_json(findings))
    else:
        _print(render(findings))
    raise typer.Exit(exit_code(findings, strict=strict))


def agent(
    listen: Annotated[
        str, typer.Option("--listen", help="address of this device to listen on")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 52425,
    name: Annotated[str, typer.Option("--name", help="how the others see this device")] = "",
    token: Token = "",
    token_file: Annotated[Path | None, typer.Option("--token-file", help="file that holds the token")] = None,
    model_file: Annotated[
        Path | None, typer.Option("--model-file", help="file whose reading may be timed")
    ] = None,
    announce: Annotated[bool, typer.Option(help="announce this agent by mDNS")] = True,
) -> None:
    """Run the agent on this device: it measures the device and its links when
    asked with the pairing token.
    """
    from live.agent.__main__ import run, token_from
    from live.agent.pairing import WireError
    from live.agent.server import Settings
    from simulator.errors import LiveError

    try:
        shown = name or platform.node() or "unnamed"
        run(Settings(shown, token_from(token, token_file), listen, port, model_file), announce=announce)
    except WireError as error:
        raise LiveError(str(error)) from error


def links(
    agents: Agents = "",
    token: Token = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="measurement file; default links-TIME.jsonl")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.05, max=3600, help="per link, size and load")
    ] = 5.0,
    size: Annotated[
        list[int] | None, typer.Option("--size", help="message size in bytes; may be repeated")
    ] = None,
    interval_ms: Annotated[
        float, typer.Option("--interval-ms", min=0, help="pause between round trips")
    ] = 10.0,
    loaded: Annotated[bool, typer.Option(help="measure again while the link is full")] = True,
    speed: Annotated[bool, typer.Option(help="let each device measure its memory and disk first")] = True,
    as_json: Json = False,
) -> None:
    """Let the agents measure the links between them, show the matrix, and store the
    samples for the calibration.
    """
    from datetime import datetime

    from live.agent import matrix
    from live.agent.links import LinkTestPlan, measure_links

    plan = LinkTestPlan(
        tuple(size or (4, 16_384)),
        seconds,
        interval_ms / 1e3,
        loaded,
        min(2.0, seconds),
        2.0 if speed else 0.0,
    )
    target = out or Path(f"links-{datetime.now().astimezone():%Y%m%dT%H%M%S}.jsonl")
    found = measure_links(_addresses(agents) or _announced(), token, plan, target, _progress)
    if as_json:
        print_json({**matrix.as_json(found), "file": str(target)})
    else:
        _print(matrix.render(found))
        sys.stdout.write(f"samples in {target}\n")


def _options(
    host: list[str] | None, seconds: float, namespace: list[str] | None, sweep: str, token: str
) -> Any:
    from live.discover import Options
    from live.discover.look import read_host

    defaults = Options()
    hosts = tuple(read_host(text) for text in host or ())
    return Options(hosts, seconds, tuple(namespace or defaults.namespaces), sweep, token=token)


def _addresses(agents: str) -> list[tuple[str, int]]:
    from live.agent.peers import read_address
    from live.agent.wire import DEFAULT_PORT

    return [read_address(part.strip(), DEFAULT_PORT) for part in agents.split(",") if part.strip()]


def _announced() -> list[tuple[str, int]]:
    """Without --agents: all agents that announce themselves."""
    from live.agent.peers import read_address
    from live.agent.wire import DEFAULT_PORT
    from live.discover.mdns import browse

    return [read_address(found.agent, DEFAULT_PORT) for found in browse(3.0).agents]


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _print(renderable: Any) -> None:
    from sim.console import console_here

    # a pipe has no width: nothing is to be cut off there
    console_here(pipe_width=PIPE_WIDTH).print(renderable)
