"""Indices, lengths, shapes and rates of conditions: what diffusers would round or cut silently is reported."""

from __future__ import annotations

import pytest

from ltx_dist.media.checks import aspect_warning, frame_index_problem, frame_rate_warning, video_length_problem


@pytest.mark.parametrize(
    ("index", "is_video"), [(0, False), (1, False), (96, False), (-1, False), (0, True), (88, True)]
)
def test_indices_of_the_clip_are_right(index: int, is_video: bool):
    assert frame_index_problem(index, 97, is_video, 8) is None


@pytest.mark.parametrize(
    ("index", "is_video", "message"),
    [
        (97, False, "97 is not a frame of the clip; use 0 to 96, or -1 for the last"),
        (-2, False, "-2 is not a frame of the clip; use 0 to 96, or -1 for the last"),
        (13, True, "13 is not a multiple of 8, which a video needs; use 8 or 16"),
        (-1, True, "-1 is for images; a video begins at the frame that you give"),
    ],
)
def test_other_indices_are_refused(index: int, is_video: bool, message: str):
    assert frame_index_problem(index, 97, is_video, 8) == message


@pytest.mark.parametrize(
    ("found", "start", "wanted", "index"),
    [(97, 0, None, 0), (17, 0, None, 80), (200, 0, 97, 0), (1, 0, None, 0), (50, 10, 25, 0), (9, 0, None, 88)],
)
def test_lengths_that_fit(found: int, start: int, wanted: int | None, index: int):
    assert video_length_problem(found, start, wanted, index, 97, 8) is None


@pytest.mark.parametrize(
    ("found", "start", "wanted", "index", "message"),
    [
        (20, 0, None, 0, "20 frames are not a multiple of 8 plus 1; set num_frames: 17"),
        (30, 0, 20, 0, "20 frames are not a multiple of 8 plus 1; set num_frames: 17 or 25"),
        (200, 0, None, 0, "200 frames from frame_index 0 on do not fit a clip of 97; set num_frames: 97"),
        (200, 0, None, 80, "200 frames from frame_index 80 on do not fit a clip of 97; set num_frames: 17"),
        (20, 0, 25, 0, "has 20 frames from start_frame 0 on, not num_frames 25"),
        (20, 25, None, 0, "has 20 frames, so none from start_frame 25 on"),
        (1, 0, None, 8, "one frame is too few at frame_index 8; use at least 9, or give an image"),
        (7, 0, None, 8, "7 frames are not a multiple of 8 plus 1, and at least 9 are needed here"),
    ],
)
def test_lengths_that_diffusers_would_cut_are_refused(
    found: int, start: int, wanted: int | None, index: int, message: str
):
    assert video_length_problem(found, start, wanted, index, 97, 8) == message


def test_shapes_that_change_are_warned_about():
    assert aspect_warning(1536, 1024, 768, 512, "stretch") is None
    assert aspect_warning(1540, 1024, 768, 512, "stretch") is None
    square = aspect_warning(1024, 1024, 768, 512, "stretch")
    assert square == "stretched by 50% from 1024x1024 to 768x512; fit: crop keeps its shape"
    assert aspect_warning(1024, 1024, 768, 512, "crop") == "cropped by 33% from 1024x1024 to 768x512"
    assert aspect_warning(1024, 1024, 768, 512, "pad") == "padded with black from 1024x1024 to 768x512"


def test_a_rate_unlike_the_clips_is_warned_about():
    assert frame_rate_warning(25.0, 25.0) is None and frame_rate_warning(None, 25.0) is None
    assert frame_rate_warning(29.97, 30.0) is None
    warning = frame_rate_warning(50.0, 25.0)
    assert warning == "has 50 frames per second and the clip 25: it will play 0.5 times as fast"
