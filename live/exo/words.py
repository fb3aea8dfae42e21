"""EXO's own words that we act on, all of them: read here once, and a type or a truth from here on.

Whatever else EXO says is passed on to the user and decides nothing.
"""

from __future__ import annotations

__all__ = ["is_missing_endpoint", "is_server_timeout"]

# What FastAPI (1.x) and aiohttp (legacy) answer to a path that they do not know; others say nothing at all.
# EXO's own 404s ("No instance found for model ...") are about what was asked for, not about the path.
NO_SUCH_PATH = ("Not Found", "404: Not Found", "")
# Legacy EXO's response time-out writes a second response head into a body that has begun, and leaves the
# connection open (recorded: kill_middle_node_raw_socket): no status, no error event, only these bytes.
SECOND_HEAD = b"HTTP/1.1 408"


def is_missing_endpoint(status: int, reason: str) -> bool:
    """Whether an answer means that this version has no such endpoint."""
    return status == 405 or (status == 404 and reason in NO_SUCH_PATH)


def is_server_timeout(tail: bytes) -> bool:
    """Whether the last bytes of a broken stream are the engine's own time-out."""
    return SECOND_HEAD in tail
