"""Spec files in and out: YAML with line numbers, all faults at once, atomic writing, a schema for editors."""

from simulator.files.read import load, loads
from simulator.files.schema import schema
from simulator.files.write import dump, dumps, write_bytes_atomically, write_text_atomically

__all__ = ["dump", "dumps", "load", "loads", "schema", "write_bytes_atomically", "write_text_atomically"]
