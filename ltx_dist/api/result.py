"""The result of a run: its clips, as a sequence and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

from ltx_dist.api.clip import Clip

if TYPE_CHECKING:
    import pandas as pd


class Result(Sequence[Clip]):
    """The clips of a run that ended, done and failed, in the order of the prompts.

    remaining: names of clips that a stop left out. exit_code: the one with which `ltx-dist render` would have exited.
    warnings: about settings that may not be meant, and about clips that ran out of memory.
    """

    def __init__(
        self, clips: Sequence[Clip], remaining: Sequence[str], exit_code: int, warnings: tuple[str, ...]
    ) -> None:
        self._clips = tuple(clips)
        self.remaining = tuple(remaining)
        self.exit_code, self.warnings = exit_code, warnings

    @property
    def failed(self) -> list[Clip]:
        return [clip for clip in self if clip.status == "failed"]

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | Sequence[Clip]:
        return self._clips[index]

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips)

    def __repr__(self) -> str:
        return f"<{len(self)} clips, {len(self.failed)} failed, {len(self.remaining)} remaining>"

    def to_pandas(self) -> pd.DataFrame:
        """One row per clip: name, status, path, error, seconds of work, digests, and the settings of its request.

        Raises ImportError where pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("to_pandas needs pandas: pip install pandas") from None
        return pd.DataFrame([_row(clip) for clip in self])

    def to_parquet(self, path: str | PathLike[str]) -> None:
        """Write the table of `to_pandas`. Raises ImportError where pandas or pyarrow is not installed."""
        self.to_pandas().to_parquet(path)


def _row(clip: Clip) -> dict[str, Any]:
    request = {key: value for key, value in clip.request.items() if key != "request_id"}
    return {
        "name": clip.name,
        "status": clip.status,
        "path": None if clip.path is None else str(clip.path),
        "error": clip.error,
        "seconds": sum(clip.seconds.values()),
        **clip.digests,
        **request,
    }
