"""Looks at a model on the hub without downloading its weights: enough for `plan`, which loads none.

Only the header of each safetensors file is downloaded. A sparse file with that header stands in for it, so everything
that reads shapes from a folder can read this one, too.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from ltx_dist.checkpoints.hub import Snapshot, fetch_snapshot
from ltx_dist.messages import first_line
from ltx_dist.user_cache import user_cache


def fetch_headers(name: str, files: Sequence[str], field: str) -> Snapshot:
    """The files of a hub repository that match; weight files have only headers, unless the hub's cache has them all.

    Nothing can be rendered from a folder of headers. If the hub is not reached, the cached files are used, as in
    `fetch_snapshot`. Raises ValueError naming the field.
    """
    small = fetch_snapshot(name, [file for file in files if not file.endswith(".safetensors")], field)
    weights = _weights(small.name, files)
    if all((small.path / file).exists() for file in weights) or os.name == "nt":  # no sparse files by default
        return fetch_snapshot(small.name, files, field)
    folder = user_cache() / "headers" / small.name.replace("/", "--")
    try:
        for path in filter(Path.is_file, small.path.rglob("*")):
            if path.suffix != ".safetensors":
                _make_room(folder / path.relative_to(small.path))
                shutil.copyfile(path, folder / path.relative_to(small.path))
        for file in weights:
            write_sparse(_header(small.name, file, field), folder / file)
    except OSError as error:
        raise ValueError(f"{field}: {name}: headers cannot be kept in {folder}: {error}; free space there") from None
    return Snapshot(small.name, folder)


def _weights(name: str, files: Sequence[str]) -> list[str]:
    """The matching weight files on the hub; none if it is not reached."""
    from huggingface_hub import HfApi

    repository, _, commit = name.partition("@")
    try:
        listed = HfApi().list_repo_files(repository, revision=commit)
    except Exception:  # noqa: BLE001 (whatever it is, the cache is tried next, and its error says what is missing)
        return []
    return [file for file in listed if file.endswith(".safetensors") and any(fnmatch(file, one) for one in files)]


def _header(name: str, file: str, field: str) -> dict[str, object]:
    """The header of a safetensors file, read by range requests."""
    from huggingface_hub import HfApi

    repository, _, commit = name.partition("@")
    try:
        found = HfApi().parse_safetensors_file_metadata(repository, file, revision=commit)
    except Exception as error:  # noqa: BLE001 (of the hub, of the network, or of the file: it says which)
        raise ValueError(
            f"{field}: {name}: the header of {file} cannot be read ({first_line(error)}); try again"
        ) from None
    tensors: dict[str, object] = {
        key: {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": list(info.data_offsets)}
        for key, info in found.tensors.items()
    }
    return ({"__metadata__": found.metadata} if found.metadata else {}) | tensors


def write_sparse(header: dict[str, object], target: Path) -> None:
    """Write a safetensors file with this header and a hole for the tensors. Another plan may write the same file."""
    text = json.dumps(header).encode()
    ends = [info["data_offsets"][1] for key, info in header.items() if key != "__metadata__"]  # type: ignore[index]
    _make_room(target)
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as opened:
            opened.write(len(text).to_bytes(8, "little") + text)
            opened.truncate(opened.tell() + max(ends, default=0))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _make_room(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
