"""Names of world factors: what is built is read again, whatever a device is called."""

from __future__ import annotations

import pytest

from simulator.laws.factors import (
    BATCH,
    CONTENTION,
    CONTEXT,
    cable,
    device_factor,
    engine_factor,
    how_to_measure,
    in_words,
    is_rate,
    link_factor,
    session_factor,
)


@pytest.mark.parametrize("device", ["mac", "engine", "session", "world", "a/b", "decode"])
def test_a_device_may_be_called_anything(device: str) -> None:
    assert in_words(device_factor(device, "decode"), "exo") == f"decode time on {device}"
    assert in_words(device_factor(device, "load"), "exo") == f"other work on {device}"
    assert in_words(link_factor(device, "rate"), "exo") == f"throughput of {device}'s link"
    assert in_words(session_factor(device), "exo") == f"luck of the session on {device}"


def test_what_all_share_is_told_in_words_too() -> None:
    assert in_words(session_factor(), "exo") == "luck of the session on all devices"
    assert in_words(engine_factor("step"), "exo") == "exo's own work per token"
    assert in_words(link_factor(cable(("b", "a")), "delay"), "exo") == "delay of the cable a--b"
    assert [in_words(name, "exo") for name in (CONTEXT, BATCH, CONTENTION)] == [
        "cost of a context",
        "cost of a batch",
        "cost of sharing one machine",
    ]


def test_only_rates_are_better_when_larger_and_each_factor_says_how_to_narrow_it() -> None:
    assert is_rate(link_factor("mac", "rate"))
    assert not is_rate(device_factor("rate", "decode"))
    assert how_to_measure(link_factor("mac", "delay")) == "probe that link"
    assert how_to_measure(BATCH) == "calibrate it"
