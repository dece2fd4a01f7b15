"""The live part of a run: workers, the batch loop, the publishing thread, and the observers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ltx_dist.engine.loop import BatchLoop
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import RenderResult
from ltx_dist.planning.cliff import CliffGuard
from ltx_dist.planning.order_search import better_orders
from ltx_dist.planning.ordering import best_order
from ltx_dist.planning.pace import planned_ends
from ltx_dist.report.live_page import LivePage
from ltx_dist.report.observers import Warnings, Watcher, Watchers
from ltx_dist.report.progress import progress_of, queues_of
from ltx_dist.report.run_record import RunProgress
from ltx_dist.run.cost_store import keep_corrections
from ltx_dist.run.crew import Crew
from ltx_dist.run.session import Session
from ltx_dist.scheduling.batching import batch_key
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.store.output_errors import output_errors
from ltx_dist.store.publisher import Publisher
from ltx_dist.store.publishing import PublishingThread

if TYPE_CHECKING:
    from ltx_dist.engine.executor import Executor
    from ltx_dist.run.resumption import Resumption


def render_requests(
    session: Session,
    requests: Sequence[RenderRequest],
    publisher: Publisher,
    resumption: Resumption,
    run: RunProgress,
) -> None:
    """Render and publish `requests` in the order with the shortest makespan; `run` records each as it ends.

    Raises the errors that end a run early; see `run.render_batch`.
    """
    placed, crew = session.placed, Crew(session.placed, session.note)
    with _closing(resumption, session), _executor(crew, session) as executor:
        watchers, costs = Watchers(), placed.batch.costs(placed.precision)
        loop = BatchLoop(
            Scheduler(placed.placement, costs, batch_key(placed.placement.recipe, placed.batch.requests)),
            executor,
            resumption,
            keys=placed.keys.of,
            on_completion=watchers.stage_ended,
            on_notice=session.note,
            is_stopped=lambda: session.stop.is_asked,
            is_over=lambda: session.stop.is_over,
            bounds=lambda: crew.placement.max_queued,
            on_worker_change=crew.change,
            reorder=lambda scheduler: better_orders(scheduler, crew.placement.workers, costs),
        )
        run.completions, run.costs = loop.completions, costs
        ordered = best_order(placed.placement, resumption.todo(requests), costs)
        by_id = {request.request_id: request for request in requests}
        ends = planned_ends(ordered.completions, ordered.scale)
        page = LivePage()

        def publish(result: RenderResult) -> None:
            published = _publish(publisher, result, placed.keys.render_key(result.request))
            run.count(published)
            run.placement = crew.placement
            if published.status == "done":
                resumption.forget(published.request)
            watchers.clip_ended(published)
            page.refresh(run, session.out)

        with progress_of(
            placed.placement.recipe,
            run.submitted,
            run.skipped,
            session.console,
            executor.worker_states,
            queues_of(requests, placed.placement.recipe, loop.queue_lengths),
            ends,
        ) as progress:
            guard = CliffGuard.of(costs, lambda: crew.placement.workers)
            watchers.add(progress)
            watchers.add(Warnings(guard, run, lambda line: session.note(f"warning: {line}")))
            for watcher in (session.out.mirror, *session.followers, _metrics(session, loop)):
                if watcher:
                    watchers.add(watcher)
            try:
                with PublishingThread(publish) as publishing:
                    for result in loop.render([by_id[name] for name in ordered.request_ids]):
                        publishing.put(result)
            finally:  # save the measurements of a stopped run, too
                keep_corrections(costs, placed.batch.family, placed.batch.checkpoint, placed.precision, placed.storage)


def _publish(publisher: Publisher, result: RenderResult, key: str) -> RenderResult:
    """The result after publishing; `failed` if the video was refused, which fails the clip but not the batch."""
    with output_errors():
        try:
            publisher.publish(result, key)
        except ValueError as error:
            result = replace(result, status="failed", video=None, error=f"the finished video was refused: {error}")
            publisher.publish(result, key)
    return result


def _metrics(session: Session, loop: BatchLoop) -> Watcher | None:
    if not session.uses_ray:
        return None
    from ltx_dist.cluster.ray_metrics import RayMetrics

    return RayMetrics(loop.queue_lengths)


@contextmanager
def _executor(crew: Crew, session: Session) -> Iterator[Executor]:
    if session.uses_ray:
        from ltx_dist.cluster.ray_executor import RayExecutor

        executor: Executor = RayExecutor(
            crew.specs(), hire=crew.hire, known_nodes=crew.known_nodes, environment=session.environment
        )
    else:
        from ltx_dist.worker.local_executor import LocalExecutor

        executor = LocalExecutor(crew.specs())
    try:
        yield executor
    finally:
        executor.shutdown()


@contextmanager
def _closing(resumption: Resumption, session: Session) -> Iterator[None]:
    """At the end of the block, wait for outputs that are still to be saved, and report those that could not be."""
    try:
        yield
    finally:
        for note in resumption.close():
            session.note(note)
