"""`sheet`: one image with the middle frame of every clip and a caption: name, seed and the start of its prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ltx_dist.messages import clean
from ltx_dist.report.export.middle_frame import middle_frame
from ltx_dist.report.finished_clips import FinishedClip

CELL, MIN_CELL = 320, 64
"""Width of a clip's picture in pixels; it shrinks to MIN_CELL where there are many."""

MAX_SIDE = 16_000
"""Maximum width and height in pixels: JPEG allows 65,535 and WebP 16,383, and viewers fail before that."""

FONT_SIZE, LINE, GAP = 14, 18, 8
LINES = 3
INK, GROUND = (32, 32, 32), (255, 255, 255)


def write(clips: Sequence[FinishedClip], place: Path) -> None:
    """Draw rows of clips, sorted by name. Raises ValueError for more clips than one image can show."""
    columns = math.ceil(math.sqrt(len(clips)))
    cell = min(CELL, MAX_SIDE // columns - GAP)
    if cell < MIN_CELL:
        raise ValueError(f"{len(clips)} clips are too many for one sheet; move some of them to another folder first")
    pictures = [_picture(clip, cell) for clip in clips]
    height = max(picture.height for picture in pictures)
    pitch = height + LINES * LINE + 2 * GAP
    rows = math.ceil(len(clips) / columns)
    sheet = Image.new("RGB", (columns * (cell + GAP) + GAP, min(rows * pitch + GAP, MAX_SIDE)), GROUND)
    if rows * pitch + GAP > MAX_SIDE:
        raise ValueError("the sheet would be too high for these clips; move some of them to another folder first")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for index, (clip, picture) in enumerate(zip(clips, pictures, strict=True)):
        left, top = GAP + index % columns * (cell + GAP), GAP + index // columns * pitch
        sheet.paste(picture, (left, top + height - picture.height))
        for number, line in enumerate(_caption(clip, cell, font)):
            draw.text((left, top + height + GAP // 2 + number * LINE), line, INK, font)
    sheet.save(place, quality=90)


def _picture(clip: FinishedClip, cell: int) -> Image.Image:
    """The clip's middle frame, scaled down to the cell but never up."""
    number = clip.request.get("num_frames")
    try:
        picture = Image.fromarray(middle_frame(clip.mp4, number if isinstance(number, int) else 1))
    except ValueError as error:
        raise ValueError(f"{clip.name}: {error}; `ltx-dist verify` says which clips are damaged") from None
    picture.thumbnail((cell, cell * 2), Image.Resampling.LANCZOS)
    return picture


def _caption(clip: FinishedClip, cell: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    head = clean(f"seed {clip.request.get('seed')}: {clip.name}")
    lines, rest = [_fitting(head, cell, font)], clean(clip.request["prompt"]).split()
    while rest and len(lines) < LINES:
        taken = 1
        while taken < len(rest) and font.getlength(" ".join(rest[: taken + 1])) <= cell:
            taken += 1
        is_last = len(lines) == LINES - 1
        lines.append(_fitting(" ".join(rest if is_last else rest[:taken]), cell, font))
        rest = rest[taken:]
    return lines


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
