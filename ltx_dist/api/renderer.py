"""`Renderer`: holds a model in this process and renders batch after batch, for pipelines such as Ray Data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from ltx_dist.api.errors import InputError, input_errors
from ltx_dist.api.inputs import Config, config_of
from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.given_rows import given_rows
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.messages import show
from ltx_dist.pipeline.work import RenderResult
from ltx_dist.placement.local_devices import check_order, local_inventory
from ltx_dist.placement.placement import HOST_SLOTS
from ltx_dist.run.batch import Batch, open_batch
from ltx_dist.run.placed_batch import PlacedBatch, place_batch
from ltx_dist.run.precision import one_device
from ltx_dist.scheduling.batching import batch_key
from ltx_dist.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from ltx_dist.worker.local_executor import LocalExecutor
    from ltx_dist.worker.spec import WorkerSpec

Rows = list[dict[str, Any]]


class Renderer:
    """Renders the rows of each batch that it is called with, all stages on one device of this process.

    Columns with the names of a prompt row's fields are settings; `keep_columns` are only passed through. A row without
    a seed gets `defaults.seed` plus its position in its batch. The model is loaded by the first batch and kept; a batch
    that needs other decode tiles or LoRAs loads it again. `placement.host_slots` is 2 unless the config sets it.

        dataset.map_batches(Renderer, fn_constructor_kwargs={"model": MODEL}, num_gpus=1, batch_size=4, concurrency=8)

    Raises InputError for wrong settings.
    """

    def __init__(
        self, model: str | PathLike[str] | None = None, config: Config = None, keep_columns: Collection[str] = ()
    ) -> None:
        with input_errors():
            self._config = _with_host_slots(config_of(model, config))
            if self._config.output.also:
                raise ValueError("output.also: a Renderer returns mp4s alone; leave it out, or use ltx_dist.render")
            model_config = self._config.model
            open_checkpoint(model_config.checkpoint, model_config.text_encoder, model_config.upscaler)
        self._keep_columns = frozenset(keep_columns)
        self._specs: list[WorkerSpec] = []
        self._executor: LocalExecutor | None = None

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """The columns of the batch, and three more: `mp4` (bytes), `frames_sha256` and `error`, None where unset.

        An invalid row, or one whose clip fails, has an `error`. Raises InputError for an unknown column,
        SystemicError if all clips fail in the same way, and WorkerStartError if the model cannot be loaded.
        """
        self._check_columns(batch)
        columns = {name: list(values) for name, values in batch.items()}
        names = [name for name in columns if name not in self._keep_columns]
        size = len(next(iter(columns.values()), []))
        rows = [{name: columns[name][position] for name in names} for position in range(size)]
        checked, errors = self._check(rows)
        made: list[tuple[bytes | None, str | None, str | None]] = [(None, None, error) for error in errors]
        if checked is not None:
            results = {result.request.request_id: result for result in self._render(checked)}
            right = (position for position, error in enumerate(errors) if error is None)
            for position, request in zip(right, checked.requests, strict=True):
                result = results[request.request_id]
                video = result.video
                made[position] = (video.mp4, video.frames_sha256, None) if video else (None, None, result.error)
        mp4s, digests, problems = (list(column) for column in zip(*made, strict=True)) if made else ([], [], [])
        return columns | {"mp4": mp4s, "frames_sha256": digests, "error": problems}

    def close(self) -> None:
        """Free the model."""
        if self._executor is not None:
            self._executor.shutdown()
        self._executor, self._specs = None, []

    def _check_columns(self, batch: Mapping[str, Sequence[Any]]) -> None:
        unknown = [name for name in batch if name not in Row.model_fields and name not in self._keep_columns]
        if unknown:
            mistakes = [f"{show(name)}: unknown column; rename it, or name it in keep_columns" for name in unknown]
            raise InputError("\n".join(mistakes), mistakes)

    def _check(self, rows: Rows) -> tuple[Batch | None, list[str | None]]:
        """The batch of the valid rows, if any, and the error of each other row."""
        if not rows:
            return None, []
        for position, row in enumerate(rows):
            if row.get("seed") is None:  # its position among all rows, even if some are left out
                row["seed"] = self._config.defaults.seed + position
        try:
            return open_batch(given_rows(rows), self._config), [None] * len(rows)
        except ValueError:
            errors = [self._mistake(row) for row in rows]
        right = [row for row, error in zip(rows, errors, strict=True) if error is None]
        with input_errors():  # errors between rows that are valid by themselves, such as a name given twice
            return (open_batch(given_rows(right), self._config) if right else None), errors

    def _mistake(self, row: dict[str, Any]) -> str | None:
        try:
            open_batch(given_rows([row]), self._config)
        except ValueError as error:
            return str(error).replace("prompts:1: ", "")
        return None

    def _render(self, batch: Batch) -> list[RenderResult]:
        inventory = local_inventory(self._config.placement.device)
        if self._config.placement.device != "cpu":
            with input_errors():
                check_order(inventory)
        placed = place_batch(batch, one_device(self._config, inventory))
        scheduler = Scheduler(
            placed.placement, batch.costs(placed.precision), batch_key(placed.placement.recipe, batch.requests)
        )
        try:
            return list(BatchLoop(scheduler, self._executor_of(placed)).render(batch.requests))
        except BaseException:
            self.close()  # outputs of clips that have not ended are in it
            raise

    def _executor_of(self, placed: PlacedBatch) -> LocalExecutor:
        """The worker of the last batch, unless this one needs another."""
        from ltx_dist.run.crew import Crew
        from ltx_dist.worker.local_executor import LocalExecutor

        # The predicted peak is only shown.
        specs = [replace(spec, worker=replace(spec.worker, peak_bytes=0)) for spec in Crew(placed).specs()]
        if self._executor is None or specs != self._specs:
            self.close()
            self._executor, self._specs = LocalExecutor(specs), specs
        return self._executor


def _with_host_slots(config: RenderConfig) -> RenderConfig:
    """The config with a fixed number of host slots. Otherwise they would be predicted for each batch, and a different
    number needs a new worker, which loads the model again."""
    slots = config.placement.host_slots or HOST_SLOTS
    return config.model_copy(update={"placement": config.placement.model_copy(update={"host_slots": slots})})
