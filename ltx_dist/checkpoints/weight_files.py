"""Where a component's weights lie and how large they are, from the headers of its safetensors files.

Nothing else is opened: .bin, .pt and .ckpt files are pickles, which run code when they are loaded.
"""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ltx_dist.reading import read_json

WEIGHTS_NAME = {
    "text_encoder": "model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
"""The file each component's weights are in: transformers' name for the first, diffusers' for the others."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def weight_files(path: Path, component: str) -> list[Path]:
    """The safetensors files of a component, one or the shards its index names. Raises ValueError if there are none."""
    folder = path / component
    single, index = folder / WEIGHTS_NAME[component], folder / f"{WEIGHTS_NAME[component]}.index.json"
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
    raise ValueError(f"{component}: no weights; {single.name} (or {index.name} and its shards) is missing")


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


def measure_weights(path: Path, component: str) -> tuple[int, int]:
    """Bytes and elements of a component's tensors, from the headers of its files."""
    sizes = [_measure_file(file) for file in weight_files(path, component)]
    return sum(size for size, _ in sizes), sum(count for _, count in sizes)


def _measure_file(file: Path) -> tuple[int, int]:
    try:
        with safe_open(file, framework="np") as tensors:
            shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118 (not a dict)
        with file.open("rb") as raw:
            header = 8 + int.from_bytes(raw.read(8), "little")
        return file.stat().st_size - header, sum(math.prod(shape) for shape in shapes)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: not a complete safetensors file ({error}); download it again") from None
