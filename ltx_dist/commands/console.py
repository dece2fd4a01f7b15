"""Makes standard output and error accept every character, and survive a reader that closes the pipe."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console


def accept_all_characters() -> None:
    """Make both streams write `?` for characters that the console's encoding lacks, as in prompts, names and `·`.

    A batch must not stop because a character cannot be shown.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


PIPE_WIDTH = 10_000


def lasting_console() -> Console:
    """Standard output until it is closed (`| head`) or its disk is full; after that, what is printed is dropped.

    `run.json` and the page have all of it, so a batch need not stop because nobody reads its lines.
    """
    from rich.console import Console

    stdout = sys.stdout
    file = stdout.file if isinstance(stdout, LastingFile) else stdout  # lost output here ends a command with 74
    return Console(file=cast(IO[str], LastingFile(file)))


def printing_console() -> Console:
    """Standard output for tables and texts; nothing wraps in a pipe or a file, unless COLUMNS is set."""
    from rich.console import Console

    is_narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_narrow else PIPE_WIDTH)


def open_standard_streams() -> LastingFile:
    """Replace streams that are closed (`>&-`), and put a `LastingFile` in the place of standard output.

    Otherwise the next file that is opened would be standard output to every library that writes there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 (they are the process's own)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    lasting = LastingFile(sys.stdout or open(1, "w", closefd=False))  # noqa: SIM115
    sys.stdout = cast(TextIO, lasting)
    return lasting


class LastingFile:
    """A text stream that drops what is written once nobody reads it or its disk is full.

    lost: the error that caused it; None for a pipe whose reader has closed it.
    """

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self.file.write(text)
        except UnicodeEncodeError as error:  # a stream set by the caller may be strict
            return self.file.write(text.encode(error.encoding, "replace").decode(error.encoding))
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Send everything to /dev/null, because the file's buffer would fail again at every write and at exit."""
        if not isinstance(error, BrokenPipeError):
            self.lost = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
