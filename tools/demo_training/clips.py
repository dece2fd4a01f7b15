"""The demonstration world: a coloured shape moving over a plain background, drawn from scratch."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import numpy as np
import torch

HEIGHT = 128
WIDTH = 128
NUM_FRAMES = 25

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (230, 35, 35),
    "green": (40, 205, 65),
    "blue": (45, 100, 245),
    "yellow": (245, 220, 45),
    "magenta": (230, 50, 215),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle")
# Unit displacement (x, y); y grows downwards, as in image rows.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (8, 8, 10),
    "navy": (14, 18, 72),
    "gray": (92, 92, 96),
    "brown": (84, 46, 18),
}
RADIUS_RANGE = (19.0, 25.0)
TRAVEL_RANGE = (54.0, 70.0)
HELD_OUT_COUNT = 48


@dataclass(frozen=True, order=True)
class Scene:
    """What a caption says: one value of each attribute."""

    color: str
    shape: str
    direction: str
    background: str


@dataclass(frozen=True)
class Placement:
    """What a caption leaves open, in pixels: size, distance travelled, the middle of the path."""

    radius: float
    travel: float
    center_x: float
    center_y: float


def all_scenes() -> list[Scene]:
    """Every combination of attribute values, in a fixed order."""
    values = itertools.product(COLORS, SHAPES, DIRECTIONS, BACKGROUNDS)
    return [Scene(*combination) for combination in values]


def split_scenes() -> tuple[list[Scene], list[Scene]]:
    """(scenes for training, scenes held out of all training); the split never changes."""
    scenes = all_scenes()
    random.Random(2024).shuffle(scenes)
    return sorted(scenes[HELD_OUT_COUNT:]), sorted(scenes[:HELD_OUT_COUNT])


def random_placement(scene: Scene, rng: random.Random) -> Placement:
    """A placement whose whole path keeps the shape inside the picture."""
    radius = rng.uniform(*RADIUS_RANGE)
    travel = rng.uniform(*TRAVEL_RANGE)
    step_x, step_y = DIRECTIONS[scene.direction]
    margin_x = radius + abs(step_x) * travel / 2
    margin_y = radius + abs(step_y) * travel / 2
    return Placement(
        radius,
        travel,
        rng.uniform(margin_x, WIDTH - margin_x),
        rng.uniform(margin_y, HEIGHT - margin_y),
    )


def _signed_distance(shape: str, dx: torch.Tensor, dy: torch.Tensor, radius: float) -> torch.Tensor:
    """Distance in pixels to the outline of the shape around the origin, negative inside."""
    if shape == "circle":
        return torch.hypot(dx, dy) - radius
    if shape == "square":
        return torch.maximum(dx.abs(), dy.abs()) - radius * 0.86
    # An upright equilateral triangle: three half planes, the top two mirrored by |dx|.
    slanted = dx.abs() * 0.8660254 - dy * 0.5 - radius * 0.56
    return torch.maximum(slanted, dy - radius * 0.56)


def draw_mask(scene: Scene, placement: Placement, frames: range, scale: int = 1) -> torch.Tensor:
    """Share of each pixel covered by the shape, (frames, scale * HEIGHT, scale * WIDTH) in [0, 1]."""
    step_x, step_y = DIRECTIONS[scene.direction]
    progress = torch.tensor([f / (NUM_FRAMES - 1) - 0.5 for f in frames]) * placement.travel
    center_x = (placement.center_x + step_x * progress)[:, None, None]
    center_y = (placement.center_y + step_y * progress)[:, None, None]
    dx = (torch.arange(scale * WIDTH, dtype=torch.float32)[None, None, :] + 0.5) / scale - center_x
    dy = (torch.arange(scale * HEIGHT, dtype=torch.float32)[None, :, None] + 0.5) / scale - center_y
    # A one pixel wide ramp over the outline is the anti-aliasing.
    return (0.5 - scale * _signed_distance(scene.shape, dx, dy, placement.radius)).clamp_(0.0, 1.0)


def _rgb(values: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None] / 127.5 - 1.0


def paint(scene: Scene, mask: torch.Tensor) -> torch.Tensor:
    """The RGB clip of a mask, (3, frames, HEIGHT, WIDTH) in [-1, 1]."""
    return torch.lerp(_rgb(BACKGROUNDS[scene.background]), _rgb(COLORS[scene.color]), mask[None])


def draw_clip(scene: Scene, rng: random.Random, num_frames: int = NUM_FRAMES) -> torch.Tensor:
    """One clip with a random placement, (3, num_frames, HEIGHT, WIDTH) in [-1, 1].

    A clip shorter than NUM_FRAMES is a piece of a full one, starting at a random frame.
    """
    start = rng.randint(0, NUM_FRAMES - num_frames)
    mask = draw_mask(scene, random_placement(scene, rng), range(start, start + num_frames))
    return paint(scene, mask)


def draw_pair(scene: Scene, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """A clip with a random placement as `draw_clip` draws it, and the same at twice the size."""
    placement = random_placement(scene, rng)
    small, large = (paint(scene, draw_mask(scene, placement, range(NUM_FRAMES), scale)) for scale in (1, 2))
    return small, large


def first_frame(scene: Scene, rng: random.Random) -> np.ndarray:
    """The image that a clip of this scene begins with, (HEIGHT, WIDTH, 3) of 8 bits."""
    clip = paint(scene, draw_mask(scene, random_placement(scene, rng), range(1)))
    return ((clip[:, 0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()


def draw_batch(scenes: list[Scene], rng: random.Random, num_frames: int = NUM_FRAMES) -> torch.Tensor:
    """One clip per scene, (batch, 3, num_frames, HEIGHT, WIDTH) in [-1, 1]."""
    return torch.stack([draw_clip(scene, rng, num_frames) for scene in scenes])
