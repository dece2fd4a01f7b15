"""`plan`: predicts a batch on this machine, or on one that the config describes. Loads no model."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from ltx_dist.api.errors import input_errors
from ltx_dist.api.inputs import Config, Prompts, batch_of
from ltx_dist.checkpoints.hub_headers import fetch_headers
from ltx_dist.messages import duration
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.local_devices import local_inventory, with_described
from ltx_dist.planning.planner import Forecast
from ltx_dist.run.batch import Batch


@dataclass(frozen=True, slots=True)
class Layout:
    """The prediction for one layout. seconds: from first start to last end. bound: lower bound of `seconds`.

    workers: the stages of each worker, by its name. busy: the share of `seconds` that each worker is busy, likewise.
    """

    name: str
    seconds: float
    clips_an_hour: float
    bound: float
    workers: dict[str, tuple[str, ...]]
    busy: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """A checked batch and its predictions. `str()` and notebooks show it as a table."""

    batch: Batch
    inventory: Inventory
    forecasts: tuple[Forecast, ...]

    @property
    def layouts(self) -> list[Layout]:
        """The layouts that fit, best first; a run takes the first."""
        return [_layout(forecast) for forecast in self.forecasts]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all clips, in order."""
        return self.batch.names

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about settings that may not be meant."""
        return self.batch.warnings

    def _rows(self) -> list[tuple[str, ...]]:
        head = ("layout", "workers", "makespan", "clips/hour", "bound")
        return [head] + [
            (
                one.name,
                str(len(one.workers)),
                duration(one.seconds, ".3g"),
                f"{one.clips_an_hour:.4g}",
                duration(one.bound, ".3g"),
            )
            for one in self.layouts
        ]

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head, *rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self._rows()]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head.replace('td>', 'th>')}</tr></thead><tbody>{body}</tbody></table>"


def plan(
    prompts: Prompts,
    *,
    model: str | PathLike[str] | None = None,
    config: Config = None,
    vary: Mapping[str, Any] | None = None,
) -> Plan:
    """Check a batch and predict its time and memory, as `ltx-dist plan` does.

    The parameters are those of `render`. To plan for GPUs that this machine lacks, set `placement.device` to cuda,
    `placement.devices` and `placement.memory_gb`. Raises InputError with every mistake found.
    """
    with input_errors():
        return plan_of(batch_of(prompts, model, config, vary, fetch_headers))


def plan_of(batch: Batch, inventory: Inventory | None = None) -> Plan:
    """The plan of a batch; on this machine if no inventory is given. Raises ValueError if no layout fits."""
    if inventory is None:
        wishes = batch.config.placement
        inventory = with_described(local_inventory(wishes.device), wishes.device, wishes.devices, wishes.memory_gb)
    return Plan(batch.warned_of(inventory), inventory, tuple(batch.forecasts(inventory)))


def _layout(forecast: Forecast) -> Layout:
    placement = forecast.placement
    return Layout(
        placement.layout,
        forecast.seconds,
        forecast.clips_an_hour,
        forecast.bound.seconds,
        {worker.worker_id: tuple(worker.stages) for worker in placement.workers},
        dict(forecast.busy),
    )
