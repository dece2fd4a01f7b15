"""The publishing thread keeps the order, loses nothing, reports errors, and never waits forever."""

from __future__ import annotations

import threading

import pytest
from test_publisher import REQUEST

from ltx_dist.pipeline.work import RenderResult
from ltx_dist.store.output_errors import OutputError
from ltx_dist.store.publishing import MAX_WAITING, PublishingThread

RESULTS = [RenderResult(REQUEST, "failed", (), error=str(number)) for number in range(3 * MAX_WAITING)]


def test_everything_put_is_published_in_order_before_the_end() -> None:
    published: list[RenderResult] = []
    with PublishingThread(published.append) as publishing:
        for result in RESULTS:
            publishing.put(result)
    assert published == RESULTS


def test_the_loop_goes_on_while_a_clip_is_published_and_waits_only_for_room() -> None:
    go_on = threading.Event()
    published: list[RenderResult] = []

    def slow(result: RenderResult) -> None:
        assert go_on.wait(60)
        published.append(result)

    with PublishingThread(slow) as publishing:
        for result in RESULTS[:MAX_WAITING]:
            publishing.put(result)
        assert not published
        go_on.set()
    assert published == RESULTS[:MAX_WAITING]


def test_a_stop_publishes_first_what_was_put() -> None:
    published: list[RenderResult] = []
    with pytest.raises(KeyboardInterrupt), PublishingThread(published.append) as publishing:
        publishing.put(RESULTS[0])
        raise KeyboardInterrupt
    assert published == RESULTS[:1]


def full(_: RenderResult) -> None:
    raise OutputError("the disk is full")


def test_an_error_is_told_at_the_next_clip_and_nothing_more_is_published() -> None:
    with pytest.raises(OutputError, match="full"), PublishingThread(full) as publishing:
        for result in RESULTS * 100:
            publishing.put(result)
        pytest.fail("told before the batch is over")


def test_an_error_of_the_last_clip_is_told_at_the_end_even_of_a_stop() -> None:
    with pytest.raises(OutputError, match="full"), PublishingThread(full) as publishing:
        publishing.put(RESULTS[0])
    with pytest.raises(OutputError, match="full"), PublishingThread(full) as publishing:
        publishing.put(RESULTS[0])
        raise KeyboardInterrupt


def test_a_disk_that_hangs_is_given_up() -> None:
    hangs = threading.Event()
    message = f"{REQUEST.request_id}: no progress in writing this clip for 0 s"
    hanging = PublishingThread(lambda _: (hangs.wait(60), None)[1], patience=0.05)
    with pytest.raises(OutputError, match=message), hanging as publishing:
        publishing.put(RESULTS[0])
    hangs.set()
