"""A console for batches of hours: it outlives whoever reads it."""

from __future__ import annotations

import os
import sys
from typing import IO, Any, cast

from rich.console import Console


def lasting_console() -> Console:
    """Standard output, until it is closed (`| head`) or full; from then on the batch goes on unseen.

    What happened stands in `run.json` and on the page, so lines that nobody can read are no reason to stop.
    """
    return Console(file=cast(IO[str], _LastingFile(sys.stdout)))


class _LastingFile:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            return self._file.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """What the file still holds would fail again at every write, and once more at exit."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._file.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
