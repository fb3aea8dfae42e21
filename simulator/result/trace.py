"""trace.parquet: one row per token of every run, and one per span of the replayed run (the median one).

Times are rounded to nanoseconds, far below any effect, so that processors that differ in
a last bit write one file.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from simulator.laws.law import Floats
from simulator.runtime.record import Recorder

__all__ = ["COLUMNS", "trace_bytes"]

COLUMNS = {
    "kind": ("string", "token, or the kind of a span: prefill, compute, head, hop, queue, phase"),
    "replication": ("int32", "independent world, from 0: its devices and links have speeds of their own"),
    "run": ("int32", "run in that world, from 0"),
    "chat": ("int32", "tokens: stream of tokens, from 0 (chats of one batch share a stream)"),
    "token": ("int32", "tokens: position in the reply, from 0"),
    "time_s": ("float64", "when the token arrived, or the span ended; seconds after the request"),
    "start_s": ("float64", "spans: when it began"),
    "where": ("string", "spans: the device, or `source -> sink` for a message"),
    "step": ("int32", "spans: decode step, negative while the prompt is read"),
    "cause": (
        "int32",
        "which span made the token or released this span, counted from 0 in the order of the file's "
        "spans; -1 is the request itself; tokens of runs without spans have none",
    ),
}
"""Type and meaning of each column; the file's own schema carries the same texts."""

DIGITS = 9


def trace_bytes(
    times_s: Floats, runs: int, recorder: Recorder, about: Mapping[str, str], replayed_row: int = 0
) -> bytes:
    """The Parquet file of token times (s), shape (streams, tokens, rows), and of the spans of one row.

    Row i is run `i % runs` of replication `i // runs`. `about` goes into the file's metadata.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(pa, about)
    parts = [_tokens(times_s, runs, recorder, replayed_row), _spans(recorder, runs, replayed_row)]
    tables = [
        pa.table(
            {
                name: pa.array(part[name], schema.field(name).type)
                if name in part
                else pa.nulls(len(part["kind"]), schema.field(name).type)
                for name in COLUMNS
            },
            schema=schema,
        )
        for part in parts
    ]
    out = io.BytesIO()
    floats = [name for name, (kind, _) in COLUMNS.items() if kind == "float64"]
    # the bytes of neighbouring times resemble each other place by place, which this encoding hands to zstd
    parquet.write_table(
        pa.concat_tables(tables),
        out,
        compression="zstd",
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        use_dictionary=[name for name in COLUMNS if name not in floats],
    )
    return out.getvalue()


def _schema(pa: Any, about: Mapping[str, str]) -> Any:
    return pa.schema(
        [
            pa.field(name, pa.type_for_alias(kind), metadata={"description": text})
            for name, (kind, text) in COLUMNS.items()
        ],
        metadata=dict(about),
    )


def _tokens(times_s: Floats, runs: int, recorder: Recorder, replayed_row: int) -> dict[str, Any]:
    """Columns of the tokens, ordered by replication, run, chat, token."""
    streams, tokens, rows = times_s.shape
    row, chat, token = (index.ravel() for index in np.indices((rows, streams, tokens), dtype=np.int32))
    # as floats, for a gap that no integer has; masked below
    causes = np.full((rows, streams, tokens), np.nan)
    for stream, position, _, cause in recorder.tokens:
        causes[replayed_row, stream, position] = cause
    return {
        "kind": ["token"] * row.size,
        "replication": row // runs,
        "run": row % runs,
        "chat": chat,
        "token": token,
        "time_s": np.moveaxis(times_s, 2, 0).ravel().round(DIGITS),
        "cause": np.ma.masked_invalid(causes.ravel()),
    }


def _spans(recorder: Recorder, runs: int, replayed_row: int) -> dict[str, Any]:
    """Columns of the spans, in the order in which they were recorded, which `cause` counts."""
    spans = recorder.spans
    world, run = divmod(replayed_row, runs)
    return {
        "kind": [span.kind for span in spans],
        "replication": [world] * len(spans),
        "run": [run] * len(spans),
        "time_s": np.array([span.end_s for span in spans]).round(DIGITS),
        "start_s": np.array([span.start_s for span in spans]).round(DIGITS),
        "where": [span.where for span in spans],
        "step": [span.step for span in spans],
        "cause": [span.cause for span in spans],
    }
