"""One small prediction that all tests of results share."""

import pytest

from simulator.run.predict import Prediction, predict
from simulator.scenario import Scenario


def scenario(**changes) -> Scenario:
    """Three devices whose every number is here, so that the catalogue moves no test."""

    def device(bandwidth: str, delay: str) -> dict:
        return {
            "memory": "16 GB",
            "usable_memory": "12 GB",
            "disk": "1 GB/s",
            "noise": {"sigma": 0.05},
            "speed": {"decode_bandwidth": bandwidth, "prefill_flops": "2 TFLOPS", "decode_spread": 0.2},
            "link": {"delay": {"law": "lognormal", "median": delay, "sigma": 0.5}, "rate": "50 MB/s"},
        }

    return Scenario.model_validate(
        {
            "name": "small",
            "question": "Which of <three> is slow?",
            "engine": "exo",
            "seed": 7,
            "replications": 12,
            "model": {
                "name": "toy",
                "layers": 12,
                "hidden": 2048,
                "layer_bytes": "100 MB",
                "active_layer_bytes": "100 MB",
                "experts": 0,
                "experts_per_token": 0,
                "expert_layer_bytes": 0,
                "embedding_bytes": "50 MB",
                "head_bytes": "50 MB",
                "kv_bytes_per_token_per_layer": "4 kB",
                "layer_flops": 2e8,
                "head_flops": 1e8,
                "activation_bytes": "4 kB",
            },
            "devices": {
                "fast": device("60 GB/s", "1 ms"),
                "middle": device("30 GB/s", "2 ms"),
                "slow": device("15 GB/s", "3 ms"),
            },
            "placement": {"layers": {"fast": 6, "middle": 4, "slow": 2}},
            "workload": {"prompt_tokens": 16, "output_tokens": 24, "runs": 3},
        }
        | changes
    )


@pytest.fixture(scope="session")
def prediction() -> Prediction:
    return predict(scenario(), with_what_ifs=False)
