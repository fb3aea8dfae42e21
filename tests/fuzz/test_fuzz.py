"""Mutated files of every kind end in a result or one message;
`python -m tests.fuzz.run` takes as many as there is time.
"""

from __future__ import annotations

import random
import re
import time
import tracemalloc
from pathlib import Path

import pytest

from simulator.errors import MeasurementError
from simulator.files import json_lines
from simulator.files.lines import MOST_FILE_BYTES, MOST_LINE_BYTES
from simulator.result.measured import measured_summary
from simulator.result.measurement import read_measurement
from tests.fuzz.doors.door import check
from tests.fuzz.doors.kinds import KINDS
from tests.fuzz.run import made

INPUTS, OF_LINKS = 8, 2  # laws of links take seconds to fit; `tests.fuzz.run` takes thousands
MOST_S = 10.0


@pytest.mark.parametrize("name", KINDS)
def test_no_mutation_gets_through(name: str, tmp_path: Path) -> None:
    for number in range(OF_LINKS if name == "links" else INPUTS):
        data, rng = made(name, 0, number)
        began_s = time.process_time()
        check(KINDS[name], data, tmp_path, rng)
        assert time.process_time() - began_s < MOST_S, number


DEEP = b"[" * 900 + b"]" * 900
CASES: dict[str, tuple[str, bytes, bytes]] = {
    "a token without its time": ("measurement", b'"t_ns":', b'"ns":'),
    "a run that is a mapping": ("measurement", b'"run":0', b'"run":{"a":0}'),
    "a time of 400 digits": ("measurement", b'"t_ns":', b'"t_ns":' + b"9" * 400),
    "a time that is none": ("measurement", b'"t_ns":', b'"t_ns":NaN,"x":'),
    "half of a pair of surrogates": ("measurement", b'"model":"', b'"model":"\\ud800'),
    "a header that is a list": ("measurement", b'{"type":"header"', b"[1]\n{"),
    "chats without end": ("measurement", b'"concurrency":1', b'"concurrency":1000000000000'),
    "a scenario that is none": ("measurement", b'"scenario":{', b'"scenario":{"devices":5,"x":'),
    "brackets without end": ("measurement", b'"scenario":{', b'"scenario":' + DEEP + b',"x":{'),
    "a route without a sink": ("links", b'"sink":"node-b"', b'"sink":7'),
    "a name that no scenario takes": ("links", b'"source":"node-a"', b'"source":": node-a"'),
    "a round trip in no time": ("links", b'"rtt_ns":', b'"rtt_ns":0,"x":'),
    "bytes that are no text": ("ledger", b'"name":"', b'"name":"\xff\xfe'),
    "an error of minus all": ("ledger", b'"median_error":', b'"median_error":-1,"x":'),
    "quantiles that are too few": ("prediction", b'"gap_curve_s": [', b'"gap_curve_s": [0.1],\n"x": ['),
    "a quantile that is none": ("prediction", b'"median_gap_s": [', b'"median_gap_s": [\n.nan,'),
    "a recovery in no time": ("dropout outcomes", b'"recovery_s": ', b'"recovery_s": 0.0, "x": '),
    "a case that is a list": ("dropout predictions", b'"case": ', b'"case": [], "x": '),
    "a table without a column": ("published", b"row,", b"line,"),
    "an error that is a word": ("published", b"0.", b"--0."),
    "causes without a column": ("published causes", b"quantity", b"what"),
    "a chip in 1e-320 s": ("held-out chips", b"0.00", b"1e-320,"),
    "a draw that is too short": ("calibration", b"draws:\n- [", b"draws:\n- [1.0]\n- ["),
    "a parameter that is none": ("calibration", b"layer_s/", b"layers/"),
    "a model without bytes": ("calibration", b"layer_bytes:", b"layer_bytes: 0\nx:"),
    "a point's figure as text": (
        "sweep points",
        b'"tokens_per_s_median": ',
        b'"tokens_per_s_median": "x", "y": ',
    ),
    "a point without its interval": ("sweep points", b"tokens_per_s_p05", b"tokens_per_s_p50"),
    "a row that is a number": ("sweep points", b'"row": {', b'"row": 5, "x": {'),
    "a row without a metric that others have": (
        "sweep points",
        b'"total_tokens_per_s_median": ',
        b'"total_tokens_per_s": ',
    ),
    "a part of a byte that is free": (
        "EXO state",
        b'"ramAvailable": {',
        b'"ramAvailable": {"inBytes": 0.3}, "x": {',
    ),
    "a size beyond all floats": (
        "EXO state",
        b'"total": {"inBytes": ',
        b'"total": {"inBytes": ' + b"9" * 400,
    ),
    "tokens that nobody asked for": (
        "server stream",
        b'"completion_tokens":24',
        b'"completion_tokens":' + b"9" * 30,
    ),
    "a count below nothing": ("server stream", b'"prompt_tokens":182', b'"prompt_tokens":-1000000000000'),
    "a model beyond all floats": ("server models", b'"size":5041152', b'"size":' + b"9" * 400),
    "a card beyond all floats": (
        "EXO models",
        b'"storage_size_megabytes": ',
        b'"storage_size_megabytes": ' + b"9" * 400,
    ),
    "a loop of lists": ("EXO state", b'"thunderboltBridgeCycles": [[', b'"thunderboltBridgeCycles": [[[], '),
    "layers that run backward": ("EXO state", b'"endLayer": 24, ', b'"endLayer": -24, '),
    "links that are none": ("measurement", b'"links":[{"target"', b'"links":[5,{"target"'),
    "ninety keys that nobody knows": (
        "prediction",
        b'"gap_curve_s": [',
        b"".join(b'"%d": 0,\n' % key for key in range(90)) + b'"gap_curve_s": [',
    ),
    "a rate that is hardly one": ("catalogue", b"rate: 20 MB/s", b"rate: 1e-320 MB/s"),
    "a processor that hardly computes": ("catalogue", b"prefill_flops: 1 ", b"prefill_flops: 1e-320 "),
    "a figure beyond 64 bits": ("sweep points", b'"tokens_per_s_p95": ', b'"tokens_per_s_p95": ' + b"9" * 30),
}
"""What once ended in a traceback, a figure below zero, or no end: kind, and what stands in place of what."""


