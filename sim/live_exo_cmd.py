"""`sim live run` and `sim live scenario` for EXO clusters: functions without typer, wired up elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from sim.live_result import document, interruptible, measurement_file
from simulator.errors import LiveError, SimulatorError
from simulator.files import dump
from simulator.library import load
from simulator.scenario import Scenario

__all__ = ["live_run", "live_runs", "live_scenario", "parse_pairs", "progress", "recording"]


def parse_pairs(pairs: list[str], option: str) -> dict[str, str]:
    """`["mac=Ada's MacBook"]` as a mapping; raises LiveError for an entry without '='."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise LiveError(f"{option} {pair!r}: write name=value")
        found[key] = value
    return found


def live_runs(
    paths: Sequence[Path],
    cluster: str,
    out: Path,
    rounds: int,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure scenarios in turn, there and back, `rounds` times; each visit is a file of its own.

    The answers hold what `live_run` gives, and a line for each visit that could not be measured. A single
    visit raises what went wrong; of several, the others are measured all the same, unless the cluster does
    not answer or is in use. `options` are those of `live_run`.
    """
    from live.errors import ClusterBusy, Unreachable

    if out.suffix == ".jsonl" and len(paths) * rounds > 1:
        raise LiveError(
            f"-o is {out}, and {len(paths) * rounds} visits give a file each: give a folder, "
            "as in -o measured"
        )
    # all of them before anything is placed: a slip in the last one must not cost an hour
    for path in paths:
        load(path)
    visits = [path for turn in range(rounds) for path in (paths if turn % 2 == 0 else reversed(paths))]
    documents: list[dict[str, Any]] = []
    refused: list[str] = []
    files: list[Path] = []
    with interruptible(lambda: files):
        for path in visits:
            files.append(measurement_file(out, path))
            try:
                documents.append(live_run(path, cluster, files[-1], say=say, **options))
            except SimulatorError as error:
                if len(visits) == 1:
                    raise
                refused.append(f"{path}: {error}")
                if isinstance(error, ClusterBusy | Unreachable):
                    break
    return documents, refused


def live_run(
    scenario_path: Path,
    cluster: str,
    out: Path,
    *,
    record: Path | None = None,
    model_id: str | None = None,
    device_map: Mapping[str, str] | None = None,
    power: Mapping[str, str] | None = None,
    allow_busy: bool = False,
    reuse_instance: bool = False,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure a scenario on an EXO cluster of either generation; the answer can be printed as JSON.

    Raises SimulatorError; KeyboardInterrupt leaves the file with everything so far.
    """
    from live.exo_legacy.measure import measure_legacy
    from live.measure import MeasureOptions, measure_exo
    from live.url import base_urls, is_legacy

    scenario = load(scenario_path)
    measure = measure_legacy if is_legacy(cluster) else measure_exo
    with ExitStack() as stack:
        transport = stack.enter_context(recording(record)) if record else None
        tell, on_token = stack.enter_context(progress(scenario, say))
        options = MeasureOptions(
            model_id=model_id,
            device_map=device_map or {},
            power=power or {},
            allow_busy=allow_busy,
            reuse_instance=reuse_instance,
            say=tell,
            on_token=on_token,
        )
        result = measure(scenario, base_urls(cluster), out, options, transport=transport)
    return document(result, scenario.workload.runs)


def live_scenario(
    cluster: str, out: Path, *, model_id: str | None = None, name: str = "my-cluster"
) -> dict[str, Any]:
    """Write the running cluster as a scenario to `out`; the answer holds what was assumed.

    The model is that of the one running instance, with its placement, unless `model_id` names one.
    """
    from live.exo.match import match_model
    from live.exo.scenario import scenario_of
    from live.measure import connect
    from live.url import base_urls, is_legacy

    if is_legacy(cluster):
        raise LiveError(
            f"{cluster}: legacy EXO tells neither its model nor its links, so no scenario can be made of it; "
            "write one with `engine: exo-legacy`, its devices named like the nodes, for `sim live run`"
        )
    client, state = connect(base_urls(cluster))
    running = [one for one in state.instances.values() if model_id in (None, one.model_id)]
    if model_id is None and len(running) != 1:
        found = ", ".join(one.model_id for one in running) or "none"
        raise LiveError(
            f"say --model-id ID: a scenario needs one model, and the instances running are: {found}"
        )
    instance = running[0] if running else None
    card: Mapping[str, Any] = (
        instance.card
        if instance
        else client.template(match_model(model_id or "", None, client.models())).card
    )
    scenario, notes = scenario_of(state, card, name=name, instance=instance)
    dump(scenario, out, f"{scenario.question}\nWritten by `sim live scenario`.\n" + "\n".join(notes))
    return {
        "file": str(out),
        "devices": list(scenario.devices),
        "model": scenario.model.name,
        "assumed": list(notes),
    }


def recording(path: Path, inner: Any = None) -> Any:
    """A transport that keeps the raw exchange of `inner` (the network) in `path`, until the block ends."""
    from contextlib import contextmanager

    from live.http import Http
    from live.record import ExchangeRecorder, RecordingTransport

    @contextmanager
    def opened() -> Any:
        recorder = ExchangeRecorder(path)
        try:
            yield RecordingTransport(inner or Http.network(), recorder)
        finally:
            recorder.close()

    return opened()


def progress(scenario: Scenario, say: Callable[[str], None] | None) -> Any:
    """(say, count a token) as a context: a bar on a terminal, plain lines elsewhere;
    always on standard error.
    """
    # who gives a function of his own wants lines, and counts no tokens
    if say is not None:
        return nullcontext((say, None))
    if not sys.stderr.isatty():
        return nullcontext((lambda text: print(text, file=sys.stderr, flush=True), None))
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Any:
        from sim.console import progress_here

        work = scenario.workload
        with progress_here(refresh_per_second=4) as progress:
            task = progress.add_task("starting", total=work.runs * work.concurrency * work.output_tokens)
            yield (lambda text: progress.update(task, description=text)), (lambda *_: progress.advance(task))

    return bar()
