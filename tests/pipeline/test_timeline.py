"""Numbers and the picture of small timelines, compared with values computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import RECIPE, STAGES
from hypothesis import given
from hypothesis import strategies as st

from ltx_dist.pipeline.timeline import busy_shares, gantt, lanes, makespan, overlaps
from ltx_dist.pipeline.work import Assignment, Completion, Failure, StageReport

ENCODE, DENOISE, DECODE = STAGES


def run(clip: int, stage: str, worker_id: str, started: float, finished: float) -> Completion:
    return Completion(Assignment((f"{clip:03}",), stage, worker_id), started, finished, StageReport(finished - started))


def pinned(num_clips: int) -> list[Completion]:
    """One stage per worker: 0.05 s, 2 s, 0.5 s."""
    found: list[Completion] = []
    for i in range(num_clips):
        found.append(run(i + 1, ENCODE, "gpu-0", 0.05 * i, 0.05 * (i + 1)))
        found.append(run(i + 1, DENOISE, "gpu-1", 0.05 + 2 * i, 2.05 + 2 * i))
        found.append(run(i + 1, DECODE, "gpu-2", 2.05 + 2 * i, 2.55 + 2 * i))
    return found


def replicated() -> list[Completion]:
    """Two workers that run all stages; one clip is lost to an error, and one to a worker that vanished."""
    boom = replace(run(3, DENOISE, "w-1", 5.0, 7.0), report=StageReport(2.0, error="boom"))
    lost = replace(run(5, DENOISE, "w-1", 7.0, 10.0), failure=Failure.CRASH)
    found = [run(1, ENCODE, "w-0", 0, 0.02), run(1, DENOISE, "w-0", 0.02, 4), run(1, DECODE, "w-0", 4, 5)]
    found += [run(2, ENCODE, "w-1", 0, 0.02), run(2, DENOISE, "w-1", 0.02, 4), run(2, DECODE, "w-1", 4, 5), boom]
    found += [run(4, ENCODE, "w-0", 5, 5.02), run(4, DENOISE, "w-0", 5.02, 9), run(4, DECODE, "w-0", 9, 10), lost]
    return found + [
        run(12, ENCODE, "w-0", 10, 10.02),
        run(12, DENOISE, "w-0", 10.02, 19),
        run(12, DECODE, "w-0", 19, 20),
    ]


def test_lanes_are_by_worker_and_by_start() -> None:
    found = lanes(reversed(pinned(3)), RECIPE)
    assert list(found) == ["gpu-0", "gpu-1", "gpu-2"]
    assert [[c.assignment.clips for c in lane] for lane in found.values()] == [["001", "002", "003"]] * 3


def test_makespan_and_busy_share() -> None:
    batch = pinned(4)
    assert makespan(batch) == 8.55
    assert busy_shares(batch, RECIPE)["gpu-1"] == pytest.approx(8 / 8.55)
    assert busy_shares(batch, RECIPE)["gpu-2"] == pytest.approx(2 / 8.55)
    assert busy_shares([], RECIPE) == {} and makespan([]) == 0.0


def test_time_in_which_two_completions_overlap_counts_once() -> None:
    batch = [
        run(1, DENOISE, "w", 0, 4),
        run(2, ENCODE, "w", 1, 2),
        run(2, DECODE, "w", 3, 6),
        run(3, DENOISE, "v", 0, 8),
    ]
    assert busy_shares(batch, RECIPE)["w"] == 6 / 8


def test_overlaps_are_of_other_requests_on_other_workers() -> None:
    batch = pinned(3)
    found = [
        (o.main.assignment.clips, o.other.assignment.clips, o.other.assignment.stage) for o in overlaps(batch, RECIPE)
    ]
    assert found == [("001", "002", ENCODE), ("001", "003", ENCODE), ("002", "001", DECODE), ("003", "002", DECODE)]
    assert sum(o.seconds for o in overlaps(batch, RECIPE)) == pytest.approx(0.05 + 0.05 + 0.5 + 0.5)
    assert overlaps([run(1, DENOISE, "w", 0, 4), run(2, ENCODE, "w", 1, 2), run(1, DECODE, "v", 1, 2)], RECIPE) == []


def test_gantt_of_a_stage_a_worker() -> None:
    assert gantt(pinned(4), ["gpu-0", "gpu-1", "gpu-2"], RECIPE, width=60) == PINNED.strip()


def test_gantt_of_workers_that_do_all_with_failures() -> None:
    assert gantt(replicated(), ["w-0", "w-1", "w-2"], RECIPE, width=60) == REPLICATED.strip()


def test_gantt_of_nothing() -> None:
    assert gantt([], ["cpu"], RECIPE, width=40) == NOTHING.strip()


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.sampled_from(STAGES), st.integers(0, 3), st.floats(0, 50), st.floats(0, 9))
    ),
    st.integers(30, 200),
)
def test_gantt_keeps_its_width_and_every_worker(rows: list[tuple[int, str, int, float, float]], width: int) -> None:
    batch = [run(clip, stage, f"w-{w}", started, started + seconds) for clip, stage, w, started, seconds in rows]
    workers = [f"w-{w}" for w in range(4)]
    lines = gantt(batch, workers, RECIPE, width).splitlines()
    assert [line.split()[0] for line in lines[:4]] == workers
    assert max(len(line) for line in lines[:6]) <= width
    assert all(set(line[5:]) != {"."} for line, w in zip(lines, workers, strict=False) if w in lanes(batch, RECIPE))
    assert all(0 <= share <= 1 + 1e-9 for share in busy_shares(batch, RECIPE).values())


PINNED = """
gpu-0  E...................................................
gpu-1  D1==========D2==========D3===========D4==========...
gpu-2  ............V1==........V2==........V3==........V4==
       +-----------+-----------+-----------+------------+---
       0 s         2           4           6            8

E encode_text   D denoise   V decode   . idle
makespan: 8.55 s
busy: gpu-0 2%, gpu-1 94%, gpu-2 23%
"""

REPLICATED = """
w-0  ED1=======V1=ED4========V4=ED6=====================V6=
w-1  ED2=======V2==D3==xD5=====x...........................
w-2  ......................................................
     +-------------+------------+------------+-------------+
     0 s           5            10           15

E encode_text   D denoise   V decode   . idle   x failed
makespan: 20.00 s
busy: w-0 100%, w-1 50%, w-2 0%
"""

NOTHING = """
cpu  ..................................
     +----------------------------------
     0 s

. idle
makespan: 0.00 s
busy: cpu 0%
"""
