"""What can be known of a checkpoint from its JSON files and safetensors headers alone: no torch, no weights read.

Only safetensors are opened: .bin, .pt and .ckpt files are pickles, which run code when they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

DEMO_MODEL = Path(__file__).parent / "demo" / "model"
PIPELINE_CLASSES = ("LTXPipeline", "LTXConditionPipeline")
WEIGHTS_NAME = {
    "text_encoder": "model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
"""The file each component's weights are in: transformers' name for the first, diffusers' for the others."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAX_JSON_BYTES = 64 << 20
_CACHED_FROM_BYTES = 1 << 20  # smaller files are hashed in less time than the cache is read


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder in diffusers layout that has everything a render needs.

    name: as asked for. Compression ratios: pixels (frames) a latent pixel (frame), by diffusers' own rule.
    weights: bytes of the tensors of text_encoder, transformer and vae as stored; num_parameters: their elements.
    decoder_inject_noise: whether any block of the VAE's decoder adds noise (LTX-Video 0.9.1 does).
    """

    name: str
    path: Path
    pipeline_class: str
    spatial_compression_ratio: int
    temporal_compression_ratio: int
    timestep_conditioning: bool
    latent_channels: int
    weights: dict[str, int]
    num_parameters: dict[str, int]
    decoder_inject_noise: bool = False


def open_checkpoint(name: str) -> Checkpoint:
    """Look at `demo` (packaged) or a folder in diffusers layout.

    Raises ValueError with a line for each thing that is missing or cannot be used, and what to do.
    """
    path = DEMO_MODEL if name == "demo" else Path(name).expanduser()
    _require_folder(name, path)
    problems: list[str] = []
    pipeline_class = _attempt(problems, lambda: _read_pipeline_class(path), "")
    vae = _attempt(problems, lambda: _read_vae(path / "vae" / "config.json"), {})
    sizes = {component: _attempt(problems, lambda c=component: _measure(path, c), (0, 0)) for component in WEIGHTS_NAME}
    for needed in ("text_encoder/config.json", "transformer/config.json", "scheduler/scheduler_config.json"):
        _attempt(problems, lambda file=needed: _read_json(path / file), {})
    if not (path / "tokenizer").is_dir():
        problems.append("tokenizer: no such folder")
    if problems:
        lines = "\n".join(f"  {problem.replace(f'{path}{os.sep}', '')}" for problem in problems)
        raise ValueError(f"model.checkpoint: {path} is not a usable diffusers folder; complete or replace it:\n{lines}")
    return Checkpoint(
        name=name,
        path=path,
        pipeline_class=pipeline_class,
        weights={component: size[0] for component, size in sizes.items()},
        num_parameters={component: size[1] for component, size in sizes.items()},
        **vae,
    )


def _require_folder(name: str, path: Path) -> None:
    if path.is_dir():
        return
    field = f"model.checkpoint: {name}"
    if path.suffix == ".safetensors":
        raise ValueError(f"{field}: this version reads diffusers folders only, not single files; convert it")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w.-]+)?", name):
        raise ValueError(
            f"{field}: no such folder, and this version reads diffusers folders only, not Hugging Face names; "
            f"`hf download {name.partition('@')[0]} --local-dir FOLDER`, then give FOLDER"
        )
    raise ValueError(f"{field}: no such folder; give `demo` or a folder in diffusers layout (with model_index.json)")


def _attempt(problems: list[str], read: Callable[[], Any], otherwise: Any) -> Any:
    """`read()`, or note its ValueError and go on, so that everything wrong is said at once."""
    try:
        return read()
    except ValueError as error:
        problems.append(str(error))
        return otherwise


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"{path}: larger than {_MAX_JSON_BYTES >> 20} MiB, so no configuration")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {'missing' if not path.exists() else error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); download it again") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a JSON object; download it again")
    return document


def _read_pipeline_class(path: Path) -> str:
    given = _read_json(path / "model_index.json").get("_class_name")
    if given not in PIPELINE_CLASSES:
        raise ValueError(f"{path / 'model_index.json'}: _class_name: {given!r} is not {' or '.join(PIPELINE_CLASSES)}")
    return str(given)


def _read_vae(path: Path) -> dict[str, Any]:
    """The VAE's fields of Checkpoint; defaults and rule of AutoencoderKLLTXVideo.__init__ in diffusers 0.42."""
    config = _read_json(path)
    try:
        blocks = 2 ** sum(bool(scaled) for scaled in config.get("spatio_temporal_scaling", (True, True, True, False)))
        spatial, temporal = config.get("spatial_compression_ratio"), config.get("temporal_compression_ratio")
        fields = {
            "spatial_compression_ratio": config.get("patch_size", 4) * blocks if spatial is None else spatial,
            "temporal_compression_ratio": config.get("patch_size_t", 1) * blocks if temporal is None else temporal,
            "latent_channels": config.get("latent_channels", 128),
        }
        noisy = any(config.get("decoder_inject_noise", ()))
    except TypeError as error:
        raise ValueError(f"{path}: not the config of an AutoencoderKLLTXVideo ({error})") from None
    for field, value in fields.items():
        if type(value) is not int or not 1 <= value <= 4096:
            raise ValueError(f"{path}: {field}: {value!r} is not a whole number from 1 to 4096")
    return {
        **fields,
        "timestep_conditioning": bool(config.get("timestep_conditioning", False)),
        "decoder_inject_noise": noisy,
    }


