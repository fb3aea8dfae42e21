"""`sim live dropout`: pull the plug in the middle of a reply, and see how long until the next token."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.run_cmd import ScenarioFile, load_scenario

if TYPE_CHECKING:
    from live.local.breaking import Mode
    from live.local.dropout import Dropped, Fault

__all__ = ["dropout"]


def dropout(
    scenario: ScenarioFile,
    kill: Annotated[list[str], typer.Option("--kill", help="Device to take away; several go together.")],
    at_token: Annotated[int, typer.Option("--at-token", min=2, help="When the reply has so many tokens.")],
    cluster: Annotated[str, typer.Option("--cluster", help="local: processes of this machine.")] = "local",
    mode: Annotated[str, typer.Option("--mode", help="kill (kill -9), hang (SIGSTOP) or dark (link dead, not closed).")] = "kill",
    out: Annotated[Path, typer.Option("-o", "--out", help="The Measurement to write.")] = Path("dropout.jsonl"),
    exact: Annotated[bool, typer.Option(help="Read received tokens one by one, for the very same reply.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Take devices away in the middle of a reply; the client goes on without them and loses no token."""
    from live.local.dropout import Fault, run_dropout

    _require_local(cluster)
    faults = [Fault(device, at_token, _mode(mode)) for device in kill]
    done = run_dropout(load_scenario(scenario), faults, out, _say, exact=exact)
    if as_json:
        print(json.dumps(_document(done, faults), indent=2))
    else:
        _print(done)


def _require_local(cluster: str) -> None:
    """Raise LiveError for clusters whose devices cannot be taken away yet."""
    from simulator.errors import LiveError

    if cluster != "local":
        raise LiveError(f"--cluster is {cluster!r}, and so far only `local` can lose devices: on an EXO or a remote llama.cpp "
                        "cluster nobody here pulls the plug yet; predict it with `sim dropout`, or measure with "
                        "--cluster local")


def _mode(text: str) -> Mode:
    """The way in which a device goes; raises LiveError for one that nobody knows."""
    from live.local.breaking import MODES
    from simulator.errors import LiveError, did_you_mean

    for mode in MODES:
        if mode == text:
            return mode
    raise LiveError(f"--mode is {text!r}{did_you_mean(text, MODES)}; write one of {', '.join(MODES)}")


def _document(done: Dropped, faults: list[Fault]) -> dict[str, Any]:
    return {
        "measurement": str(done.path), "tokens": len(done.tokens),
        "faults": [{"device": fault.device, "at_token": fault.at_token, "mode": fault.mode} for fault in faults],
        "recoveries": [{"devices": list(one.devices), "token": one.token, "recovery_s": one.seconds,
                        "phases_s": one.phases_s(), "layers": one.layers} for one in done.recoveries],
        "tokens_per_s": {"before": done.before, "after": done.after},
    }


def _print(done: Dropped) -> None:
    """The answer for a terminal."""
    for one in done.recoveries:
        print(f"without {', '.join(one.devices)} after token {one.token}: the next one came {one.seconds:.2f} s later")
        for name, spent_s in one.phases_s().items():
            print(f"  {name:8} {spent_s:.3f} s")
    for name, rate in (("before", done.before), ("after", done.after)):
        if rate is not None:
            print(f"{name:6} {rate:.2f} tokens/s")
    print(f"{len(done.tokens)} tokens, none lost or doubled; {done.path}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
