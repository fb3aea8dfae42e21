"""`sim live dropout`: pull the plug in the middle of a reply, and see how long until the next token."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.json_output import Json, print_json
from sim.live_result import interruptible
from sim.run_cmd import ScenarioFile, load_scenario

if TYPE_CHECKING:
    from live.exo.dropout import ExoDropped
    from live.exo_legacy.dropout import LegacyDropped
    from live.local.breaking import Mode
    from live.local.dropout import Dropped, InjectedFault
    from live.local.petals.dropout import SwarmDropped, SwarmLoss
    from simulator.scenario import Scenario

__all__ = ["dropout"]


def dropout(
    scenario: ScenarioFile,
    kill: Annotated[
        list[str],
        typer.Option(
            "--kill", help="Device to take away; several go together, DEVICE+SECONDS that much later."
        ),
    ],
    at_token: Annotated[int, typer.Option("--at-token", min=2, help="When the reply has so many tokens.")],
    cluster: Annotated[str, typer.Option("--cluster", help="local, or exo://host:52415[,...].")] = "local",
    command: Annotated[
        str | None,
        typer.Option(
            "--command", help="EXO: a shell command that takes the device away; without one you are asked to."
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            help="Local: kill (kill -9, the default), hang (SIGSTOP) or dark (link dead, not closed).",
        ),
    ] = None,
    back_after: Annotated[
        float | None,
        typer.Option(
            "--back-after",
            min=0.0,
            help="Local: the first device starts again so many seconds later; a second reply uses it.",
        ),
    ] = None,
    after_look: Annotated[
        float | None,
        typer.Option(
            "--after-look",
            min=0.0,
            help="Local, a swarm: so many seconds after the client's last look at who is there.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The Measurement to write.")] = Path(
        "dropout.jsonl"
    ),
    exact: Annotated[
        bool, typer.Option(help="Local: read received tokens one by one, for the very same reply.")
    ] = False,
    model_id: Annotated[
        str | None, typer.Option(help="EXO: the cluster's name of the model, when it differs.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="EXO: DEVICE=NODE, where names differ; may be given several times."),
    ] = None,
    allow_busy: Annotated[
        bool, typer.Option(help="EXO: go on although something else uses the cluster.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take devices away in the middle of a reply; the client goes on without them and loses no token."""
    from live.local.dropout import run_dropout
    from live.url import kind_of

    asked = load_scenario(scenario)
    of_exo: dict[str, Any] = {"model_id": model_id, "device": device, "allow_busy": allow_busy}
    if kind_of(cluster) in ("exo", "exo-legacy"):
        _require_default({"--mode": mode, "--back-after": back_after, "--exact": exact or None}, cluster)
        with interruptible(lambda: [out]):
            _tell(_exo(asked, cluster, kill, at_token, out, command, **of_exo), [], as_json=as_json)
        return
    _require_local(cluster, command)
    _require_default(
        {f"--{name.replace('_', '-')}": value or None for name, value in of_exo.items()}, cluster
    )
    if cluster == "local" and _is_swarm(asked):
        _require_default({"--exact": exact or None}, "local")
        _tell_swarm(_swarm(asked, kill, at_token, mode, back_after, after_look, out), as_json=as_json)
        return
    _require_default({"--after-look": after_look}, "local, whose client looks at nobody by itself")
    faults = [
        _fault(text, at_token, _mode(mode or "kill"), back_after if number == 0 else None)
        for number, text in enumerate(kill)
    ]
    with interruptible(lambda: [out]):
        # a second reply shows what the return is worth
        done = run_dropout(asked, faults, out, _say, exact=exact, replies=1 if back_after is None else 2)
    _tell(done, faults, as_json=as_json)


def _require_default(unfit: dict[str, Any], cluster: str) -> None:
    """Raise LiveError for options that were given and do nothing on such a cluster."""
    from simulator.errors import LiveError

    given = [name for name, value in unfit.items() if value is not None]
    if given:
        kind = cluster.partition("://")[0]
        way = " (the device goes as --command takes it away, and comes back when you start it)"
        raise LiveError(
            f"{', '.join(given)}: means nothing for --cluster {kind}"
            f"{'' if kind == 'local' else way}; leave it out"
        )


def _exo(
    scenario: Scenario,
    cluster: str,
    kill: list[str],
    at_token: int,
    out: Path,
    command: str | None,
    *,
    model_id: str | None,
    device: list[str] | None,
    allow_busy: bool,
) -> ExoDropped | LegacyDropped:
    """One device of an EXO cluster, taken away by hand or by the user's command; raises
    LiveError for more than that.
    """
    from live.exo.dropout import exo_dropout
    from live.exo_legacy.dropout import legacy_dropout
    from live.measure import MeasureOptions
    from live.url import base_urls, is_legacy
    from sim.live_exo_cmd import parse_pairs
    from simulator.errors import LiveError

    if len(kill) != 1 or "+" in kill[0]:
        raise LiveError(
            f"--kill is {', '.join(kill)}; on an EXO cluster one device goes at a time: give one name"
        )
    options = MeasureOptions(
        model_id=model_id, device_map=parse_pairs(device or [], "--device"), allow_busy=allow_busy
    )
    drop = legacy_dropout if is_legacy(cluster) else exo_dropout
    return drop(
        scenario, base_urls(cluster), kill[0], at_token, out, command=command, say=_say, options=options
    )


