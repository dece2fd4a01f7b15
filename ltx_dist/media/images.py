"""Opens images for conditions, strictly checked, upright and in RGB; makes the posters of clips."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""Pillow opens other formats, too: some run programs (EPS), and nobody conditions a clip on any of them."""

MAX_PIXELS = 128_000_000
"""As RGB they take 384 MB of host memory. The largest cameras have 100 million pixels; a clip's frame has 1 or 2."""

_OPAQUE = {"RGB", "L", "1", "P"}
_WITH_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}


def open_image(path: Path, label: str | None = None) -> PIL.Image.Image:
    """The picture as RGB, 8 bits per channel, turned upright by its EXIF orientation (as diffusers' `load_image` does).

    Grey and palette images are converted; an opaque alpha channel is dropped. The whole image is decoded, so that a
    truncated file is found here. label: what to call it in messages, if not the path.
    Raises ValueError for anything else: several frames, transparency, CMYK, 16 bits, above MAX_PIXELS, not an image.
    """
    label = label or str(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limit is higher than ours, and metadata does not matter
        try:
            with PIL.Image.open(path, formats=FORMATS) as image:
                _check_header(image, label)
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image), label)
        except PIL.UnidentifiedImageError:
            raise ValueError(f"{label}: not an image; use {', '.join(FORMATS)}") from None
        except PIL.Image.DecompressionBombError:
            raise ValueError(f"{label}: {_too_large()}") from None
        except (OSError, SyntaxError, EOFError, MemoryError, IndexError, TypeError, KeyError, OverflowError) as error:
            # Pillow's decoders raise all of these on damaged files.
            raise ValueError(f"{label}: damaged or truncated ({str(error)[:120]}); save it again") from None


def _check_header(image: PIL.Image.Image, label: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{label}: {image.width}x{image.height}, {_too_large()}")
    frames = getattr(image, "n_frames", 1)
    # Cameras store a preview or a second view after the picture, as MPO.
    if frames > 1 and image.format != "MPO":
        raise ValueError(f"{label}: has {frames} frames; give one frame as an image, or all of them as a video")
    if image.mode not in _OPAQUE | _WITH_ALPHA:
        raise ValueError(f"{label}: its colours are {image.mode}; save it as RGB with 8 bits per channel")


def _to_rgb(image: PIL.Image.Image, label: str) -> PIL.Image.Image:
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        lowest, _ = with_alpha.getchannel("A").getextrema()
        if lowest != 255:
            raise ValueError(f"{label}: has transparent pixels; flatten it onto a background")
        return with_alpha.convert("RGB")
    return image.convert("RGB")


def _too_large() -> str:
    return f"more than {MAX_PIXELS // 1_000_000} million pixels; scale it down"


MAX_WIDTH, QUALITY = 320, 80


def make_poster(frame: np.ndarray) -> bytes:
    """A WebP of the frame, at most MAX_WIDTH pixels wide; equal frames give equal bytes.

    frame: uint8 RGB, (height, width, 3).
    """
    picture = PIL.Image.fromarray(frame)
    if picture.width > MAX_WIDTH:
        size = MAX_WIDTH, max(1, round(picture.height * MAX_WIDTH / picture.width))
        picture = picture.resize(size, PIL.Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()
