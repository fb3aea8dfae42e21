"""`sim live watch`: a running cluster on the terminal, beside what was predicted for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.errors import LiveError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from live.watch.follow import Followed
    from live.watch.sources import Look, View
    from simulator.result.estimate import Estimate
    from simulator.scenario import Scenario

__all__ = ["look_at", "watch"]


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the scenario is predicted to do."""

    rate: Estimate
    slowest_hop: str


def watch(
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster", help="exo://host:52415[,...], openai://host:port or llama-rpc://host:port,..."
        ),
    ],
    follow: Annotated[
        Path | None, typer.Option(help="The file that `sim live run` writes now: gives tokens/s.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="What is predicted for it; else the scenario in the followed file.")
    ] = None,
    every: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Seconds between looks.")] = 2.0,
    looks: Annotated[int | None, typer.Option(min=1, help="Stop after so many looks.")] = None,
    plain: Annotated[bool, typer.Option(help="Plain lines, as where the output is no terminal.")] = False,
) -> None:
    """Watch a cluster: devices, layers, tokens/s beside what is predicted; one request a second at most."""
    from live.watch.follow import Followed
    from live.watch.pace import watch as watch_cluster
    from simulator.library import load

    look = look_at(cluster)
    followed = Followed(follow) if follow else None
    if followed:
        followed.read()
    wanted = load(scenario) if scenario else (followed.scenario if followed else None)
    expected = _expected(wanted) if wanted else None
    try:
        with _screen(plain or not sys.stdout.isatty()) as show:
            watch_cluster(
                look, lambda view: show(_lines(view, followed, expected)), every_s=every, looks=looks
            )
    except KeyboardInterrupt:
        # the ordinary way to end it
        print("watching ended; nothing was changed on the cluster", file=sys.stderr)


def look_at(cluster: str) -> Look:
    """What looks at that kind of cluster; raises LiveError for an address of none."""
    from live.openai.address import is_openai, server_url
    from live.url import base_urls
    from live.watch.sources import exo_look, rpc_look, server_look
    from sim.live_local_cmd import RPC_SCHEME, endpoints_of

    if is_openai(cluster):
        return server_look(server_url(cluster))
    if cluster.startswith(RPC_SCHEME):
        return rpc_look(endpoints_of(cluster))
    if cluster.startswith("exo://"):
        return exo_look(base_urls(cluster))
    raise LiveError(
        f"--cluster is {cluster!r}; write exo://host:52415, openai://host:port or {RPC_SCHEME}host:port,... "
        "(a cluster of this machine ends with its run, and legacy EXO tells no layers: neither is watched)"
    )


def _expected(scenario: Scenario) -> _Expected:
    """The prediction in two figures: tokens/s of one chat, and the hop that takes most of a token's time."""
    from simulator.run.predict import predict

    found = predict(scenario, with_what_ifs=False)
    hops = [one for one in found.shares if one.kind == "hop"]
    slowest = max(hops, key=lambda one: one.seconds_per_token, default=None)
    told = f"{slowest.where}, {1e3 * slowest.seconds_per_token:.3g} ms per token" if slowest else "none"
    return _Expected(found.summary.tokens_per_s, told)


def _lines(view: View, followed: Followed | None, expected: _Expected | None) -> list[tuple[str, str]]:
    """(style, text) of everything there is to say; alarms last, where the eye is."""
    from simulator.units import format_bytes

    found = [("bold", f"model {', '.join(view.models) or 'none'}")]
    for row in view.devices:
        free = f", {format_bytes(row.free_bytes)} free" if row.free_bytes is not None else ""
        chip = f" ({row.chip})" if row.chip else ""
        found.append(("", f"  {row.name}{chip}: layers {row.layers}, {row.status}{free}"))
    found += [("dim", note) for note in view.notes]
    alarms = list(view.alarms)
    if followed is not None:
        text, alarm = _rate(followed, expected)
        found.append(("", text))
        alarms += alarm
    elif expected is not None:
        found.append(
            ("", f"predicted {expected.rate.text('tokens/s')}; tokens/s are read from --follow FILE")
        )
    if expected is not None:
        found.append(("dim", f"slowest hop (predicted): {expected.slowest_hop}"))
    return found + [("bold red", f"ALARM: {alarm}") for alarm in alarms]


def _rate(followed: Followed, expected: _Expected | None) -> tuple[str, list[str]]:
    """Measured beside predicted, and the alarm when reality leaves the interval."""
    from live.watch.follow import ENOUGH

    followed.read()
    rate = followed.rate
    over = " (the measurement is over)" if followed.has_ended else ""
    if rate is None:
        return f"no tokens yet{over}", []
    text = f"measured {rate:.3g} tokens/s over {followed.tokens} tokens{over}"
    if expected is None:
        return text, []
    low, high = expected.rate.p05, expected.rate.p95
    text += f", predicted {expected.rate.text('tokens/s')}"
    if followed.tokens < ENOUGH or low <= rate <= high:
        return text, []
    side = "slower than" if rate < low else "faster than"
    return text, [f"{rate:.3g} tokens/s is {side} the predicted interval of {low:.3g} to {high:.3g}"]


@contextmanager
def _screen(is_plain: bool) -> Iterator[Callable[[list[tuple[str, str]]], None]]:
    """Shows lists of lines: one below the other, or in place on a terminal."""
    if is_plain:
        yield lambda lines: print("\n".join(text for _, text in lines), end="\n\n", flush=True)
        return
    from rich.live import Live
    from rich.text import Text

    from sim.console import console_here

    with Live(console=console_here(), auto_refresh=False, redirect_stdout=False) as screen:

        def show(lines: list[tuple[str, str]]) -> None:
            # Text and not markup: a name in brackets is a name
            shown: RenderableType = Text("\n").join(Text(text, style) for style, text in lines)
            screen.update(shown, refresh=True)

        yield show
