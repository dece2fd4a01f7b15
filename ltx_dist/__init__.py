"""Render batches of prompts with LTX-Video or LTX-2 on one or many GPUs. Importing this loads no torch and no ray."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltx_dist.api.clip import Clip, clips
    from ltx_dist.api.errors import InputError
    from ltx_dist.api.planning import Layout, Plan, plan
    from ltx_dist.api.renderer import Renderer
    from ltx_dist.api.rendering import Progress, Run, render
    from ltx_dist.api.result import Result
    from ltx_dist.engine.executor import WorkerStartError
    from ltx_dist.engine.failures import SystemicError
    from ltx_dist.engine.workers import WorkersLostError
    from ltx_dist.inputs.config import RenderConfig
    from ltx_dist.store.output_errors import OutputError

__version__ = "0.1.0"

_HOMES = {
    "render": "api.rendering", "Run": "api.rendering", "Result": "api.result", "Progress": "api.rendering",
    "plan": "api.planning", "Plan": "api.planning", "Layout": "api.planning",
    "clips": "api.clip", "Clip": "api.clip",
    "Renderer": "api.renderer", "RenderConfig": "inputs.config",
    "InputError": "api.errors", "OutputError": "store.output_errors",
    "WorkerStartError": "engine.executor", "SystemicError": "engine.failures", "WorkersLostError": "engine.workers",
}  # fmt: skip
"""The module of each public name, imported when the name is first used."""

__all__ = [
    "Clip",
    "InputError",
    "Layout",
    "OutputError",
    "Plan",
    "Progress",
    "RenderConfig",
    "Renderer",
    "Result",
    "Run",
    "SystemicError",
    "WorkerStartError",
    "WorkersLostError",
    "__version__",
    "clips",
    "plan",
    "render",
]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
