"""The version, from the installed package's metadata."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["VERSION"]

try:
    VERSION = version("lan-cluster-simulator")
except PackageNotFoundError:  # run from a checkout that nobody installed
    VERSION = "0+unknown"
