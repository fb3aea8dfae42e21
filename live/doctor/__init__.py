"""What is wrong with this network, and the way out: small checks over facts that were gathered once."""

from live.doctor.finding import DoctorFinding
from live.doctor.gather import Surroundings, gather
from live.doctor.run import CHECKS, examine, exit_code

__all__ = ["CHECKS", "DoctorFinding", "Surroundings", "examine", "exit_code", "gather"]
