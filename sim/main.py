"""`sim`: the command line. Commands live in their own files; each imports what it needs when it is called."""

from __future__ import annotations

import sys

import typer

from sim import (
    calibrate_cmd,
    catalog_cmd,
    delays_cmd,
    dropout_cmd,
    live_cmd,
    place_cmd,
    plan_cmd,
    run_cmd,
    sensitivity_cmd,
    sweep_cmd,
)
from simulator.errors import SimulatorError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Predict and measure how fast a large language model decodes across the devices of one LAN.",
)
app.command("run")(run_cmd.run)
app.command("compare")(run_cmd.compare)
app.command("schema")(run_cmd.schema)
app.command("init")(run_cmd.init)
app.command("dropout")(dropout_cmd.dropout)
app.command("evening")(dropout_cmd.evening)
app.command("place")(place_cmd.place)
app.command("plan")(plan_cmd.plan)
app.command("cost")(plan_cmd.cost)
app.command("sensitivity")(sensitivity_cmd.sensitivity)
app.command("sweep")(sweep_cmd.sweep)
app.command("load")(sweep_cmd.load)
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
        app()
    except SimulatorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.exit(0)


if __name__ == "__main__":
    main()
