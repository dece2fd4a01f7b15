"""Finds a component's weights and their size by the headers of its safetensors files.

Nothing else is opened: .bin, .pt and .ckpt files are pickles, which run code when they are loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open

from ltx_dist.strict_files import mistaken_for, read_json

T = TypeVar("T")


def attempt(problems: list[str], otherwise: T, read: Callable[[], T]) -> T:
    """`read()`; where it raises ValueError, `otherwise`, with the error's text added to `problems`."""
    try:
        return read()
    except ValueError as error:
        problems.append(str(error))
        return otherwise


def what_lies_in(folder: Path) -> str:
    """`vae/ holds a.txt, b.txt`, for a message about something that is missing there."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"{folder.name}/ holds {shown or 'nothing'}"


WEIGHTS_NAME = {
    "text_encoder": "model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
"""The file each component's weights are in: transformers' name for the first, diffusers' for the others."""

GGUF = (
    "GGUF, which is not supported; give the bfloat16 .safetensors file or folder, and for less memory set "
    "model.transformer_storage or model.text_encoder_quantization"
)

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pt2")


_SCALES = re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_2)?|input_scale|comfy_quant)$")
"""Names of ComfyUI's scaled fp8, and of what other tools write for it."""


def weights_name(component: str) -> str:
    """The main file of any component, in any model family."""
    return WEIGHTS_NAME.get(component, "diffusion_pytorch_model.safetensors")


def weight_files(folder: Path, component: str) -> list[Path]:
    """The safetensors files in a component's folder, one or the shards of its index; ValueError if there are none."""
    name = weights_name(component)
    single, index = folder / name, folder / f"{name}.index.json"
    if not folder.is_dir():
        raise ValueError(f"{component}: no such folder")
    # Where both are there, transformers loads the single file (_get_resolved_checkpoint_files in modeling_utils.py of
    # 5.23) and diffusers the shards of the index (from_pretrained in models/modeling_utils.py of 0.42.1).
    if single.is_file() and (component == "text_encoder" or not index.is_file()):
        return [single]
    if index.is_file():
        return _shards(index)
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise ValueError(
            f"{component}: safetensors only: {pickles[0]} is a pickle and could run code when opened; convert it on a "
            f"machine you trust with save_pretrained(FOLDER, safe_serialization=True)"
        )
    if any(file.suffix == ".gguf" for file in folder.iterdir()):
        raise ValueError(f"{component}: {GGUF}")
    raise ValueError(
        f"{component}: no weights; {single.name} (or {index.name} and its shards) is missing; {what_lies_in(folder)}"
    )


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    # A name with a path in it could point anywhere on this machine.
    if not names or not all(isinstance(n, str) and n.endswith(".safetensors") and n == Path(n).name for n in names):
        raise ValueError(f"{index}: weight_map must map tensors to .safetensors files of the same folder")
    missing = sorted(name for name in names if not (index.parent / name).is_file())
    if missing:
        raise ValueError(f"{index}: shards are missing: {', '.join(missing)}; download them again")
    return [index.parent / name for name in sorted(names)]


def measure_weights(folder: Path, component: str) -> tuple[int, int]:
    """Bytes and elements of the tensors in a component's folder, from the headers of its files.

    Raises ValueError for weights in the formats of other programs, which have a scale beside each tensor.
    """
    found = {key: info for file in weight_files(folder, component) for key, info in read_header(file).tensors.items()}
    if key := next((key for key in found if _SCALES.search(key)), None):
        raise ValueError(
            f"{component}: quantised for another program ({key} is a scale, which {component}'s class does not have); "
            "give the weights in bfloat16"
        )
    tensors = list(found.values())
    return sum(info.num_bytes for info in tensors), sum(info.num_elements for info in tensors)


def count_parameters(folder: Path, component: str, prefix: str) -> int:
    """Number of elements of a component's tensors whose names have this prefix."""
    headers = [read_header(file).tensors for file in weight_files(folder, component)]
    return sum(info.num_elements for tensors in headers for key, info in tensors.items() if key.startswith(prefix))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as described by the header. dtype: by safetensors' names, such as BF16."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * int(re.sub(r"\D", "", self.dtype.partition("_")[0]) or 8) // 8


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a safetensors file by name, and the free text its maker left."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(file: Path) -> Header:
    """The header of a safetensors file; no weights are read. Raises ValueError for a truncated file or another
    format."""
    if mistake := not_safetensors(file):
        raise ValueError(f"{file}: {mistake}")
    try:
        with safe_open(file, framework="np") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
            tensors = {key: TensorInfo(tuple(one.get_shape()), one.get_dtype()) for key, one in slices.items()}
            return Header(tensors, opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: not a complete safetensors file ({error}); download it again") from None


def not_safetensors(file: Path) -> str | None:
    """What a file named .safetensors really is, with the remedy; None if its start does not tell.

    Opens regular files alone: a pipe would wait for a writer.
    """
    if not file.is_file():
        return None
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
    except OSError as error:
        return f"cannot be read: {error.strerror}; check its permissions"
    if head[8:9] == b"{":  # the JSON header of safetensors, after 8 bytes with its length
        return None
    if head.startswith(b"GGUF"):
        return GGUF
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "a pickle under another name, which could run code when opened; give the file in safetensors"
    return mistaken_for(head)
