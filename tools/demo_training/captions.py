"""Captions of scenes: several ways to say the same thing, and some that leave part of it unsaid."""

from __future__ import annotations

import random

from .clips import Scene

# Maximum number of tokens (bytes and an end mark) of a text that reaches the model.
MAX_SEQUENCE_LENGTH = 128

BENCHMARK_TEMPLATE = "a {color} {shape} moving {direction} on a {background} background"

_FULL_TEMPLATES = (
    BENCHMARK_TEMPLATE,
    BENCHMARK_TEMPLATE,
    "{color} {shape} drifts to the {direction}, {background} background",
    "the {shape} is {color} and slides {direction} across a {background} background",
    "a {background} background with a {color} {shape} moving {direction}",
    "on {background}, one {color} {shape} glides {direction}",
    "{direction}ward goes a {color} {shape} in front of a {background} wall",
    "a clip of a {color} {shape} that travels {direction} over {background}",
    "{color} {shape}, {direction}, {background}",
)
_PARTIAL_TEMPLATES = (
    "a {color} {shape} moving {direction}",
    "{color} {shape} drifts {direction}",
    "a {shape} moving {direction} on a {background} background",
    "a {color} {shape} on a {background} background",
    "a {color} {shape}",
)
PARTIAL_SHARE = 0.12
# What people write beside a first frame: where things go, and little of what can be seen.
IMAGE_TEMPLATE = "a {shape} moving {direction} on a {background} background"
_IMAGE_TEMPLATES = (
    IMAGE_TEMPLATE,
    IMAGE_TEMPLATE,
    "a {shape} moving {direction}",
    "the {shape} moves {direction}",
    "moving {direction}",
)
FULL_SHARE_WITH_IMAGE = 0.4


def benchmark_caption(scene: Scene) -> str:
    """The one plain caption of a scene that quality is measured with."""
    return BENCHMARK_TEMPLATE.format(**vars(scene))


def random_template(rng: random.Random) -> str:
    """A way of captioning; some leave attributes out, so that short prompts work as well."""
    partial = rng.random() < PARTIAL_SHARE
    return rng.choice(_PARTIAL_TEMPLATES if partial else _FULL_TEMPLATES)


def image_caption(scene: Scene) -> str:
    """The caption that goes with a first frame when quality is measured: it does not say the colour."""
    return IMAGE_TEMPLATE.format(**vars(scene))


def random_image_template(rng: random.Random) -> str:
    """A way of captioning a clip whose first frame is given."""
    return random_template(rng) if rng.random() < FULL_SHARE_WITH_IMAGE else rng.choice(_IMAGE_TEMPLATES)


def fill(template: str, scene: Scene, rng: random.Random) -> str:
    """The caption of a scene, with the capitals and full stops people may or may not type."""
    text = template.format(**vars(scene))
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.3 else text


def said(template: str) -> tuple[bool, bool, bool, bool]:
    """Which of color, shape, direction and background a template mentions."""
    names = ("{color}", "{shape}", "{direction}", "{background}")
    return tuple(name in template for name in names)  # type: ignore[return-value]
