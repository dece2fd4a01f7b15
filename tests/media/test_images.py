"""Pictures are opened upright and in RGB, or refused with a remedy; none is misread."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ltx_dist.media.images import MAX_PIXELS, open_image


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> PIL.Image.Image:
    random = np.random.default_rng(0)
    return PIL.Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def saved(path: Path, image: PIL.Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        open_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_an_rgb_picture_keeps_its_pixels(tmp_path: Path):
    opened = open_image(saved(tmp_path / "a.png", picture()))
    assert opened.mode == "RGB" and np.array_equal(np.asarray(opened), np.asarray(picture()))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_grey_palettes_and_opaque_alpha_become_rgb(tmp_path: Path, mode: str):
    opened = open_image(saved(tmp_path / "a.png", picture(mode)))
    assert opened.mode == "RGB" and np.array_equal(np.asarray(opened), np.asarray(picture(mode).convert("RGB")))


@pytest.mark.parametrize("extension", ["jpg", "webp", "bmp", "tif", "gif", "avif"])
def test_every_listed_format_opens(tmp_path: Path, extension: str):
    assert open_image(saved(tmp_path / f"a.{extension}", picture())).size == (40, 30)


def test_exif_orientation_is_applied(tmp_path: Path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    opened = open_image(saved(tmp_path / "a.png", picture(), exif=exif))
    assert opened.size == (30, 40)
    assert np.array_equal(np.asarray(opened), np.rot90(np.asarray(picture()), -1))


def test_a_photo_with_a_second_view_behind_it_is_its_first(tmp_path: Path):
    path = saved(tmp_path / "a.jpg", picture(), format="MPO", save_all=True, append_images=[picture(size=(8, 8))])
    assert open_image(path).size == (40, 30)


def test_transparency_is_refused(tmp_path: Path):
    half = picture("RGBA")
    half.putalpha(128)
    assert refused(saved(tmp_path / "a.png", half)) == "has transparent pixels; flatten it onto a background"
    used = picture("P").getpixel((0, 0))
    assert "transparent" in refused(saved(tmp_path / "b.png", picture("P"), transparency=used))


@pytest.mark.parametrize(("mode", "extension"), [("CMYK", "jpg"), ("I;16", "png"), ("F", "tif"), ("YCbCr", "tif")])
def test_colours_that_are_not_8_bit_rgb_are_refused(tmp_path: Path, mode: str, extension: str):
    if mode == "I;16":
        image = PIL.Image.fromarray(np.full((30, 40), 40_000, np.uint16))
    else:
        image = picture("L").convert(mode) if mode == "F" else picture(mode)
    message = refused(saved(tmp_path / f"a.{extension}", image))
    assert message == f"its colours are {mode}; save it as RGB with 8 bits per channel"


@pytest.mark.parametrize("extension", ["gif", "webp", "png", "tif"])
def test_animations_are_refused(tmp_path: Path, extension: str):
    others = [picture().rotate(90 * turn) for turn in (1, 2)]
    path = saved(tmp_path / f"a.{extension}", picture(), save_all=True, append_images=others)
    assert refused(path).startswith("has 3 frames; ")


def png(width: int, height: int, compressed: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (MAX_PIXELS + 1, 1)])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]):
    path = tmp_path / "a.png"
    path.write_bytes(png(*size, zlib.compress(bytes(1 << 20))))
    assert "million pixels; scale it down" in refused(path)


def test_no_pixels_and_no_data_are_refused(tmp_path: Path):
    path = tmp_path / "a.png"
    for content in (png(0, 0, b""), png(8, 8, b""), png(8, 8, zlib.compress(b"\0"))):
        path.write_bytes(content)
        refused(path)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "tif", "gif", "avif"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, extension: str, part: float):
    whole = saved(tmp_path / f"a.{extension}", picture(size=(200, 150))).read_bytes()
    (tmp_path / f"a.{extension}").write_bytes(whole[: int(len(whole) * part)])
    assert refused(tmp_path / f"a.{extension}")


@pytest.mark.parametrize("content", [b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", b"\0" * 99])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.png").write_bytes(content)
    assert refused(tmp_path / "a.png").startswith("not an image; use PNG")


def test_random_damage_is_refused_or_opened(tmp_path: Path):
    """Whichever byte is wrong, there is a picture or a ValueError, and nothing else."""
    random = np.random.default_rng(1)
    for extension in ("png", "jpg", "webp", "gif", "tif", "bmp"):
        whole = io.BytesIO()
        picture().save(whole, {"jpg": "JPEG", "tif": "TIFF"}.get(extension, extension.upper()))
        for _ in range(60):
            content = bytearray(whole.getvalue())
            for position in random.integers(0, len(content), 4):
                content[position] = random.integers(0, 256)
            (tmp_path / "a").write_bytes(content)
            try:
                assert open_image(tmp_path / "a").mode == "RGB"
            except ValueError as error:
                assert str(tmp_path) in str(error)


def test_messages_use_the_label(tmp_path: Path):
    with pytest.raises(ValueError, match="^s3://bucket/a.png: not an image"):
        open_image(Path(os.devnull), "s3://bucket/a.png")
