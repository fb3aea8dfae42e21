"""What people already have: results of llama-bench, EXO's benchmark, MLX, vLLM and llama.cpp's server.

`read_benchmarks` gives records of any of them, `measured_devices` the speed of the device that was measured.
"""

from calibrate.benchmarks.device import MeasuredDevice, fragment, measured_devices
from calibrate.benchmarks.model import differences
from calibrate.benchmarks.read import Benchmarks, foreign, is_foreign, read_benchmarks, recognise
from calibrate.benchmarks.record import Rate, Record

__all__ = [
    "Benchmarks",
    "MeasuredDevice",
    "Rate",
    "Record",
    "differences",
    "foreign",
    "fragment",
    "is_foreign",
    "measured_devices",
    "read_benchmarks",
    "recognise",
]