def _is_swarm(scenario: Scenario) -> bool:
    from simulator.engine.base import engine

    return engine(scenario.engine.name).forms_swarm


def _swarm(
    scenario: Scenario,
    kill: list[str],
    at_token: int,
    mode: str | None,
    back_after_s: float | None,
    after_look_s: float | None,
    out: Path,
) -> SwarmDropped:
    """One server of a local swarm; its client mends itself, or does not."""
    from live.local.petals.dropout import SwarmLoss, run_loss
    from simulator.errors import LiveError

    if len(kill) != 1 or "+" in kill[0]:
        raise LiveError(f"--kill is {', '.join(kill)}; of a swarm one server goes at a time: give one name")
    loss = SwarmLoss(kill[0], at_token, _mode(mode or "kill"), after_look_s, back_after_s)
    with interruptible(lambda: [out]):
        return run_loss(scenario, loss, out, _say)


def _tell_swarm(done: SwarmDropped, *, as_json: bool) -> None:
    told = done.predicted
    if as_json:
        print_json(
            _document(done, [done.loss]) | {"attempts": done.attempts, "predicted": told and asdict(told)}
        )
        return
    if told is not None:
        shares = ", ".join(f"{number} in {share:.0%}" for number, share in told.attempts.items())
        within = (
            told.recovery_s
            and f", {told.recovery_s[1]:.2f} [{told.recovery_s[0]:.2f}, {told.recovery_s[2]:.2f}] s"
        )
        print(f"predicted: attempts {shares} of the cases{within or ''} (-1: it never goes on)")
    print(f"measured: attempts {done.attempts}")
    _print(done, "none came behind the loss: the client's way to mend it never works")


def _require_local(cluster: str, command: str | None) -> None:
    """Raise LiveError for clusters whose devices cannot be taken away from here."""
    from simulator.errors import LiveError

    if cluster != "local":
        raise LiveError(
            f"--cluster is {cluster!r}; write local, exo://host:52415 or exo-legacy://host:52415. On a "
            "remote llama.cpp cluster nobody here can pull the plug: start `sim live run` there and pull it "
            "yourself, the reply goes on and the phases are in the measurement"
        )
    if command is not None:
        raise LiveError(
            f"--command is {command!r}, and on the local cluster devices are taken away without one; leave "
            "it out, or choose how with --mode"
        )


def _fault(text: str, at_token: int, mode: Mode, back_after_s: float | None) -> InjectedFault:
    """`phone`, or `phone+0.8`: that many seconds after the token; raises LiveError for what is no number."""
    from live.local.dropout import InjectedFault
    from simulator.errors import LiveError

    device, _, later = text.partition("+")
    try:
        later_s = float(later or 0)
    except ValueError:
        later_s = -1.0
    if not 0 <= later_s < 3600:
        raise LiveError(f"--kill is {text!r}; write DEVICE or DEVICE+SECONDS, for example {device}+0.8")
    return InjectedFault(device, at_token, mode, later_s, back_after_s)


def _mode(text: str) -> Mode:
    """The way in which a device goes; raises LiveError for one that nobody knows."""
    from live.local.breaking import MODES
    from simulator.errors import LiveError, did_you_mean

    for mode in MODES:
        if mode == text:
            return mode
    raise LiveError(f"--mode is {text!r}{did_you_mean(text, MODES)}; write one of {', '.join(MODES)}")


def _tell(done: Dropped | ExoDropped | LegacyDropped, faults: list[InjectedFault], *, as_json: bool) -> None:
    if as_json:
        print_json(_document(done, faults))
    else:
        _print(done)


def _rates(done: Dropped | ExoDropped | LegacyDropped | SwarmDropped) -> dict[str, float | None]:
    """Tokens/s before, after, and of a second reply."""
    return {"before": done.before, "after": done.after, "next_reply": getattr(done, "next", None)}


def _document(
    done: Dropped | ExoDropped | LegacyDropped | SwarmDropped, faults: Sequence[InjectedFault | SwarmLoss]
) -> dict[str, Any]:
    return {
        "measurement": str(done.path),
        "tokens": len(done.tokens),
        "faults": [asdict(fault) for fault in faults],
        "recoveries": [
            {
                "devices": list(one.devices),
                "token": one.token,
                "planned": one.is_planned,
                "recovery_s": one.seconds,
                "phases_s": one.phases_s(),
                "layers": one.layers,
            }
            for one in done.recoveries
        ],
        "tokens_per_s": _rates(done),
    }


def _print(
    done: Dropped | ExoDropped | LegacyDropped | SwarmDropped,
    lost: str = "lost with their reply: legacy EXO takes none up again",
) -> None:
    """The answer for a terminal."""
    for one in done.recoveries:
        names = ", ".join(one.devices)
        print(
            f"{names} taken in before a reply: its first token came {one.seconds:.2f} s after the request"
            if one.is_planned
            else f"without {names} after token {one.token}: the next one came {one.seconds:.2f} s later"
        )
        for name, spent_s in one.phases_s().items():
            print(f"  {name:8} {spent_s:.3f} s")
    for name, rate in _rates(done).items():
        if rate is not None:
            print(f"{name:10} {rate:.2f} tokens/s")
    kept = "none lost or doubled"
    if not getattr(done, "is_mended", True):
        kept = lost
    print(f"{len(done.tokens)} tokens, {kept}; {done.path}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
