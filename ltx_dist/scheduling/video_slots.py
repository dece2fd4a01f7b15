"""mp4s that are made on workers' hosts, beside the next work of their devices."""

from __future__ import annotations

from ltx_dist.pipeline.stages import Stage
from ltx_dist.pipeline.work import Assignment
from ltx_dist.pipeline.worker import Worker


class VideoSlots:
    """A worker's slot is taken from the end of a decode to the end of its mp4."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._taken: dict[str, set[str]] = {}
        self._not_begun: list[Assignment] = []
        self.num_taken = 0

    def add(self, worker: Worker) -> None:
        self._slots[worker.worker_id] = worker.video_slots
        self._taken[worker.worker_id] = set()

    def remove(self, worker_id: str) -> list[str]:
        """The requests whose mp4 was not begun: their frames are gone with the worker. Those begun have ended."""
        lost = [waiting for waiting in self._not_begun if waiting.worker_id == worker_id]
        for assignment in lost:
            self._not_begun.remove(assignment)
            self.end(assignment)
        assert not self._taken[worker_id], worker_id
        return [request_id for assignment in lost for request_id in assignment.request_ids]

    def makes_videos(self, worker_id: str) -> bool:
        return self._slots[worker_id] > 0

    def has_slot(self, worker_id: str) -> bool:
        """Whether the worker may decode: one that makes no mp4s beside its device always may."""
        return not self._slots[worker_id] or len(self._taken[worker_id]) < self._slots[worker_id]

    def is_in_use(self, worker_id: str) -> bool:
        return bool(self._taken[worker_id])

    def fill(self, decode: Assignment) -> None:
        """The frames of a decode that ended are on the host."""
        self._taken[decode.worker_id].update(decode.request_ids)
        self._not_begun += [Assignment(part.request_ids, Stage.ENCODE_VIDEO, part.worker_id) for part in decode.parts]
        self.num_taken += len(decode.request_ids)

    def begin(self) -> list[Assignment]:
        """What was not begun yet."""
        assignments, self._not_begun = self._not_begun, []
        return assignments

    def end(self, assignment: Assignment) -> None:
        assert self._taken[assignment.worker_id].issuperset(assignment.request_ids), f"{assignment} is not in flight"
        self._taken[assignment.worker_id].difference_update(assignment.request_ids)
        self.num_taken -= len(assignment.request_ids)
