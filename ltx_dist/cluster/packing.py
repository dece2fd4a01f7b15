"""Packs the files that rows and config name by relative paths; they keep these paths in the job's folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ltx_dist.inputs.media_rows import LoraRow
from ltx_dist.media.sources import open_media, resolve_place
from ltx_dist.pipeline.request import RenderRequest

IMAGES = "first-frames"
"""The name of the `--images` folder inside the job's folder."""

MAX_BYTES = 90 << 20
"""The most that all files together may have: Ray's job server accepts uploads of up to 100 MiB."""


def pack_files(
    requests: Iterable[RenderRequest],
    given: Any,
    folder: Path | str,
    loras: Iterable[LoraRow] = (),
    images: Path | None = None,
    sent: int = 0,
) -> dict[str, bytes]:
    """Content of each file by its path in the job's folder.

    given: rows and defaults as they were written. An absolute path or a URL in them is where the cluster finds the
    file; it does not travel. folder: what the other paths of rows are relative to. loras: those of the config, whose
    paths are relative to the working directory. images: the folder of `--images`. sent: bytes of other files that are
    sent.

    Raises ValueError for a path that leads out of the folder or into that of `--images`, for two files that would have
    one path in the job's folder, for a file that cannot be read, and for files that are too large together.
    """
    names = _names_of_loras(loras)
    stays = {place for text in strings_in(given) for place in _fixed_places(text, folder)}
    frames = None if images is None else Path(os.path.abspath(images))  # without `..`, as places are
    places = dict.fromkeys(place for request in requests for place in _places(request))
    named = _relative_places(given, places, folder)
    sources = [(name, place) for place, name in names.items() if name is not None]
    for place in places:
        is_frame = frames is not None and Path(place).parent == frames
        if is_frame:
            sources.append((f"{IMAGES}/{Path(place).name}", place))
        if place in named or not (is_frame or place in stays or place in names):
            name = _name(place, folder)
            if frames is not None and name.startswith(f"{IMAGES}/") and not is_frame:
                raise ValueError(f"{place}: the job has the files of --images in a folder {IMAGES}; rename the folder")
            sources.append((name, place))
    files: dict[str, bytes] = {}
    for name, place in _place_by_name(sources).items():
        files[name] = content_of(place, sent)
        sent += len(files[name])
    return files


def _place_by_name(sources: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The place of each name. Raises ValueError where two places have one name."""
    places: dict[str, str] = {}
    for name, place in sources:
        if (other := places.setdefault(name, place)) != place:
            raise ValueError(
                f"{other} and {place}: both would be {name} in the job's folder, because paths in the config are "
                "relative to the working directory, and those of rows to the prompt file's folder; rename one of them"
            )
    return places


def content_of(place: str, sent: int) -> bytes:
    """The file's bytes. Raises ValueError if it cannot be read, and without reading it if it is too large to send.

    sent: bytes of the other files.
    """
    path = open_media(place).path if "://" in place else Path(place)
    try:
        if path.stat().st_size > MAX_BYTES - sent:
            raise ValueError(
                f"{place}: the batch's images, videos, LoRAs, wheels and word lists have more than {MAX_BYTES >> 20} "
                "MiB, which Ray does not send; put them where the cluster can read them and give absolute paths or URLs"
            )
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{place}: cannot be read: {error.strerror}") from None


def _names_of_loras(loras: Iterable[LoraRow]) -> dict[str, str | None]:
    """The path in the job's folder of each of the config's LoRAs, by place; None for those that are not sent."""
    names: dict[str, str | None] = {}
    for one in loras:
        if one.path is not None:
            place = resolve_place(one.path, Path())
            stays = place in _fixed_places(one.path, Path())
            if not stays and not (Path(place).is_file() and Path(place).stat().st_size):
                raise ValueError(
                    f"model.loras: {place}: no such file, or empty; paths in the config are relative to the working "
                    "directory"
                )
            names[place] = None if stays else _name(place, Path())
    return names


def _places(request: RenderRequest) -> Iterator[str]:
    media = [*request.conditions, request.video, request.reference]
    yield from (medium.place for medium in media if medium is not None)
    second = getattr(request.second_pass, "loras", None) or ()
    yield from (lora.place for lora in (*request.loras, *second))


def _fixed_places(text: str, folder: Path | str) -> Iterator[str]:
    """The place that a text names on every machine, if it does: an absolute path, one from home, or a URL."""
    if _is_fixed(text):
        with suppress(ValueError):
            yield resolve_place(text, folder)


def _relative_places(given: Any, places: Iterable[str], folder: Path | str) -> set[str]:
    """Those of the places that a relative path in `given` names."""
    files = {os.path.basename(place) for place in places}  # most texts are prompts, which need not be resolved
    found: set[str] = set()
    for text in strings_in(given):
        if os.path.basename(text) in files and not _is_fixed(text):
            with suppress(ValueError):
                found.add(resolve_place(text, folder))
    return found.intersection(places)


def _is_fixed(text: str) -> bool:
    return text.startswith(("/", "~")) or "://" in text or Path(text[:4096]).is_absolute()


def _name(place: str, folder: Path | str) -> str:
    if isinstance(folder, str):  # of a URL
        return place.removeprefix(f"{folder}/")
    name = Path(os.path.relpath(place, folder)).as_posix()
    if name.startswith("../"):
        raise ValueError(
            f"{place}: outside the prompt file's folder, so the cluster would look for it elsewhere; move it into that "
            "folder, or give its absolute path on the cluster"
        )
    return name


def strings_in(value: Any) -> Iterator[str]:
    """Every string in a value of lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for one in value.values() for text in strings_in(one))
    elif isinstance(value, (list, tuple)):
        yield from (text for one in value for text in strings_in(one))
