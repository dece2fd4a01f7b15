"""Frames as they leave a device: rounded as by diffusers, in groups of any size, never from overflowed numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.video_processor import VideoProcessor

from ltx_dist.models import frames
from ltx_dist.models.finite import check_finite
from ltx_dist.models.frames import frames_of

PROCESSOR = VideoProcessor(vae_scale_factor=32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group_bytes", [1, 3 * 4 * 8 * 16 * 4, 1 << 26])
def test_frames_are_those_that_diffusers_makes(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, group_bytes: int
) -> None:
    monkeypatch.setattr(frames, "GROUP_BYTES", group_bytes)
    piece = (torch.randn(1, 3, 9, 8, 16, generator=torch.Generator().manual_seed(0)) * 1.5).to(dtype)
    expected = PROCESSOR.postprocess_video(piece, output_type="pil")[0]
    found = list(frames_of(piece, PROCESSOR))
    assert len(found) == 9 and all(frame.flags.c_contiguous and frame.dtype == np.uint8 for frame in found)
    assert all(np.array_equal(frame, np.asarray(image)) for frame, image in zip(found, expected, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_overflowed_are_an_error_that_names_the_stage(value: float) -> None:
    piece = torch.zeros(1, 3, 2, 8, 16, dtype=torch.float16)
    piece[0, 0, 1, 3, 3] = value
    expected = r"^the frames are not finite, computed in float16; model\.vae_precision=bfloat16 or float32 may help$"
    with pytest.raises(FloatingPointError, match=expected):
        list(frames_of(piece, PROCESSOR))


def test_the_remedy_for_bfloat16_is_float32() -> None:
    with pytest.raises(FloatingPointError, match=r"computed in bfloat16; model\.precision=float32 may help"):
        check_finite(torch.tensor([float("nan")]), "the latents are", torch.bfloat16, "model.precision")