def weight_files(path: Path, component: str) -> list[Path]:
    """The safetensors files of a component, one or the shards its index names. Raises ValueError if there are none."""
    folder = path / component
    single, index = folder / WEIGHTS_NAME[component], folder / f"{WEIGHTS_NAME[component]}.index.json"
    if not folder.is_dir():
        raise ValueError(f"{component}: no such folder")
    # Where both are there, each library prefers another: transformers the single file, diffusers the index.
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
    weight_map = _read_json(index).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    # A name with a path in it could point anywhere on this machine.
    if not names or not all(isinstance(n, str) and n.endswith(".safetensors") and n == Path(n).name for n in names):
        raise ValueError(f"{index}: weight_map must map tensors to .safetensors files of the same folder")
    missing = sorted(name for name in names if not (index.parent / name).is_file())
    if missing:
        raise ValueError(f"{index}: shards are missing: {', '.join(missing)}; download them again")
    return [index.parent / name for name in sorted(names)]


def _measure(path: Path, component: str) -> tuple[int, int]:
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


def checkpoint_digest(checkpoint: Checkpoint) -> dict[str, str]:
    """What identifies the model: sha256 hex of each component's config and weights, of the scheduler's and the
    tokenizer's files, and the pipeline class by name. The folder's own name and place do not matter.

    Weights hashed before are taken from a small cache in the user's cache folder, by path, size and mtime.
    """
    cache = _DigestCache(_cache_folder() / "digests.json")
    path = checkpoint.path
    files = {
        component: [path / component / "config.json", *weight_files(path, component)] for component in WEIGHTS_NAME
    }
    for component in ("scheduler", "tokenizer"):
        files[component] = [file for file in (path / component).iterdir() if file.is_file()]
    digests = {component: _digest(members, cache) for component, members in files.items()}
    cache.save()
    return {**digests, "pipeline_class": checkpoint.pipeline_class}


def _digest(files: list[Path], cache: _DigestCache) -> str:
    lines = [f"{cache.sha256(file)}  {file.name}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _cache_folder() -> Path:
    if own := os.environ.get("LTX_DIST_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "ltx_dist"


class _DigestCache:
    """sha256 of large files by path, size and mtime_ns. A cache that cannot be read or written is as good as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            known = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def sha256(self, file: Path) -> str:
        stat, key = file.stat(), str(file.resolve())
        if stat.st_size < _CACHED_FROM_BYTES:
            return _sha256(file)
        match self._known.get(key):
            case [stat.st_size, stat.st_mtime_ns, str(digest)]:
                return digest
        digest = _sha256(file)
        self._known[key] = [stat.st_size, stat.st_mtime_ns, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Write the cache in one step, so that no other process ever reads half of it."""
        if not self._changed:
            return
        present = {key: entry for key, entry in self._known.items() if Path(key).exists()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".digests-")
        except OSError:
            return
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(present, file, indent=1)
            os.replace(temporary, self._path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
