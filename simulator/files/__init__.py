"""Files in and out: specs as YAML with line numbers and all faults at once, a schema for editors;
records as JSON Lines, packed or not; atomic writing.
"""

from simulator.files.append import Appender
from simulator.files.lines import json_line, json_lines, pack, packed, read_lines
from simulator.files.read import load, loads
from simulator.files.schema import schema
from simulator.files.write import (
    dump,
    dumps,
    make_folder,
    write_bytes_atomically,
    write_ours,
    write_text_atomically,
)

__all__ = [
    "Appender",
    "dump",
    "dumps",
    "json_line",
    "json_lines",
    "load",
    "loads",
    "make_folder",
    "pack",
    "packed",
    "read_lines",
    "schema",
    "write_bytes_atomically",
    "write_ours",
    "write_text_atomically",
]
