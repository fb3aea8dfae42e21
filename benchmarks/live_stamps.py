"""How near are our arrival times to the socket, and what
does measuring cost? 200 tokens/s beside a busy core.

Run: python benchmarks/live_stamps.py [tokens]. The server notes the time after each send, in another process.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import sys
import time
from multiprocessing.connection import Connection

import numpy as np

from live.exo.chat import Timeouts, stream_reply
from live.http import Http
from live.stream import StreamRules

GAP_S = 0.005
TOKEN = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "token"}}],
    }
)
LAST = json.dumps({"choices": [{"index": 0, "delta": {"content": "."}, "finish_reason": "length"}]})


def serve(pipe: Connection, tokens: int) -> None:
    """One chat; tells its port first and the times of its sends last (both through the pipe)."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.recv(65536)
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    start, sent = time.monotonic() + 0.1, []
    for token in range(tokens):
        data = f"data: {TOKEN if token < tokens - 1 else LAST}\n\n".encode()
        time.sleep(max(0.0, start + token * GAP_S - time.monotonic()))
        connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        sent.append(time.monotonic_ns())
    connection.sendall(b"0\r\n\r\n")
    pipe.send(sent)


def burn() -> None:
    """Keep a core busy."""
    while True:
        sum(range(10_000))


def main() -> None:
    """Print delays (ms) and the share of a core that the client took."""
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs, tokens), daemon=True)
    load = multiprocessing.Process(target=burn, daemon=True)
    server.start()
    load.start()
    http = Http(f"http://127.0.0.1:{ours.recv()}")
    cpu_s, wall_s = time.process_time(), time.monotonic()
    reply = stream_reply(http, "/", {}, StreamRules(tokens), Timeouts())
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    late_ms = (np.array([reply.sent_ns + token.t_ns for token in reply.tokens]) - np.array(ours.recv())) / 1e6
    for share in (50, 90, 99, 100):
        print(
            f"delay of the stamp after the send, {share}th percentile: {np.percentile(late_ms, share):.3f} ms"
        )
    print(f"within 1 ms: {np.mean(late_ms < 1):.1%} of {tokens} tokens at {1 / GAP_S:.0f} tokens/s")
    print(f"client: {cpu_s / wall_s:.1%} of a core")
    load.kill()


if __name__ == "__main__":
    main()
