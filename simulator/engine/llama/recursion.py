"""The star as arithmetic on arrays: all rows at once."""

from __future__ import annotations

import numpy as np

from simulator.engine.llama.star import ACK_BYTES, READ_BYTES, SET_TENSOR_BYTES, STATUS_BYTES, LlamaStar
from simulator.laws.law import Floats
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.lane import Lane, SendQueue

__all__ = ["chats", "is_recursion_exact", "token_times_s"]


def _prompt_end_s(star: LlamaStar) -> Floats:
    """When the client has the first logits, shape (rows,)."""
    servers, uplink = range(1, star.servers + 1), SendQueue()
    forth = {server: Lane(star.seconds_per_byte(server, is_reply=False), uplink) for server in servers}
    back = {server: Lane(star.seconds_per_byte(server, is_reply=True)) for server in servers}
    delay = star.all_delays_s
    # `free`: when the last server has done its chunk; `own`: when a client has that comes behind the servers
    client = free = own = np.zeros(star.draws.rows)
    for c, tokens in enumerate(star.chunks):
        if not star.client_is_last:
            client = client + star.prefill_s[c, 0]
        for server in servers:
            size, slot, puts = star.prompt_request_bytes(server, c), "prompt", star.puts(server, tokens)
            if star.carries_two(server, tokens):
                early, slot = star.early_bytes(tokens), "prompt-rest"
                arrived = forth[server].send(client, early, delay[server, "prompt"][c])
                if puts:
                    client = back[server].send(arrived, ACK_BYTES, delay[server, "reply-prompt-put0"][c])
                asked = forth[server - 1].send(client, READ_BYTES, delay[server - 1, "prompt-read"][c])
                rest = star.reply_bytes(server - 1, tokens)
                client = back[server - 1].send(asked, rest, delay[server - 1, "reply-rest"][c])
                size -= early
            for i in range(1 if slot == "prompt-rest" else 0, puts):
                put = forth[server].send(client, SET_TENSOR_BYTES, delay[server, f"prompt-put{i}"][c])
                client = back[server].send(put, ACK_BYTES, delay[server, f"reply-prompt-put{i}"][c])
                size -= SET_TENSOR_BYTES
            if star.waits_for_compute:
                arrived = forth[server].send(client, size - READ_BYTES, delay[server, slot][c])
                done = arrived + star.prefill_s[c, server]
                client = back[server].send(done, STATUS_BYTES, delay[server, "reply-prompt-status"][c])
                # nobody asks the last server for the logits of any chunk but the last
                if star.hands_on(server) or c == len(star.chunks) - 1:
                    free = forth[server].send(client, READ_BYTES, delay[server, "prompt-fetch"][c])
                if star.hands_on(server):
                    size = star.reply_bytes(server, tokens)
                    client = back[server].send(free, size, delay[server, "reply-prompt"][c])
                continue
            arrived = forth[server].send(client, size, delay[server, slot][c])
            # the client does not wait for the last server, which may still be busy with the chunk before
            if not star.hands_on(server):
                free = np.maximum(arrived, free) + star.prefill_s[c, server]
            else:
                done = arrived + star.prefill_s[c, server]
                client = back[server].send(
                    done, star.reply_bytes(server, tokens), delay[server, "reply-prompt"][c]
                )
        if star.client_is_last:
            own = np.maximum(client, own) + star.prefill_s[c, 0]
    if not star.servers:
        return client
    if star.client_is_last:
        return own
    return back[star.servers].send(
        free, star.reply_bytes(star.servers, 1), delay[star.servers, "reply-prompt"][-1]
    )


def token_times_s(job: Job, draws: Draws) -> Floats:
    """One batch: after the prompt a token's time is the sum of what happens to
    it, shape (1, tokens, rows).
    """
    star = LlamaStar(job, draws)
    step_s = np.sum(star.decode_s, axis=1)
    for server in range(1, star.servers + 1):
        for slot in star.decode_slots(server):
            step_s += star.all_delays_s[server, slot]
        step_s += star.decode_request_bytes(server)[:, None] * star.seconds_per_byte(server, is_reply=False)
        step_s += star.answers_bytes(server) * star.seconds_per_byte(server, is_reply=True)
    first_s = _prompt_end_s(star)
    return np.concatenate([first_s[None], first_s + np.cumsum(step_s, axis=0)])[None]


def is_recursion_exact(job: Job) -> bool:
    """Unless a radio dozes, or messages that overlap share one air, nothing waits but for what it needs."""
    dozes = any(device.link.power_save for device in job.ring)
    shares = any(device.link.shared for device in job.ring) and LlamaStar(job, Draws(job, 0, 1)).overlaps
    return not dozes and not shares


def chats(job: Job) -> tuple[int, ...]:
    """All chats are one batch, see `Engine.chats`."""
    return (job.workload.concurrency,)
