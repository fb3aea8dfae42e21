"""Measurement: what a real cluster did, with everything that is needed to believe it.

A JSON Lines file, appended as things happen, so that an interrupted run keeps what it had; once it is kept
for good it may be packed (`.jsonl.gz`). Line 1 is the header (`Provenance`), each further line an event with
a `type`:

==========  ==========================================================================================
type        fields
==========  ==========================================================================================
`request`   `run chat prompt_tokens sent_ns`: a request left the client (`sent_ns` since the start of the
            file's clock)
`token`     `run chat token t_ns`: token `token` (from 0) arrived `t_ns` after its own request was sent
`chunk`     `run chat chunk t_ns told`: a chunk of a stream whose chunks are not tokens (OpenAI-compatible
            servers); `told` is the server's running count. Its `token` lines name their `chunk`, and come
            when the reply is over
`result`    `run chat outcome tokens`: how the reply ended (`complete`, or the name of an error), with
            `detail`
`hop`       `run source sink size_bytes sent_ns imposed_ns late_ns messages`: what passed a relay at once
            (`sent_ns`: its last byte arrived), the delay imposed on it, and by how much the relay was later
            than that
`link`      `source sink rtt_ns size_bytes loaded`: a round trip of `size_bytes` there and back, idle or
            under load
`link_rate` `source sink bytes_per_s seconds`: throughput in one direction
`speed`     `device memory_bytes_per_s disk_bytes_per_s`: what an agent measured of its own device
`device`    `run device busy_s wall_s service_s`: CPU time of a device's engine during one run
`reference` `visit at_ns seconds_per_token`: the fixed workload between configurations, to see the machine
            drift
`repeatability` `visit_median_s run_median_s relative_range`: how far the visits to one configuration differ
`phase`     `run phase device start_ns end_ns`: a phase of a recovery, or a load
`disturbed` `run by`: somebody else used the cluster during this run
`warning`   `text`: a doubt that arose while measuring
`end`       `outcome`: `complete` or `interrupted`; a file without it was cut off
==========  ==========================================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TextIO

import numpy as np
from pydantic import Field, ValidationError

from simulator.errors import MeasurementError
from simulator.files import make_folder, packed, read_lines
from simulator.laws.law import Floats
from simulator.spec import Spec

__all__ = [
    "DeviceProvenance",
    "Measurement",
    "MeasurementWriter",
    "Provenance",
    "ShardProvenance",
    "read_measurement",
]


class ShardProvenance(Spec):
    """The layers [start_layer, end_layer) that one device really held."""

    device: str
    start_layer: int
    end_layer: int


class DeviceProvenance(Spec):
    """One device as it was while measuring; what could not be read says 'unknown'."""

    name: str
    chip: str
    os: str
    memory_bytes: float | None = None
    link_kind: str = "unknown"
    power_source: str = "unknown"
    throttle_asked: float | None = None
    """Share of its full speed that was asked for."""
    throttle_achieved: float | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class Provenance(Spec):
    """The header of a Measurement: without it numbers mean nothing, so every field
    without a default is required.
    """

    format: Literal[1] = 1
    name: str
    created: str
    """ISO time in UTC."""
    source: Literal["local", "exo", "exo-legacy", "llama-rpc", "openai", "agent"]
    engine: str
    engine_version: str
    model: str
    model_layers: int
    model_bytes: float | None = None
    hidden_bytes: float | None = None
    """Bytes of one token's hidden state."""
    devices: tuple[DeviceProvenance, ...]
    placement: tuple[ShardProvenance, ...]
    """In ring order."""
    prompt_tokens: int
    output_tokens: int
    runs: int
    concurrency: int = 1
    warm_up_requests: int
    clock: str
    scenario_sha256: str = ""
    scenario: dict[str, Any] | None = None
    """The scenario as it was measured, so that a file stands alone."""
    cluster: dict[str, Any] = Field(default_factory=dict)
    """Snapshot of the cluster: state, load, versions, link laws as imposed."""
    software: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A Measurement file in memory."""

    provenance: Provenance
    events: tuple[dict[str, Any], ...]
    complete: bool
    """False when the run was interrupted or the file cut off."""
    sha256: str
    """Of the content, not of its packing: what ledgers and calibrations know it by."""
    path: str = ""

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        """The events of one type, in the order of the file."""
        return (event for event in self.events if event["type"] == kind)

    def token_times_s(self) -> dict[tuple[int, int], Floats]:
        """Arrival times (s after its own request) of each (run, chat), in token order."""
        times: dict[tuple[int, int], list[float]] = {}
        for event in self.of("token"):
            times.setdefault((event["run"], event.get("chat", 0)), []).append(event["t_ns"] / 1e9)
        return {key: np.asarray(values) for key, values in times.items()}

    @property
    def mended_runs(self) -> frozenset[int]:
        """Runs that lost a device and went on: they hold the phases of a
        recovery, and are no steady state.
        """
        return frozenset(event["run"] for event in self.of("phase"))

    @property
    def disturbed_runs(self) -> frozenset[int]:
        """Runs during which somebody else used the cluster: they hold that work too."""
        return frozenset(event["run"] for event in self.of("disturbed"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Doubts that arose while measuring."""
        return tuple(event["text"] for event in self.of("warning"))


