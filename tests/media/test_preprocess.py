"""Each way of fitting keeps what it promises; the official preparation is blur, one H.264 frame, bilinear scaling."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch

from ltx_dist.media.preprocess import fitted, official_pixels


def gradient(width: int, height: int) -> PIL.Image.Image:
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return PIL.Image.fromarray(np.stack([x, y, np.full_like(x, 90)], 2).astype(np.uint8))


def noise(width: int, height: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("size", "left_out"), [((200, 50), "sides"), ((50, 200), "ends")])
def test_crop_takes_the_middle_in_the_clips_shape(size: tuple[int, int], left_out: str):
    cropped = np.asarray(fitted(gradient(*size), 64, 96, "crop"))
    assert cropped.shape[1] / cropped.shape[0] == pytest.approx(1.5, rel=0.03)
    growing = cropped[..., 0] if left_out == "sides" else cropped[..., 1].T
    assert growing[0, 0] > 60 and growing[0, -1] < 195, "as much is left out at both ends"
    assert abs(int(growing[0, 0]) + int(growing[0, -1]) - 255) <= 3


def test_a_picture_of_the_clips_shape_is_not_cropped():
    for fit in ("crop", "pad", "stretch"):
        assert np.array_equal(np.asarray(fitted(gradient(192, 128), 64, 96, fit)), np.asarray(gradient(192, 128)))


def test_pad_keeps_all_of_the_picture():
    padded = np.asarray(fitted(noise(200, 50), 64, 96, "pad"))
    assert padded.shape == (134, 200, 3)
    assert np.array_equal(padded[42:92], np.asarray(noise(200, 50)))
    assert not padded[:42].any() and not padded[92:].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_no_shape_is_cropped_to_nothing(size: tuple[int, int]):
    for fit in ("crop", "pad", "stretch"):
        assert min(fitted(gradient(*size), 480, 832, fit).size) >= 1


def test_without_blur_and_compression_only_the_scale_changes():
    exact = official_pixels(noise(96, 64), 64, 96, crf=0, blur=False)
    assert exact.shape == (3, 64, 96) and exact.dtype == torch.float32
    expected = torch.from_numpy(np.asarray(noise(96, 64)).copy()).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(exact, expected, atol=1e-6)
    # Bilinear without antialiasing: every second pixel's neighbours, whatever lies between.
    half = official_pixels(gradient(192, 128), 64, 96, crf=0, blur=False)
    full = official_pixels(gradient(192, 128), 128, 192, crf=0, blur=False)
    assert torch.allclose(half, torch.nn.functional.avg_pool2d(full, 2), atol=1e-5)


def test_the_blur_is_a_gaussian_of_one_pixel():
    """As torchvision's gaussian_blur(kernel_size=3, sigma=1.0): weights exp(-x^2 / 2) in both directions, reflected."""
    weights = np.exp(-(np.array([-1.0, 0, 1]) ** 2) / 2)
    weights /= weights.sum()
    pixels = np.pad(np.asarray(noise(40, 30)).astype(float), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    expected = sum(weights[dy] * weights[dx] * pixels[dy : dy + 30, dx : dx + 40] for dy in range(3) for dx in range(3))
    blurred = official_pixels(noise(40, 30), 30, 40, crf=0, blur=True).permute(1, 2, 0).numpy()
    assert np.abs((blurred + 1) * 127.5 - expected).max() < 0.01


def test_compression_loses_more_with_a_higher_crf():
    exact = official_pixels(noise(96, 64), 64, 96, crf=0, blur=False)
    errors = [(official_pixels(noise(96, 64), 64, 96, crf, False) - exact).abs().mean().item() for crf in (1, 29, 45)]
    assert 0 < errors[0] < errors[1] < errors[2]
    smooth = official_pixels(gradient(96, 64), 64, 96, 29, False) - official_pixels(gradient(96, 64), 64, 96, 0, False)
    assert smooth.abs().mean() * 127.5 < 4, "the picture is still itself, in its colours"


def test_odd_edges_are_cut_by_compression_alone():
    assert official_pixels(noise(97, 65), 64, 96, crf=29, blur=True).shape == (3, 64, 96)
    assert official_pixels(noise(97, 65), 65, 97, crf=0, blur=True).shape == (3, 65, 97)
