"""The packaged model, and how its quality is measured: the measure itself must be right for drawn clips."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import PIL.Image

import ltx_dist.demo
from ltx_dist.demo import PROMPTS
from ltx_dist.media.mp4 import encode_video, read_video
from ltx_dist.media.sources import open_media
from ltx_dist.pipeline.storage import Mp4Settings

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "benchmarks")]

import demo_prompts  # noqa: E402
from demo_training.captions import MAX_SEQUENCE_LENGTH, benchmark_caption  # noqa: E402
from demo_training.clips import Scene, all_scenes, draw_clip, first_frame, split_scenes  # noqa: E402


def drawn(scene: Scene, seed: int) -> np.ndarray:
    """A drawn clip as it looks after encoding to mp4: (T, H, W, 3) uint8."""
    clip = (draw_clip(scene, random.Random(seed)) + 1) * 127.5
    frames = clip.round().byte().permute(1, 2, 3, 0).contiguous().numpy()
    count, height, width, _ = frames.shape
    video = encode_video(
        frames, height=height, width=width, num_frames=count, frame_rate=12, output=Mp4Settings(), metadata={}
    )
    return read_video(video.mp4)[0]


def test_the_reader_finds_colour_and_direction_of_every_drawn_clip():
    scenes = all_scenes()[::7]
    figures = demo_prompts.report(scenes, [drawn(scene, seed) for seed, scene in enumerate(scenes)])
    assert figures["color_and_direction"] == figures["background"] == 1.0
    assert figures["color_and_direction_shuffled"] <= 0.15, "what the same clips score against other captions"


def test_a_still_or_empty_clip_matches_nothing():
    scene = all_scenes()[0]
    clip = drawn(scene, 0)
    assert demo_prompts.find_direction(np.repeat(clip[:1], len(clip), axis=0)) is None
    assert demo_prompts.find_color(np.zeros_like(clip)) is None


def test_the_held_out_captions_are_in_no_training_clip_and_every_word_is():
    training, held_out = split_scenes()
    assert len(held_out) == 48 and not set(training) & set(held_out)
    for name in ("color", "shape", "direction", "background"):
        assert {getattr(scene, name) for scene in held_out} <= {getattr(scene, name) for scene in training}
    assert all(len(benchmark_caption(scene).encode()) < MAX_SEQUENCE_LENGTH for scene in held_out)


def test_the_packaged_model_is_small_and_safetensors_only():
    files = [path for path in Path(ltx_dist.demo.__file__).parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {path.suffix for path in files} <= {".py", ".pyc", ".jsonl", ".png", ".json", ".safetensors"}
    assert len([path for path in files if path.suffix == ".safetensors"]) == 4


def test_the_reader_finds_whether_a_clip_begins_as_its_image():
    scene = all_scenes()[0]
    image = first_frame(scene, random.Random(3))
    assert image.shape == (128, 128, 3) and demo_prompts.find_color(image[None]) == scene.color
    assert demo_prompts.begins_as(np.stack([image, np.roll(image, 20, axis=1)]), image)
    assert not demo_prompts.begins_as(np.stack([np.roll(image, 20, axis=1), image]), image)
    assert not demo_prompts.begins_as(np.zeros_like(image)[None], image)


def test_the_demo_starts_from_an_image_and_renders_in_two_passes(tmp_path: Path):
    """The last two of its clips, which have the seeds that they have in the demo."""
    rows = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
    chosen = [row | {"seed": position} for position, row in enumerate(rows) if len(row) > 1]
    from_image, of_two_passes = chosen
    image = open_media(from_image["image"]).path
    named = [from_image | {"name": "image"}, of_two_passes | {"name": "two"}]
    options = ["--executor", "local", "--set", "placement.threads=1", "--set", "model.upscaler=demo"]
    clips = demo_prompts.render(named, tmp_path, options)
    assert clips["image"].shape == (25, 128, 128, 3) and clips["two"].shape == (25, 256, 256, 3)
    assert demo_prompts.begins_as(clips["image"], np.asarray(PIL.Image.open(image)))
    for name, row in zip(clips, chosen, strict=True):
        told = row["prompt"] if name == "two" else f"magenta {row['prompt']}"
        assert str(demo_prompts.find_color(clips[name])) in told, name
        assert str(demo_prompts.find_direction(clips[name])) in told, name
    made = json.loads((tmp_path / "two.json").read_text())
    assert made["request"]["second_pass"]["first_width"] == 128 and "refine" in made["stages"]


def test_the_packaged_model_draws_what_it_is_told(tmp_path: Path):
    """Four of the benchmark's 48 clips, so that a broken model is seen here; the figure is in docs/benchmarks.md."""
    scenes = split_scenes()[1][::12]
    rows = demo_prompts.rows_of("text", scenes, tmp_path)
    clips = demo_prompts.render(rows, tmp_path, ["--executor", "local", "--set", "placement.threads=1"])
    assert demo_prompts.report(scenes, list(clips.values()))["color_and_direction"] >= 0.75
