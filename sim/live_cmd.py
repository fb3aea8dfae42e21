"""`sim live`: everything that touches a real cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sim import live_dropout_cmd, live_local_cmd, live_net_cmd, live_watch_cmd
from sim.json_output import Json, print_json
from sim.run_cmd import ScenarioFile, load_scenario

__all__ = ["app", "design", "run", "scenario", "summary"]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Find, check, measure and describe a real cluster."
)
app.add_typer(
    live_local_cmd.app, name="local", help="A real cluster on this machine: llama.cpp, MLX or Petals."
)
app.command("dropout")(live_dropout_cmd.dropout)
app.command("discover")(live_net_cmd.discover)
app.command("doctor")(live_net_cmd.doctor)
app.command("agent")(live_net_cmd.agent)
app.command("links")(live_net_cmd.links)
app.command("watch")(live_watch_cmd.watch)

Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        help="local, exo://host:52415[,...], exo-legacy://host:52415, llama-rpc://host:port,..., "
        "petals://MULTIADDRESS[,...] or openai://host:port[/path]",
    ),
]
CLUSTERS = {"exo": "exo://HOST:52415", "exo-legacy": "exo-legacy://HOST:52415"}
"""What to write for a cluster of that engine; others are measured on this machine."""
Pairs = Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be given several times.")]


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@app.command("run")
def run(
    scenarios: Annotated[
        list[Path],
        typer.Argument(help="Scenario files or names; several are measured in turn, there and back."),
    ],
    cluster: Cluster,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the measurements, or a .jsonl file.")
    ] = Path(),
    rounds: Annotated[
        int | None, typer.Option(min=1, max=100, help="Visits to each scenario (local, EXO).")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Keep the raw HTTP exchange, secrets removed (EXO, openai).")
    ] = None,
    model_id: Annotated[
        str | None, typer.Option(help="The cluster's name of the model, when it differs.")
    ] = None,
    device: Pairs = None,
    power: Pairs = None,
    allow_busy: Annotated[
        bool, typer.Option(help="Measure although something else uses the cluster (EXO).")
    ] = False,
    reuse_instance: Annotated[
        bool, typer.Option(help="Measure the instance that is already there (EXO).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure scenarios on a real cluster; every token is on disk as soon as it arrives.

    Exit code 0 means that all runs that were asked for were measured.
    """
    from live.url import kind_of

    kind = kind_of(cluster)
    placing = {"--device": device, "--allow-busy": allow_busy, "--reuse-instance": reuse_instance}
    if kind in ("local", "llama-rpc", "petals"):
        # said and not passed over: who gives an option believes that it does something
        _refuse(cluster, placing | {"--record": record, "--model-id": model_id, "--power": power})
        live_local_cmd.run(scenarios, out, rounds, cluster, as_json=as_json)
    elif kind in ("exo", "exo-legacy"):
        from sim.live_exo_cmd import live_runs, parse_pairs
        from sim.live_result import conclude

        if kind == "exo-legacy":
            _refuse(cluster, {"--reuse-instance": reuse_instance})
        documents, refused = live_runs(
            scenarios,
            cluster,
            out,
            rounds or 1,
            _say,
            record=record,
            model_id=model_id,
            device_map=parse_pairs(device or [], "--device"),
            power=parse_pairs(power or [], "--power"),
            allow_busy=allow_busy,
            reuse_instance=reuse_instance,
        )
        conclude(documents, as_json=as_json, refused=refused)
    else:
        from sim.live_openai_cmd import run_server

        unfit = {"--rounds": rounds} | placing | {"a second scenario": scenarios[1:]}
        run_server(
            scenarios[0],
            cluster,
            out,
            record=record,
            model_id=model_id,
            power=power or [],
            unfit=[name for name, value in unfit.items() if value],
            say=_say,
            as_json=as_json,
        )


def _refuse(cluster: str, unfit: dict[str, Any]) -> None:
    """Raise LiveError for options that were given and do nothing on such a cluster."""
    from simulator.errors import LiveError

    given = [name for name, value in unfit.items() if value]
    if given:
        raise LiveError(
            f"{', '.join(given)}: means nothing for --cluster {cluster.partition('://')[0]}; leave it out"
        )


