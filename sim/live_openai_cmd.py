"""`sim live run --cluster openai://...`: measure a server that others have set up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from sim.json_output import print_json
from sim.live_exo_cmd import parse_pairs, recording
from simulator.errors import LiveError
from simulator.library import load

__all__ = ["run_server"]


def run_server(
    scenario_path: Path,
    cluster: str,
    out: Path,
    *,
    record: Path | None,
    model_id: str | None,
    power: Sequence[str],
    unfit: Sequence[str],
    say: Callable[[str], None],
    as_json: bool,
) -> None:
    """Measure one scenario; exits with 1 unless all of its runs were measured.

    `unfit` names options that mean nothing here. Raises SimulatorError; an interrupt keeps what came.
    """
    from live.http import Http
    from live.measure import MeasureOptions
    from live.openai.address import server_url
    from live.openai.key import KeyTransport, key_here
    from live.openai.measure import measure_server

    url, key = server_url(cluster), key_here()
    if unfit:
        raise LiveError(
            f"{', '.join(unfit)}: means nothing for {cluster.partition('://')[0]}://, where nothing is "
            "placed and one server is measured as it stands; start it as one scenario says, and measure that"
        )
    scenario = load(scenario_path)
    with ExitStack() as stack:
        network = KeyTransport(Http.network(), key) if key else Http.network()
        transport = stack.enter_context(recording(record, network)) if record else network
        options = MeasureOptions(model_id=model_id, power=parse_pairs(list(power), "--power"), say=say)
        result = measure_server(scenario, url, out, options, transport=transport)
    rate = result.steady.median_tokens_per_s if result.steady else None
    document: dict[str, Any] = {
        "file": str(result.path),
        "runs_done": result.runs_done,
        "runs": scenario.workload.runs,
        "failures": list(result.failures),
        "warnings": list(result.warnings),
        "tokens_per_s": list(result.steady.per_request) if result.steady else [],
        "median_tokens_per_s": rate,
    }
    if as_json:
        print_json(document)
    else:
        _print(document)
    if result.runs_done < scenario.workload.runs:
        raise typer.Exit(1)


def _print(document: dict[str, Any]) -> None:
    rate = document["median_tokens_per_s"]
    told = f", median {rate:.3g} tokens/s" if rate else ""
    print(f"{document['file']}  {document['runs_done']} of {document['runs']} runs{told}")
    for failure in document["failures"]:
        print(f"failed: {failure}")
    for warning in document["warnings"]:
        print(f"doubt: {warning}")
