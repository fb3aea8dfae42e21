"""`sim`: the command line. Commands live in their own files; each imports what it needs when it is called."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from sim import (
    calibrate_cmd,
    catalog_cmd,
    delays_cmd,
    dropout_cmd,
    explore_cmd,
    live_cmd,
    place_cmd,
    plan_cmd,
    run_cmd,
    sensitivity_cmd,
    swarm_cmd,
    sweep_cmd,
)
from sim.terminal import civil_streams, os_error, shortened
from sim.work import agree, limited_work
from simulator.errors import SimulatorError
from simulator.files.inert import visible
from simulator.files.ours import keeping_others

__all__ = ["app", "main"]

CATALOG = "SIM_CATALOG"  # as simulator.own reads it, whose import takes longer than `sim --help` may

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # a fault of ours should look like one; what users can mend never gets there (`main`)
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Predict and measure how fast a large language model decodes across the devices of one LAN.",
)


@app.callback()
def common(
    catalog: Annotated[
        list[Path] | None,
        typer.Option(help="A catalogue of your own beside the usual one; repeatable, anywhere in the line."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that sim did not write, or that were edited.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it, however long it takes.")] = False,
) -> None:
    """Predict and measure how fast a large language model decodes across the devices of one LAN."""
    for file in catalog or ():
        # here, as not every command looks into it: one that is not there is a slip of the pen all the same
        if not file.is_file():
            raise SimulatorError(f"{file}: there is no such file, and --catalog names it")
    if yes:
        agree()
    if force:
        from simulator.files.ours import replace_others

        replace_others()
    if catalog:
        os.environ[CATALOG] = os.pathsep.join(map(str, catalog))


app.command("run")(run_cmd.run)
app.command("compare")(run_cmd.compare)
app.command("schema")(run_cmd.schema)
app.command("init")(run_cmd.init)
app.command("dropout")(dropout_cmd.dropout)
app.command("evening")(dropout_cmd.evening)
app.command("place")(place_cmd.place)
app.command("plan")(plan_cmd.plan)
app.command("cost")(plan_cmd.cost)
app.command("explore")(explore_cmd.explore)
app.command("sensitivity")(sensitivity_cmd.sensitivity)
app.command("sweep")(sweep_cmd.sweep)
app.command("load")(sweep_cmd.load)
app.command("swarm")(swarm_cmd.swarm)
app.command("calibrate")(calibrate_cmd.calibrate)
app.command("predict")(calibrate_cmd.predict)
app.command("ledger")(calibrate_cmd.ledger)
app.command("delays")(delays_cmd.delays)
app.command("summary")(live_cmd.summary)
app.add_typer(live_cmd.app, name="live")
app.add_typer(calibrate_cmd.validate_app, name="validate")
app.add_typer(
    catalog_cmd.app, name="catalog", help="List the devices, models, networks and engines that are known."
)


def main() -> None:
    """Run the command line; every error that a user can mend ends in one message and an exit code."""
    try:
        with civil_streams(), keeping_others(), limited_work():
            try:
                app(_common_first(sys.argv[1:]))
            except OSError as error:  # nobody who knew the place has put it in better words
                raise SimulatorError(os_error(error)) from error
            except SystemExit as end:
                # typer makes of Ctrl-C an exit without a word; who has told what was kept ends otherwise
                if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
                    print("interrupted: what was not finished is not kept", file=sys.stderr)
                raise
    except SimulatorError as error:
        _tell(error)
        sys.exit(error.exit_code)


def _tell(error: SimulatorError) -> None:
    """Say on standard error what was wrong, and what besides, such as an instance that was not deleted."""
    text = "".join(f"also: {note}\n" for note in getattr(error, "__notes__", ()))
    with suppress(OSError, ValueError):  # a standard error that takes nothing: the exit code says it
        sys.stderr.write(visible(f"error: {shortened(str(error))}\n{text}"))
        sys.stderr.flush()


def _common_first(words: list[str]) -> list[str]:
    """The command line with `--catalog FILE`, `--force` and `--yes` in front, where typer looks for them.

    >>> _common_first(["run", "four_devices", "--catalog", "mine.yaml", "--json"])
    ['--catalog', 'mine.yaml', 'run', 'four_devices', '--json']
    """
    front: list[str] = []
    rest = iter(words)
    kept = []
    for word in rest:
        if word == "--":
            kept += [word, *rest]
        elif word == "--catalog":
            front += [word, *islice(rest, 1)]
        elif word in ("--force", "--yes") or word.startswith("--catalog="):
            front.append(word)
        else:
            kept.append(word)
    return front + kept


if __name__ == "__main__":
    main()
