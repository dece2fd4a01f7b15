"""CUDA tensors without a GPU: the real stages run on them, and an operation that mixes devices or dtypes raises.

torch's fake tensors have a shape, a dtype and a device, but no data. On a build of torch without CUDA, indexing, `~`,
`contiguous`, bilinear scaling and `torch.tensor` need a device guard that does not exist; `CudaOps` rewrites them with
other operators. Code that reads values is replaced: nothing on this path may depend on a value on the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.hooks.layerwise_casting import LayerwiseCastingHook
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
CUDA = torch.device("cuda", 0)

READS = {"_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero"}
COPIES = {"_to_copy", "to", "copy_"}
"""Operators for which the host waits, because Python needs their result to continue."""


@contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """A context in which tensors can be made on `CUDA`, and modules moved there with `to_cuda`."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with CudaOps(), mode, torch.inference_mode():
        yield mode


def without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces what in diffusers depends on values, or changes a parameter's data. Call it before hooks are added."""
    monkeypatch.setattr(FlowMatchEulerDiscreteScheduler, "_init_step_index", first_step)
    cast_around_layers(monkeypatch, _cast)


def to_cuda(mode: FakeTensorMode, module: torch.nn.Module) -> None:
    """Casts in place; `Module.to` would swap the data of parameters, which fake tensors refuse."""
    for child in module.modules():
        for name, tensor in [*child._parameters.items()]:
            if tensor is not None:
                child._parameters[name] = torch.nn.Parameter(_moved(mode, tensor), requires_grad=False)
        for name, tensor in [*child._buffers.items()]:
            if tensor is not None:
                child._buffers[name] = _moved(mode, tensor)


def _moved(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    fake = mode.from_tensor(tensor.data)
    with mode:
        return fake.to(CUDA)


class HostTraffic(TorchDispatchMode):
    """Counts what the host waits for or sends: copies between devices by direction, and values read."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        found = func(*args, **(kwargs or {}))
        if name in READS and any(isinstance(arg, torch.Tensor) and arg.device.type == "cuda" for arg in args):
            self.counts[name] += 1
        if name in COPIES:
            source, target = (args[1], args[0]) if name == "copy_" else (args[0], found)
            if source.device.type != target.device.type:
                self.counts[f"{source.device.type} to {target.device.type}"] += 1
        return found


class CudaOps(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor:
            return _tensor(*args, **kwargs) if _is_elsewhere(kwargs.get("device")) else func(*args, **kwargs)
        if args and isinstance(args[0], torch.Tensor) and args[0].device.type == "cuda":
            if func is torch.Tensor.__getitem__:
                return _view(*args)
            if func is torch.Tensor.__setitem__:
                return _fill(*args)
            if func is torch.Tensor.__invert__:
                return ATEN.bitwise_not.default(args[0])
            if func is torch.nn.functional.interpolate and kwargs.get("mode") == "bilinear":
                return args[0].new_zeros((*args[0].shape[:2], *kwargs["size"]))
            if func is torch.Tensor.contiguous:
                layout = kwargs.get("memory_format", torch.contiguous_format)
                return args[0] if args[0].is_contiguous(memory_format=layout) else _cloned(args[0], layout)
        return func(*args, **kwargs)


def _is_elsewhere(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _tensor(data: Any, *, device: Any, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
    values = np.asarray(data)
    return torch.zeros(values.shape, dtype=dtype or torch.from_numpy(values).dtype, device=device)


def _cloned(tensor: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    return ATEN.clone.default(tensor, memory_format=layout)


def _fill(tensor: torch.Tensor, key: Any, value: Any) -> None:
    view = _view(tensor, key)
    if isinstance(value, torch.Tensor):
        ATEN.copy_.default(view, value)
    else:
        ATEN.fill_.Scalar(view, value)


def _view(tensor: torch.Tensor, key: Any) -> torch.Tensor:
    """`tensor[key]` for integers, slices, None, Ellipsis and index tensors."""
    keys = key if isinstance(key, tuple) else (key,)
    missing = tensor.dim() - sum(1 for one in keys if one is not None and one is not Ellipsis)
    indices: list[torch.Tensor | None] = []
    dim = 0
    for one in (part for key in keys for part in _spelled(key, missing)):
        if one is None:
            tensor = ATEN.unsqueeze.default(tensor, dim)
        elif isinstance(one, slice):
            start, stop, step = one.indices(tensor.shape[dim])
            tensor = ATEN.slice.Tensor(tensor, dim, start, max(start, stop), step)
        elif isinstance(one, int):
            tensor = ATEN.select.int(tensor, dim, one)
            continue
        else:
            indices += [None] * (dim - len(indices)) + [torch.as_tensor(one)]
        dim += 1
    return ATEN.index.Tensor(tensor, indices) if indices else tensor


def _spelled(key: Any, missing: int) -> list[Any]:
    return [slice(None)] * missing if key is Ellipsis else [key]


def first_step(scheduler: Any, timestep: Any) -> None:
    """Replaces a search for the timestep, which reads values on the device."""
    scheduler._step_index = 0


def cast_around_layers(monkeypatch: pytest.MonkeyPatch, cast: Callable[[torch.nn.Module, torch.dtype], None]) -> None:
    """Makes diffusers' hooks for weights in 8 bits call `cast` instead of `Module.to`."""

    def up(hook: Any, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        cast(module, hook.compute_dtype)
        return args, kwargs

    def down(hook: Any, module: torch.nn.Module, output: Any) -> Any:
        cast(module, hook.storage_dtype)
        return output

    monkeypatch.setattr(LayerwiseCastingHook, "pre_forward", up)
    monkeypatch.setattr(LayerwiseCastingHook, "post_forward", down)


def _cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    for name, tensor in [*module._parameters.items()]:
        if tensor is not None:
            module._parameters[name] = torch.nn.Parameter(tensor.to(dtype), requires_grad=False)
