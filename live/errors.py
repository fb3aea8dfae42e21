"""What a real cluster can do to a request, each with its own name.

::

    LiveError                       (simulator.errors)
      Unreachable                   nothing answers at that address
        NotListening                the machine answers: nothing listens on that port
        NoRoute                     no machine has that address or name, or no way leads there
        Unanswered                  no answer to the connection: packets are dropped, or the machine is off
      ApiChanged                    it answers, but not in a form that we know
        NotStreamed                 a stream was asked for, one whole answer came
      RequestRefused                it answers, and says no; carries the HTTP status
        NotOffered                  this version has no such endpoint (404 or 405)
      PlacementRefused              the engine cannot, or did not, place the model
        NotReachedYet               two neighbours have not found each other; EXO probes its links every 10 s
      InstanceFailed                a runner failed, or the instance vanished before it was ready
      ClusterBusy                   somebody else uses the cluster
      StreamBroken                  a stream that ended before its end; carries the tokens that had arrived
        StreamErrorEvent            the engine sent an error event
        StreamCutOff                the connection ended without a last token
        StreamStalled               tokens stopped; the connection may go on with keep-alives for ever
          MasterLost                ... because the cluster lost its master: it will never go on
          ClientCutOff              ... and nobody answers us: perhaps we are the ones who were lost
        ServerTimeout               the engine's own time-out cut the reply (legacy EXO's raw 408)
        ModelSubstituted            another model answered than was asked (legacy EXO does so silently)
        StreamGarbled               bytes that are no token stream, or one beyond all bounds
        StreamAborted               we stopped it ourselves
        NotMended                   it could not be continued either
"""

from __future__ import annotations

from live.recovery import ObservedRecovery
from live.reply import StreamedReply
from simulator.errors import ApiChanged, LiveError, StreamBroken, Unreachable

__all__ = [
    "ApiChanged",
    "BrokenReply",
    "ClientCutOff",
    "ClusterBusy",
    "InstanceFailed",
    "LiveError",
    "MasterLost",
    "ModelSubstituted",
    "NoRoute",
    "NotListening",
    "NotMended",
    "NotOffered",
    "NotReachedYet",
    "NotStreamed",
    "PlacementRefused",
    "RequestRefused",
    "ServerTimeout",
    "StreamAborted",
    "StreamBroken",
    "StreamCutOff",
    "StreamErrorEvent",
    "StreamGarbled",
    "StreamStalled",
    "Unanswered",
    "Unreachable",
]


class NotListening(Unreachable):
    """The machine lives and refuses the connection: nothing listens on that port."""


class NoRoute(Unreachable):
    """Nobody has that address or name, or no way leads there, as the network or the look-up of names says."""


class Unanswered(Unreachable):
    """Not even a refusal came: a firewall drops packets to that port, or the machine is off."""


class NotStreamed(ApiChanged):
    """A stream was asked for and one whole answer came: this version does not stream here."""


class RequestRefused(LiveError):
    """The cluster understood and said no; `status` is the HTTP status, `retry_after` what it said of when."""

    def __init__(self, message: str, status: int, retry_after: str = "") -> None:
        self.status, self.retry_after = status, retry_after
        super().__init__(message)


class NotOffered(RequestRefused):
    """This version has no such endpoint."""


class PlacementRefused(LiveError):
    """The model cannot be placed as asked; the message is the engine's own where it gave one."""


class NotReachedYet(PlacementRefused):
    """Two neighbours of the ring have no address for each other; they may within seconds."""


class InstanceFailed(LiveError):
    """An instance that will not become ready."""


class ClusterBusy(LiveError):
    """Other work is on the cluster, so that a measurement would measure both."""


class BrokenReply(StreamBroken):
    """A reply that ended early; `reply` holds everything that arrived, with times."""

    recoveries: tuple[ObservedRecovery, ...] = ()
    """What was mended before, and how far the last attempt came."""

    def __init__(self, message: str, reply: StreamedReply) -> None:
        self.reply = reply
        super().__init__(f"{message} (after {len(reply.tokens)} tokens)", len(reply.tokens))


class StreamErrorEvent(BrokenReply):
    """The engine sent an error event in the stream."""


class StreamCutOff(BrokenReply):
    """The connection ended without a last token."""


class StreamStalled(BrokenReply):
    """Tokens stopped coming; keep-alives may go on."""


class MasterLost(StreamStalled):
    """The cluster lost its master: the stream would hang with keep-alives for ever."""


class ClientCutOff(StreamStalled):
    """The node asked answers nothing any more: it is lost, or our own way to it is."""


class ServerTimeout(BrokenReply):
    """The engine's own response time-out cut the reply."""


class ModelSubstituted(BrokenReply):
    """The reply is whole, but another model than the one asked for gave it."""


class StreamGarbled(BrokenReply):
    """Bytes that are no token stream, or a stream beyond all bounds."""


class StreamAborted(BrokenReply):
    """The caller stopped the reply."""


class NotMended(BrokenReply):
    """A broken reply that could not be continued; `reply` holds what came over all attempts."""
