"""Measures how many clips of the demonstration model show what their captions say.

Renders the captions of all 48 attribute combinations that were held out of training with
`ltx-dist render`, reads the mp4 files back, finds the shape's colour and its direction of motion in
the pixels, and prints the share of clips in which both match the caption. Comparing the same clips
with shuffled captions gives the level of chance.

    python benchmarks/demo_prompts.py
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import PIL.Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from demo_training.captions import benchmark_caption, image_caption  # noqa: E402
from demo_training.clips import BACKGROUNDS, COLORS, DIRECTIONS, Scene, first_frame, split_scenes  # noqa: E402

FIRST_SEED = 7000
KINDS = ("text", "image", "blind")
"""Captions alone; first frames, with captions that do not name the colour; and those captions alone."""

# A pixel belongs to the shape when it is this far from the background in RGB.
FOREGROUND_DISTANCE = 64.0
MIN_FOREGROUND_PIXELS = 60
MIN_TRAVEL_PIXELS = 8.0
# The largest distance between the shape in a clip's first frame and in the image.
MAX_SHIFT_PIXELS = 6.0


def read_clip(path: Path) -> np.ndarray:
    """All frames of a video file, (frames, height, width, 3) in 0..255."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def background_color(clip: np.ndarray) -> np.ndarray:
    """The most frequent colour along the border of the frames."""
    edges = (clip[:, 0], clip[:, -1], clip[:, :, 0], clip[:, :, -1])
    return np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)


def foreground(clip: np.ndarray) -> np.ndarray:
    """Where a clip differs from its background, (frames, height, width)."""
    difference = clip.astype(np.float32) - background_color(clip).astype(np.float32)
    return np.linalg.norm(difference, axis=-1) > FOREGROUND_DISTANCE


def nearest(color: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    """The name of the palette colour that is nearest in RGB."""
    return min(palette, key=lambda name: float(np.linalg.norm(color - np.array(palette[name]))))


def find_color(clip: np.ndarray) -> str | None:
    """The colour of the shape, or None where there is no shape."""
    mask = foreground(clip)
    if mask.sum() < MIN_FOREGROUND_PIXELS * len(clip):
        return None
    return nearest(np.median(clip[mask], axis=0), COLORS)


def _center(mask: np.ndarray) -> np.ndarray | None:
    """Mean (x, y) of the shape in a frame, or None if there is none."""
    rows, columns = np.nonzero(mask)
    if len(rows) < MIN_FOREGROUND_PIXELS:
        return None
    return np.array([columns.mean(), rows.mean()])


def find_direction(clip: np.ndarray) -> str | None:
    """The direction in which the shape moved from the first frame to the last, or None if it did not move."""
    mask = foreground(clip)
    first, last = _center(mask[0]), _center(mask[-1])
    if first is None or last is None:
        return None
    moved = last - first
    if np.abs(moved).max() < MIN_TRAVEL_PIXELS:
        return None
    return max(DIRECTIONS, key=lambda name: float(moved @ np.array(DIRECTIONS[name])))


def find_background(clip: np.ndarray) -> str:
    """The background's name."""
    return nearest(background_color(clip), BACKGROUNDS)


def derangement(count: int) -> list[int]:
    """A fixed shuffle of range(count) that leaves nothing in its place."""
    order = list(range(count))
    rng = random.Random(7)
    while any(index == value for index, value in enumerate(order)):
        rng.shuffle(order)
    return order


def match_share(found: list[tuple[str | None, str | None]], scenes: list[Scene]) -> float:
    """The share of clips whose colour and direction match their scene."""
    wanted = [(scene.color, scene.direction) for scene in scenes]
    return sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted)


def rows_of(kind: str, scenes: list[Scene], folder: Path) -> list[dict[str, object]]:
    """One row per scene, each with a seed of its own. First frames are drawn and saved in the folder."""
    rows: list[dict[str, object]] = []
    for index, scene in enumerate(scenes):
        caption = benchmark_caption(scene) if kind == "text" else image_caption(scene)
        row: dict[str, object] = {"prompt": caption, "name": f"{kind}{index:02d}", "seed": FIRST_SEED + index}
        if kind == "image":
            row["image"] = f"first{index:02d}.png"
            PIL.Image.fromarray(first_frame(scene, random.Random(FIRST_SEED + index))).save(folder / str(row["image"]))
        rows.append(row)
    return rows


def render(rows: list[dict[str, object]], output: Path, extra: list[str]) -> dict[str, np.ndarray]:
    """The clips of the rows, by name."""
    prompts = output / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "ltx_dist.cli", "render", str(prompts), "-o", str(output)]
    subprocess.run([*command, *extra], check=True, cwd=ROOT)
    return {str(row["name"]): read_clip(output / f"{row['name']}.mp4") for row in rows}


def begins_as(clip: np.ndarray, image: np.ndarray) -> bool:
    """Whether the shape is at the same place in the clip's first frame as in the image."""
    here, there = (_center(foreground(frames[:1])[0]) for frames in (clip, image[None]))
    return here is not None and there is not None and bool(np.linalg.norm(here - there) < MAX_SHIFT_PIXELS)


def report_images(scenes: list[Scene], clips: dict[str, np.ndarray], output: Path) -> dict[str, float]:
    """The figures for clips made from images, and for the same captions without images."""
    figures: dict[str, float] = {"chance_of_color": 1 / len(COLORS)}
    for kind in ("image", "blind"):
        of_kind = [clips[f"{kind}{index:02d}"] for index in range(len(scenes)) if f"{kind}00" in clips]
        if of_kind:
            found = [(find_color(clip), find_direction(clip)) for clip in of_kind]
            figures[f"{kind}_color_and_direction"] = match_share(found, scenes)
    if "image00" in clips:
        firsts = [np.asarray(PIL.Image.open(output / f"first{index:02d}.png")) for index in range(len(scenes))]
        begun = [begins_as(clips[f"image{index:02d}"], first) for index, first in enumerate(firsts)]
        figures["image_begins_clip"] = sum(begun) / len(begun)
    return figures


def report(scenes: list[Scene], clips: list[np.ndarray]) -> dict[str, float]:
    """The figures for clips made from captions alone."""
    found = [(find_color(clip), find_direction(clip)) for clip in clips]
    shuffled = [scenes[index] for index in derangement(len(scenes))]
    pairs = list(zip(found, scenes, strict=True))
    backgrounds = [find_background(clip) for clip in clips]
    return {
        "clips": len(clips),
        "color": sum(color == scene.color for (color, _), scene in pairs) / len(pairs),
        "direction": sum(way == scene.direction for (_, way), scene in pairs) / len(pairs),
        "background": sum(name == scene.background for name, scene in zip(backgrounds, scenes, strict=True))
        / len(pairs),
        "color_and_direction": match_share(found, scenes),
        "color_and_direction_shuffled": match_share(found, shuffled),
    }


def main() -> None:
    """Render the clips, read them back, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="keep the clips in this folder")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--clips", type=int, default=48, help="number of clips of each kind")
    args, extra = parser.parse_known_args()
    scenes = random.Random(1).sample(split_scenes()[1], args.clips) if args.clips < 48 else split_scenes()[1]
    with tempfile.TemporaryDirectory() as temporary:
        output = (args.output or Path(temporary)).resolve()
        output.mkdir(parents=True, exist_ok=True)
        clips = render([row for kind in args.kinds for row in rows_of(kind, scenes, output)], output, extra)
        figures = report_images(scenes, clips, output)
    if "text" in args.kinds:
        figures = report(scenes, [clips[f"text{index:02d}"] for index in range(len(scenes))]) | figures
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
