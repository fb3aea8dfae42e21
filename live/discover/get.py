"""One GET of discovery: the bounded client of `live.http`, without a judgement of the status.

Discovery asks hosts that may be anything, several at once, so its limits are narrower than those of a client
that has found its cluster.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from live.http import Http, Watch, body_of, parse_json, translated

__all__ = ["Answer", "get"]

DEADLINE_S = 5.0
# as Python objects at most some 90 MB, for each of 16 hosts asked at once; a real /state has some 100 kB
LIMIT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of whichever status."""

    where: str
    status: int
    date: str
    body: bytes
    sent_s: float
    received_s: float
    """Unix times by the local clock"""

    def json(self) -> Any:
        """The body as JSON; raises ApiChanged."""
        return parse_json(self.body, self.where)

    @property
    def clock_offset_s(self) -> float | None:
        """How far the server's clock is ahead of ours (s), by its Date header: whole
        seconds, so right within 1 s.

        offset = Date + 0.5 - (sent + received) / 2, since Date is cut to full seconds.
        """
        try:
            date_s = parsedate_to_datetime(self.date).timestamp()
        except (TypeError, ValueError, OverflowError):
            return None
        return date_s + 0.5 - (self.sent_s + self.received_s) / 2


def get(
    host: str, port: int, path: str, deadline_s: float = DEADLINE_S, limit_bytes: int = LIMIT_BYTES
) -> Answer:
    """`GET http://host:port/path`, at most `limit_bytes` within `deadline_s`; the status is not judged.

    Raises NotListening when nothing listens, Unreachable when no complete answer comes in time, ApiChanged
    when it is not HTTP or too long.
    """
    base_url, sent_s = f"http://{f'[{host}]' if ':' in host else host}:{port}", time.time()
    with translated(
        base_url + path
    ):  # a name may be no host at all, which httpx says before anything is sent
        http = Http(base_url, connect_s=deadline_s)
    with http.exchange("GET", path, Watch(deadline_s)) as response:
        body = body_of(response, limit_bytes)
        date = response.headers.get("date", "")
        return Answer(base_url + path, response.status_code, date, body, sent_s, time.time())