class MeasurementWriter:
    """Appends events to a new file; each line is with the system before the next one is taken.

    >>> # with MeasurementWriter(path, provenance) as out: out.write("token", run=0, chat=0, token=0, t_ns=5)
    """

    def __init__(self, path: str | Path, provenance: Provenance) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        for taken in (self.path, packed(self.path)):
            if taken.exists():
                raise MeasurementError(
                    f"{taken} exists; measurements are never overwritten, choose another name"
                )
        # x: of two measurements that start at once one is refused
        self._file: TextIO = self.path.open("x", encoding="utf-8")
        self._line({"type": "header", **provenance.model_dump(mode="json")})

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event."""
        self._line({"type": kind, **fields})

    def warn(self, text: str) -> None:
        """Append a doubt."""
        self.write("warning", text=text)

    def _line(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self, outcome: str = "complete") -> None:
        """End the file; `outcome` is complete or interrupted."""
        if not self._file.closed:
            self.write("end", outcome=outcome)
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close("complete" if kind is None else "interrupted")


def read_measurement(path: str | Path) -> Measurement:
    """Read a Measurement, packed or not; a last line that was cut off is dropped,
    anything else broken is refused.

    Raises MeasurementError with the line at fault.
    """
    file, digest = Path(path), sha256()
    events: list[dict[str, Any]] = []
    cut_off = True
    for number, line in enumerate(read_lines(file), 1):
        # of the plain lines, so that a packed file is known by the same name
        digest.update(line)
        cut_off = not line.endswith(b"\n")  # the writer ends each line
        if not cut_off:
            events.append(_event(file, number, line))
    if not events or events[0].get("type") != "header":
        raise MeasurementError(f"{file}:1: no header; a measurement starts with a line of type 'header'")
    try:
        header = {key: value for key, value in events[0].items() if key != "type"}
        provenance = Provenance.model_validate(header)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MeasurementError(f"{file}:1: header: {where}: {first['msg']}") from error
    ended = not cut_off and events[-1]["type"] == "end" and events[-1].get("outcome") == "complete"
    return Measurement(provenance, tuple(events[1:]), ended, digest.hexdigest(), str(file))


def _event(file: Path, number: int, line: bytes) -> dict[str, Any]:
    """One line as an event."""
    try:
        event = json.loads(line)
    except ValueError as error:
        raise MeasurementError(
            f"{file}:{number}: not JSON: {error}; the file was changed or is none of ours"
        ) from error
    if not isinstance(event, dict) or "type" not in event:
        raise MeasurementError(
            f"{file}:{number}: an event needs a 'type'; the file was changed or is none of ours"
        )
    return event
