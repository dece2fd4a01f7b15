"""Names that other programs give to settings that we have under diffusers' name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.settings import declared

_OF_SEVERAL: Mapping[str, tuple[str, ...]] = {
    "height and width": ("resolution", "size", "dimensions", "image_size", "video_size", "aspect_ratio", "target_size"),
    "name": ("id", "filename", "file_name", "file", "output", "output_name", "output_path", "title", "video_name"),
}
"""What stands for no single setting of a request, or for its name."""

_OURS = {name: it.other_names for name, it in declared(RenderRequest).items()} | _OF_SEVERAL
_OF_OTHERS = {name: ours for ours, names in _OURS.items() for name in names}

_HOW: Mapping[str, str] = {
    "duration": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "seconds": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "duration_seconds": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "resolution": " in pixels",
    "aspect_ratio": " in pixels",
}
"""What to know beside the name."""


def is_other_name(key: str) -> bool:
    """Whether some other program has a setting of this name that we have too."""
    return _normalised(key) in _OF_OTHERS


def meant(key: str, known: Iterable[str]) -> str | None:
    """The known keys that another program's key stands for, with how to convert its value; None if there are none.

    `known` may be dotted (`defaults.width`): then so is the answer.
    """
    other = _normalised(key.rpartition(".")[2])
    ours = _OF_OTHERS.get(other)
    full = {name.rpartition(".")[2]: name for name in known}
    if ours is None or not all(name in full for name in ours.split(" and ")):
        return None
    return " and ".join(full[name] for name in ours.split(" and ")) + _HOW.get(other, "")


def _normalised(key: str) -> str:
    return key.strip().lower().replace("-", "_").replace(" ", "_")
