"""`sim live run --cluster openai://...`: measure a server that others have set up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from sim.live_exo_cmd import parse_pairs, recording
from sim.live_result import conclude, document, interruptible, measurement_file
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
    scenario, file = load(scenario_path), measurement_file(out, scenario_path)
    with ExitStack() as stack:
        network = KeyTransport(Http.network(), key) if key else Http.network()
        transport = stack.enter_context(recording(record, network)) if record else network
        options = MeasureOptions(model_id=model_id, power=parse_pairs(list(power), "--power"), say=say)
        stack.enter_context(interruptible(lambda: [file]))
        result = measure_server(scenario, url, file, options, transport=transport)
    conclude([document(result, scenario.workload.runs)], as_json=as_json)
