"""Standard output and error: every character can be written, and a batch of hours outlives whoever reads it."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console


def accept_all_characters() -> None:
    """Have both streams write `?` for what the console's encoding lacks: prompts, names and `·` are not all Latin.

    The locale is whoever's machine this is; a character that cannot be shown is no reason to stop a batch.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def lasting_console() -> Console:
    """Standard output, until it is closed (`| head`) or full; from then on the batch goes on unseen.

    What happened stands in `run.json` and on the page, so lines that nobody can read are no reason to stop.
    """
    from rich.console import Console

    return Console(file=cast(IO[str], _LastingFile(sys.stdout)))


class _LastingFile:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            return self._file.write(text)
        except UnicodeEncodeError as error:  # a stream of the caller's own, which is as strict as it likes
            return self._file.write(text.encode(error.encoding, "replace").decode(error.encoding))
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
