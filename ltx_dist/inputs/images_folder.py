"""`--images DIR`: finds the first frames of clips by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
"""Extensions of image files; other files in the folder are ignored."""

NAMED = 5
"""Maximum number of names in a warning."""


class ImagesFolder:
    """The images of a folder; each is the first frame of the clip that has its name without the extension.

    Raises ValueError for a folder that is missing, has no images, or has several images with the same name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._taken, self._without = set[str](), set[str]()
        if not folder.is_dir():
            raise ValueError(f"--images: {folder}: no such folder")
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise ValueError(f"--images: {folder}: {error.strerror}; make the folder readable") from None
        for path in paths:
            if path.suffix.lower() not in ENDINGS or path.name.startswith("."):
                continue
            other = self._files.setdefault(path.stem, path)
            if other != path:
                raise ValueError(
                    f"--images: {folder}: {other.name} and {path.name} are for the same clip; remove one of them"
                )
        if not self._files:
            raise ValueError(f"--images: {folder}: no images in it; their names must end in {', '.join(ENDINGS)}")

    def take(self, name: str) -> Path | None:
        """The absolute path of the image for the clip of this name; None if there is none."""
        (self._taken if name in self._files else self._without).add(name)
        return self._files[name].absolute() if name in self._files else None

    def warnings(self) -> Iterator[str]:
        """Warnings about rows without an image and images without a row, once all rows were read."""
        if self._without:
            names = _listed(sorted(self._without))
            yield f"--images: {self._folder}: no image for {names}; the file's name must be the row's"
        if left := [path.name for stem, path in self._files.items() if stem not in self._taken]:
            yield f"--images: {self._folder}: no row for {_listed(left)}; the row's name must be the file's"


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown
