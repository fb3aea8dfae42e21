"""A model that is not on the devices yet: EXO downloads it when it is placed, and tells in its state only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from live.errors import InstanceFailed
from live.exo.health import Download, downloads_of
from live.exo.state import ClusterState, StateInstance
from simulator.units import format_bytes

__all__ = ["Missing"]


@dataclass(frozen=True, slots=True)
class Missing:
    """The downloads of an instance's model that are not complete on its nodes, at one look."""

    state: ClusterState
    model_id: str
    downloads: tuple[Download, ...]

    @classmethod
    def of(cls, state: ClusterState, instance: StateInstance) -> Self:
        """What lacks for `instance`; nothing where the state tells of no download."""
        nodes = [shard.node_id for shard in instance.shards]
        listed = [one for one in downloads_of(state.raw, nodes) if one.model_id == instance.model_id]
        # an older entry of the same node and model may stand beside the newer one
        complete = {one.node_id for one in listed if one.status == "Completed"}
        return cls(state, instance.model_id, tuple(one for one in listed if one.node_id not in complete))

    def told(self) -> tuple[str, ...]:
        """`node-b has not downloaded the model: 35 %, 12.4 GB to come` for each."""
        return tuple(
            f"{self.state.name_of(one.node_id)} has not downloaded the model"
            + (f": {one.share:.0%}" if one.share is not None else "")
            + (f", {format_bytes(one.missing_bytes)} to come" if one.missing_bytes else "")
            for one in self.downloads
        )

    def check(self, still_s: float, most_s: float) -> None:
        """Raise InstanceFailed where one failed, or where nothing has moved for longer than `most_s`."""
        for one in self.downloads:
            node = self.state.name_of(one.node_id)
            way = (
                f"see that {node} reaches the model hub and has room on its disk, or copy the model there; "
                "`sim live doctor` shows downloads"
            )
            if one.status == "Failed":
                reason = one.error or "EXO gives no reason"
                raise InstanceFailed(f"{node} could not download {self.model_id}: {reason}; {way}")
            if still_s > most_s:
                raise InstanceFailed(
                    f"{self.model_id}: {'; '.join(self.told())}, and nothing has moved for {still_s:.0f} s; "
                    + way
                )
