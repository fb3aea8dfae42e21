"""Small clusters and random event scripts for the tests of churn."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from simulator.scenario import Scenario

DEVICES = ("alpha", "beta", "gamma", "delta")


def scenario(engine: str = "exo", *, events: list[dict[str, Any]] | None = None, **changes: Any) -> Scenario:
    """Four unequal devices around one access point; any two of them hold the model, no single one does."""
    link = {
        "delay": {"law": "exponential", "mean": "1 ms"},
        "rate": "100 MB/s",
        "delay_spread": 0,
        "rate_spread": 0,
    }
    speeds = dict(zip(DEVICES, (40, 20, 10, 25), strict=True))
    devices: dict[str, Any] = {
        name: {
            "memory": "700 MB",
            "disk": "500 MB/s",
            "link": link,
            "noise": {"sigma": 0.05, "correlation": 0.3},
            "speed": {
                "decode_bandwidth": f"{speed} GB/s",
                "prefill_flops": "1 TFLOPS",
                "decode_spread": 0.1,
                "prefill_spread": 0.0,
            },
        }
        for name, speed in speeds.items()
    }
    devices["gamma"]["heat"] = {"approach": "2 s", "sustained": 0.5, "spread": 0.2}
    model = {
        "name": "small",
        "layers": 16,
        "hidden": 512,
        "layer_bytes": "50 MB",
        "kv_bytes_per_token_per_layer": "1 kB",
        "embedding_bytes": "10 MB",
        "head_bytes": "10 MB",
    }
    written = {
        "name": "churn",
        "model": model,
        "devices": devices,
        "engine": {"name": engine, "memory_overhead": "20 MB"},
        "placement": {"rule": "speed"} if engine != "exo-legacy" else {},
        "events": events or [],
        "workload": {"prompt_tokens": 16, "output_tokens": 24, "runs": 1},
        "replications": 2,
    }
    return Scenario.model_validate(written | changes)


def _moments(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["at", "at", "at_token", "rate"]))
    value = {
        "at": st.integers(0, 120).map(lambda t: f"{t / 4} s"),
        "at_token": st.integers(1, 24),
        "rate": st.sampled_from(["20 /h", "200 /h", "1500 /h"]),
    }[kind]
    later = (
        {"later": draw(st.sampled_from(["0.05 s", "3 s"]))}
        if kind == "at_token" and draw(st.booleans())
        else {}
    )
    return {kind: draw(value), **later}


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """One event of any kind, at any kind of moment."""
    device = draw(st.sampled_from(DEVICES))
    lasting = draw(st.sampled_from([None, "1 s", {"law": "exponential", "mean": "5 s"}]))
    kind = draw(
        st.sampled_from(
            ["drop", "drop", "drop", "rejoin", "join", "throttle", "degrade_link", "background_load"]
        )
    )
    more: dict[str, Any] = {
        "drop": {"silent": draw(st.booleans()), "back_after": lasting},
        "throttle": {"speed": draw(st.sampled_from([0.1, 0.5, 1.0])), "lasting": lasting},
        "degrade_link": {"delay_factor": 20, "rate_share": 0.1, "lasting": lasting},
        "background_load": {"load": 0.5, "lasting": lasting},
    }.get(kind, {})
    return {
        "event": kind,
        "device": device,
        **_moments(draw),
        **{k: v for k, v in more.items() if v is not None},
    }


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A small cluster with any script of up to twelve events, at once or one after the other."""
    script = draw(st.lists(events(), max_size=12))
    if draw(st.booleans()):  # now and then everybody leaves
        script += [
            {"event": "drop", "device": name, "at": f"{draw(st.integers(0, 12))} s"} for name in DEVICES
        ]
    recovery = {
        "give_up": "5 min",
        "files": draw(st.sampled_from([None, "everywhere", "own_shard", "client"])),
    }
    return scenario(
        draw(st.sampled_from(["exo", "exo-legacy", "llama-rpc"])),
        events=script,
        seed=draw(st.integers(0, 2**40)),
        recovery={k: v for k, v in recovery.items() if v},
    )
