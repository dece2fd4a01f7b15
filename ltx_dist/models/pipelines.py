"""diffusers' pipelines with only the parts that a stage has: their methods own the numerics of every stage."""

from __future__ import annotations

import inspect
from typing import Any


def partial_pipeline(pipeline_class: Any, **components: Any) -> Any:
    """An instance of the class with these components, or stand-ins for them, and None for every other component.

    It shows no progress bar. Its type is Any because diffusers declares real models for all of its components.
    """
    parameters = list(inspect.signature(pipeline_class.__init__).parameters.values())[1:]
    missing = {one.name: None for one in parameters if one.default is one.empty and one.name not in components}
    pipeline = pipeline_class(**missing, **components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