def test_a_link_that_carries_next_to_nothing_is_refused(tmp_path: Path) -> None:
    """In all directions, so that no other rate stands for it: it was written as 0 B/s and refused by ourselves."""
    for seed in KINDS["links"].seeds():
        slow = seed.replace(b'"bytes_per_s":', b'"bytes_per_s":0.3,"x":')
        check(KINDS["links"], slow, tmp_path, random.Random(0))


def test_pauses_that_never_come_are_none(tmp_path: Path) -> None:
    """Their probability in a step is 0 to a float, of which there is no logarithm."""
    for seed in KINDS["calibration"].seeds():
        rare = seed.replace(b"  pauses_per_s: ", b"  pauses_per_s: 1.0e-20 #")
        check(KINDS["calibration"], rare, tmp_path, random.Random(0))


@pytest.mark.parametrize("case", CASES)
def test_what_got_through_once_does_no_more(case: str, tmp_path: Path) -> None:
    name, old, new = CASES[case]
    seed = next((data for data in KINDS[name].seeds() if old in data), None)
    assert seed is not None, "no seed holds what is replaced"
    for door in range(len(set(KINDS[name].doors))):
        check(KINDS[name], seed.replace(old, new, 1), tmp_path, random.Random(door))


def test_a_line_without_end_costs_little_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with path.open("wb") as file:
        file.truncate(MOST_FILE_BYTES // 4)  # of nothing: such a file takes no room
        file.seek(0, 2)
        file.write(b'\n{"type":"x"}\n')
    tracemalloc.start()
    found = list(json_lines(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [number for number, _ in found] == [1, 2]
    assert str(found[0][1]) == f"a line of more than {MOST_LINE_BYTES >> 20} MiB; left out"
    assert found[1][1] == {"type": "x"}
    assert peak < 5 * MOST_LINE_BYTES
    with pytest.raises(MeasurementError, match=r"m\.jsonl:1: a line of more than"):
        read_measurement(path)


def test_a_reply_that_came_all_at_once_has_no_rate(tmp_path: Path) -> None:
    path, seed = tmp_path / "m.jsonl", KINDS["measurement"].seeds()[2]
    path.write_bytes(re.sub(rb'("t_ns":)\d+(.*?)(,"crc32":"\w+")?}', rb"\g<1>7000000000000\2}", seed))
    found = read_measurement(path)
    assert found.of("token")
    with pytest.raises(MeasurementError, match="got two tokens or more, at different times"):
        measured_summary(found)


def test_of_a_file_with_a_hole_the_rest_is_used_and_the_hole_told(tmp_path: Path) -> None:
    lines = KINDS["measurement"].seeds()[2].splitlines(keepends=True)
    path = tmp_path / "m.jsonl"
    whole = len(lines)
    tokens = [at for at, line in enumerate(lines) if b'"type":"token"' in line]
    lines[tokens[20]] = b"{never JSON}\n"
    path.write_bytes(b"".join(lines))
    found = read_measurement(path)
    assert found.complete
    assert len(found.token_times_s()[0, 0]) == 20
    assert [fault.partition(": ")[2] for fault in found.faults] == [
        "not JSON: key must be a string at line 1 column 2; left out",
        "run 0: chat 0: token 20 is missing, so what follows it is not known to follow; left out",
    ]
    assert len(found.events) < whole - 2
    assert found.warnings[:2] == found.faults
