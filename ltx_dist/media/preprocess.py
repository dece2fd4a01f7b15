"""Prepares an image for the VAE: fitted to the clip's size, and processed as in diffusers or in Lightricks' program.

`diffusers`: Lanczos on 8-bit pixels, by its VideoProcessor. `official` does what `inference.py` and `crf_compressor.py`
of github.com/Lightricks/LTX-Video do: the visible part is blurred slightly and compressed as one frame of H.264 (the
model was trained on video frames, and a sharper image gives a clip with little motion), then scaled bilinearly.
"""

from __future__ import annotations

import io
from typing import Literal

import av
import numpy as np
import PIL.Image
import torch

Fit = Literal["crop", "stretch", "pad"]

BLUR_WEIGHTS = (0.27406862, 0.45186276, 0.27406862)
"""A Gaussian of standard deviation 1 at -1, 0 and 1, normalised: what torchvision's gaussian_blur(3, 1.0) uses."""


def fitted(image: PIL.Image.Image, height: int, width: int, fit: Fit) -> PIL.Image.Image:
    """The image in the clip's aspect ratio, still at its own resolution.

    `crop`: the largest part with the clip's aspect ratio, from the centre. `pad`: the whole image with black borders.
    `stretch`: unchanged; scaling to the clip's size then distorts it, which is what diffusers does with any image.
    """
    if fit == "stretch":
        return image
    wider = image.width * height > image.height * width
    if fit == "crop":
        size = (image.height * width // height, image.height) if wider else (image.width, image.width * height // width)
        size = max(size[0], 1), max(size[1], 1)
        left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
        return image.crop((left, top, left + size[0], top + size[1]))
    # Rounded up, so that no column of the image is lost.
    size = (
        (image.width, -(-image.width * height // width))
        if wider
        else (-(-image.height * width // height), image.height)
    )
    padded = PIL.Image.new("RGB", size)
    padded.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return padded


def official_pixels(image: PIL.Image.Image, height: int, width: int, crf: int, blur: bool) -> torch.Tensor:
    """A fitted image as (3, height, width) float32 in [-1, 1]. crf: H.264's; 0 skips the compression."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32) / 255
    if blur:
        pixels = _blurred(pixels)
    if crf:
        pixels = _compressed(pixels, crf)
    if pixels.shape[1:] != (height, width):
        pixels = torch.nn.functional.interpolate(pixels[None], (height, width), mode="bilinear", align_corners=False)[0]
    return pixels * 2 - 1


def _blurred(pixels: torch.Tensor) -> torch.Tensor:
    kernel = torch.tensor(BLUR_WEIGHTS)
    weights = (kernel[:, None] * kernel[None, :])[None, None].expand(3, 1, 3, 3)
    padded = torch.nn.functional.pad(pixels[None], (1, 1, 1, 1), mode="reflect")
    return torch.nn.functional.conv2d(padded, weights, groups=3)[0]


def _compressed(pixels: torch.Tensor, crf: int) -> torch.Tensor:
    """The pixels after compression as one H.264 frame in yuv420p, which drops an odd last row or column. They depend on
    libx264's version."""
    even = pixels[:, : pixels.shape[1] // 2 * 2, : pixels.shape[2] // 2 * 2]
    frame = np.ascontiguousarray((even * 255).to(torch.uint8).permute(1, 2, 0).numpy())
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    with av.open(io.BytesIO(file.getvalue()), "r") as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return torch.from_numpy(decoded).permute(2, 0, 1).to(torch.float32) / 255
