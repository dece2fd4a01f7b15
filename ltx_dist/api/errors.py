"""The exception for bad input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ltx_dist.messages import Mistakes


class InputError(ValueError):
    """Prompts, settings or paths are wrong; nothing was rendered.

    mistakes: all errors, each with its place and the remedy: `prompts:2: height: 130 is not a multiple of 32; ...`.
    """

    def __init__(self, message: str, mistakes: Sequence[str]) -> None:
        super().__init__(message)
        self.mistakes = tuple(mistakes)


@contextmanager
def input_errors() -> Iterator[None]:
    """Raise errors in the input as `InputError`."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, InputError | UnicodeEncodeError):
            raise
        raise InputError(str(error), error.messages if isinstance(error, Mistakes) else [str(error)]) from None