@app.command("scenario")
def scenario(
    cluster: Cluster,
    out: Annotated[Path, typer.Option("-o", "--out", help="The scenario file to write.")] = Path("mine.yaml"),
    model_id: Annotated[str | None, typer.Option(help="EXO's name of a model, when none is running.")] = None,
    name: Annotated[str, typer.Option(help="Name of the scenario.")] = "my-cluster",
    as_json: Json = False,
) -> None:
    """Write the running EXO cluster as a scenario, ready for `sim run`."""
    from live.url import kind_of
    from sim.live_exo_cmd import live_scenario

    kind_of(cluster, ("exo", "exo-legacy"))
    found = live_scenario(cluster, out, model_id=model_id, name=name)
    if as_json:
        print_json(found)
        return
    print(f"{found['file']}  {found['model']} on {', '.join(found['devices'])}")
    for note in found["assumed"]:
        print(f"assumed: {note}")


@app.command("design")
def design(
    scenario: ScenarioFile,
    runs: Annotated[int, typer.Option("--runs", min=1, max=60, help="Placements to propose.")] = 8,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the scenarios to measure.")] = Path(
        "plan"
    ),
    measured: Annotated[
        list[Path] | None, typer.Option(help="A measurement that is there already; several times.")
    ] = None,
) -> None:
    """Propose the placements that make the scenario's like best predicted; `sim live run` measures them."""
    from calibrate.design import propose
    from calibrate.fit import fit
    from calibrate.parameters import device_of
    from calibrate.prior import MODEL_ERROR
    from calibrate.samples import sample
    from simulator.files import dump, make_folder
    from simulator.files.ours import refuse_others
    from simulator.result.measurement import read_measurement

    asked = load_scenario(scenario)
    known = [sample(read_measurement(path)) for path in measured or ()]
    model_error = MODEL_ERROR
    # one measurement cannot miss the model
    if len(known) > 1:
        fitted = fit(known, draws=1)
        print("\n".join(filter(None, (fitted.verdict, fitted.believed))))
        model_error = max(model_error, fitted.lack.missed_sd if fitted.lack.is_lacking else 0.0)
    proposals = propose(asked, runs, measured=[one.scenario for one in known], model_error=model_error)
    make_folder(out)
    for stale in out.glob(f"{asked.name}_[0-9][0-9].yaml"):  # of an earlier, longer plan
        refuse_others(out, {stale.name: None})
        stale.unlink()
    for proposal in proposals:
        path = out / f"{proposal.scenario.name}.yaml"
        dump(
            proposal.scenario,
            path,
            header=f"Proposed by `sim live design`: a placement to measure for {asked.name}.",
        )
        split = "/".join(f"{device}{layers}" for device, layers in proposal.layers.items())
        weakest = max(
            proposal.relative_sd.items(), key=lambda item: item[1] if device_of(item[0]) is not None else 0.0
        )
        print(f"{path}  {split}  (least known device then: {device_of(weakest[0])} +- {weakest[1]:.0%})")
    if known:
        print(f"measure next: {proposals[0].scenario.name}, which tells most of what is still open")
    cluster = CLUSTERS.get(asked.engine.name, "local")
    print(f"next: sim live run {out}/{asked.name}_*.yaml --cluster {cluster} -o {out}/measured")
    print(f"then: sim calibrate {out}/measured/*.jsonl")


def summary(
    measurement: Annotated[Path, typer.Argument(help="A measurement file of `sim live run`.")],
    out: Annotated[Path | None, typer.Option(help="Folder for charts.")] = None,
    as_json: Json = False,
) -> None:
    """Summarise a measurement with the same code as a prediction."""
    from sim.report import interval_s
    from simulator.result.measured import measured_summary, write_charts
    from simulator.result.measurement import read_measurement

    found = measured_summary(read_measurement(measurement))
    if out is not None:
        write_charts(found, out)
    if as_json:
        print_json(found.document())
        return
    print(
        f"{found.name}: {found.summary.tokens_per_s.text('tokens/s')} (median [5 %, 95 %] over {found.runs} "
        "runs, measured)"
    )
    print(f"first token {interval_s(found.summary.first_token_s)}")
    print(
        f"inter-token p50 {interval_s(found.summary.inter_token_p50_s)}, p90 "
        f"{interval_s(found.summary.inter_token_p90_s)}, p99 {interval_s(found.summary.inter_token_p99_s)}"
    )
    for warning in found.warnings:
        print(f"doubt: {warning}")
