"""Moves decoded pixels to the host as frames, one group at a time: the last step of diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ltx_dist.models.finite import check_finite

GROUP_BYTES = 64 << 20
"""Bytes of one group's pixels in float32, the dtype they are rounded from: 16 frames of 704x480. Frame by frame, the
device would wait for the host 121 times per clip; all at once, they would take as much memory as decoding itself."""


def frames_of(piece: torch.Tensor, processor: Any, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
    """(1, 3, frames, H, W) in [-1, 1] on the device -> frames of (H, W, 3) uint8 RGB on the host.

    processor: diffusers' VideoProcessor. size: height and width; frames of another size are scaled to it bilinearly,
    as LTXMultiScalePipeline of github.com/Lightricks/LTX-Video does after a second pass. Rounded as diffusers rounds
    for `output_type="pil"`. Raises FloatingPointError for pixels that are not finite, which would all become 0.
    """
    check_finite(piece, "the frames are", piece.dtype, "model.vae_precision")
    pixels = piece[0].transpose(0, 1)
    _, _, height, width = pixels.shape
    for group in pixels.split(max(1, GROUP_BYTES // (3 * 4 * height * width))):
        images = processor.postprocess(group, output_type="pt").float()
        if size is not None and size != (height, width):
            images = torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
        # Transposed on the device: on the host this takes 0.4 s per clip, with the interpreter's lock held.
        yield from on_host((images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous())


def on_host(frames: torch.Tensor) -> np.ndarray:
    return frames.cpu().numpy()
