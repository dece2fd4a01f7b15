"""Recognises values of `model.checkpoint` or `model.text_encoder` that are not models, and suggests the right ones."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ltx_dist.checkpoints.weight_files import GGUF

_IN_REPOSITORY = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)/(?P<file>.+\.(safetensors|gguf))")


def what_is_wrong(name: str, path: Path) -> str:
    """The error for a name that is neither a folder, nor a .safetensors file, nor a possible name on the hub."""
    if "://" in name or name.startswith(("huggingface.co/", "hf.co/")):
        return _of_url(name)
    if path.suffix == ".gguf":
        return GGUF
    if path.is_file():
        return "not a .safetensors file; other formats can run code when opened. Give a .safetensors file or a folder"
    if found := _IN_REPOSITORY.fullmatch(name):
        return f"no such file; {_download(found['repository'], found['file'])} if it is on the hub, or check the path"
    if path.suffix == ".safetensors":
        return "no such file; check the path"
    return (
        "no such folder; give `demo`, a folder in diffusers layout (with model_index.json), a .safetensors file or "
        "owner/name on the Hugging Face hub"
    )


def refuse_places_around(path: Path) -> None:
    """Raises ValueError, in one line, for a folder that is only near a model: it names the one that is meant."""
    snapshots = sorted((path / "snapshots").glob("*/")) if path.name.startswith("models--") else []
    below = sorted(found.parent for found in path.glob("*/model_index.json"))
    files = sorted(path.glob("*.safetensors"))
    if path.name.startswith("models--"):
        name = path.name.removeprefix("models--").replace("--", "/", 1)
        commits = f", or {snapshots[0]}" if snapshots else ""
        meant = f"a repository's folder in the hub's cache; give {name}, or {name}@COMMIT{commits}"
    elif names := sorted(found.name for found in path.glob("models--*")):
        known = ", ".join(name.removeprefix("models--").replace("--", "/", 1) for name in names[:6])
        meant = f"the hub's cache; give the name of one of its models: {known}"
    elif (path.parent / "model_index.json").is_file() and not (path / "model_index.json").exists():
        meant = f"one component of a model; give the folder above, {path.parent}"
    elif below:
        meant = f"holds no model_index.json, but the folder {below[0]} does; give that"
    elif files and not any((path / part).is_dir() for part in ("transformer", "vae", "scheduler")):
        shown = ", ".join(file.name for file in files[:4])
        meant = f"holds no model_index.json; give one of its files by its path: {shown}"
    else:
        return
    raise ValueError(f"model.checkpoint: {path}: {meant}")


def _of_url(name: str) -> str:
    """What to give instead of a URL. On the hub it is /owner/name, then perhaps /blob/, /resolve/ or /tree/, a revision
    and a file."""
    url = urlsplit(name if "://" in name else f"https://{name}")
    # Split first: the slashes of a revision are written as %2F.
    parts = [unquote(part) for part in url.path.strip("/").split("/")]
    owner, model, kind, revision = [*parts, "", "", "", ""][:4]
    file = parts[4:]
    if url.netloc not in ("huggingface.co", "hf.co", "www.huggingface.co") or not model:
        return "a URL; download it, and give the path of the file or folder"
    at = "" if revision in ("", "main") else f"@{revision}"
    if kind in ("blob", "resolve") and file:
        return f"a URL; {_download(f'{owner}/{model}', '/'.join(file), revision)}"
    return f"a URL; give {owner}/{model}{at} for the model in folders"


def _download(repository: str, file: str, revision: str = "") -> str:
    chosen = "" if revision in ("", "main") else f" --revision {revision}"
    return f"run `hf download {repository} {file}{chosen}` and give the path that it prints"
