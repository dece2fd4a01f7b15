"""Compares the bytes that each stage needs beside its weights, as counted on the real classes, with our formulas.

    python benchmarks/working_sets.py

The classes of diffusers and transformers run at full size on fake tensors: every operation has its true shapes and
dtypes, but takes no memory. Each storage is counted as long as it lives, so the peak is what an allocator without
rounding and caching would hold. The margins of `ltx_dist/models/ltx_video/estimates.py` (MARGIN) cover what comes on
top: workspaces of kernels, and the allocator's fragmentation.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ltx_dist.checkpoints.versions import read_config
from ltx_dist.estimates.working_sets import decode_bytes, denoise_bytes, denoised_tokens, encode_text_bytes
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling

RATIOS = (32, 8)
SHAPES = ((480, 704, 121), (512, 768, 97), (512, 768, 161), (256, 256, 25))
TILINGS = (UNTILED, DecodeTiling(512, None), DecodeTiling(None, 64), DecodeTiling(256, 32))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages made inside it, as long as they live. Views share their storage and count once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, Any] = {}
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and id(leaf.untyped_storage()) not in known:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)

        def end(_: Any) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, end)


@contextmanager
def fake_tensors(dtype: torch.dtype) -> Iterator[None]:
    """A context in which modules and tensors are made with shapes and dtypes, but without memory."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with FakeTensorMode(), torch.inference_mode():
            yield
    finally:
        torch.set_default_dtype(previous)


def peak_of(call: Callable[[], Any]) -> int:
    with LiveBytes() as live:
        result = call()
    del result
    return live.peak


def count_encode_text(config: dict[str, Any], tokens: int, dtype: torch.dtype, prompts: int = 1) -> int:
    with fake_tensors(dtype):
        encoder = transformers.T5EncoderModel(transformers.T5Config(**config)).eval()
        ids = torch.zeros(prompts, tokens, dtype=torch.long)
        return peak_of(lambda: encoder(ids, attention_mask=torch.ones(prompts, tokens, dtype=torch.long)))


def count_denoise(config: dict[str, Any], request: RenderRequest, dtype: torch.dtype, clips: int = 1) -> int:
    latent = (request.num_frames - 1) // RATIOS[1] + 1, request.height // RATIOS[0], request.width // RATIOS[0]
    prompts, tokens = clips * (1 + request.do_classifier_free_guidance), latent[0] * latent[1] * latent[2]
    with fake_tensors(dtype):
        transformer: Any = diffusers.LTXVideoTransformer3DModel.from_config(config)

        def step() -> Any:
            return transformer(
                torch.empty(prompts, tokens, config["in_channels"]),
                torch.empty(prompts, request.max_sequence_length, config["caption_channels"]),
                torch.empty(prompts),
                torch.empty(prompts, request.max_sequence_length),
                num_frames=latent[0],
                height=latent[1],
                width=latent[2],
                rope_interpolation_scale=(8 / 25, 32, 32),
            )

        return peak_of(step)


def count_conditioned(config: dict[str, Any], request: RenderRequest, dtype: torch.dtype) -> int:
    """Peak bytes of a step with conditions, whose tokens have timesteps and positions of their own."""
    prompts = 1 + (request.guidance_scale > 1)
    tokens = denoised_tokens(request, request.first_size, RATIOS)
    with fake_tensors(dtype):
        transformer: Any = diffusers.LTXVideoTransformer3DModel.from_config(config)

        def step() -> Any:
            return transformer(
                torch.empty(prompts, tokens, config["in_channels"]),
                torch.empty(prompts, request.max_sequence_length, config["caption_channels"]),
                torch.empty(prompts, tokens, dtype=torch.float32),
                torch.empty(prompts, request.max_sequence_length),
                video_coords=torch.empty(prompts, 3, tokens, dtype=torch.float32),
            )

        return peak_of(step)


def count_encode_image(config: dict[str, Any], shape: tuple[int, int, int], dtype: torch.dtype) -> int:
    """Peak bytes of the VAE's encoder, including its float32 input. shape: frames, height and width in pixels."""
    with fake_tensors(dtype):
        vae: Any = diffusers.AutoencoderKLLTXVideo.from_config(config)
        vae.decoder = None

        def encode() -> Any:
            pixels = torch.empty(1, 3, *shape, dtype=torch.float32)
            return pixels, vae.encode(pixels.to(dtype)).latent_dist.parameters

        return peak_of(encode)


def count_upsample(config: dict[str, Any], shape: tuple[int, int, int], dtype: torch.dtype) -> int:
    """Peak bytes of the upsampler. shape: frames, rows and columns of the latents."""
    with fake_tensors(dtype):
        upsampler: Any = LTXLatentUpsamplerModel(**config)
        return peak_of(lambda: upsampler(torch.empty(1, config["in_channels"], *shape)))


def count_decode(config: dict[str, Any], request: RenderRequest, dtype: torch.dtype, tiling: DecodeTiling) -> int:
    """Peak bytes of the path that `VideoDecoder` takes, including frames as they are yielded."""
    from ltx_dist.models.ltx_video.tiling import decode_in_tiles

    with fake_tensors(dtype):
        vae: Any = diffusers.AutoencoderKLLTXVideo.from_config(config)
        vae.encoder = None
        latents = torch.empty(
            1,
            config["latent_channels"],
            (request.num_frames - 1) // RATIOS[1] + 1,
            request.height // RATIOS[0],
            request.width // RATIOS[0],
        )
        timestep = torch.empty(1) if config["timestep_conditioning"] else None

        def decode() -> None:
            for _ in decode_in_tiles(vae, latents, timestep, tiling):
                pass

        return peak_of(decode)


def example(height: int, width: int, num_frames: int, guidance_scale: float = 3.0, tokens: int = 128) -> RenderRequest:
    return RenderRequest(
        "clip", "", "", height, width, num_frames, 25.0, 40, guidance_scale, 0.0, 0, 0.05, 0.025, tokens
    )


def rows() -> Iterator[tuple[str, int, int]]:
    """Cases: (name, bytes counted, bytes by formula)."""
    text = read_config("text_encoder")
    for dtype, element in ((torch.bfloat16, 2), (torch.float32, 4)):
        for tokens in (128, 256, 512):
            yield (
                f"encode_text {tokens} tokens, {dtype}",
                count_encode_text(text, tokens, dtype),
                encode_text_bytes(text, tokens, element),
            )
        for name in ("transformer-2b", "transformer-13b"):
            config = read_config(name)
            for guidance in (3.0, 1.0):
                for shape in SHAPES:
                    request = example(*shape, guidance)
                    yield (
                        f"denoise {name} {shape[1]}x{shape[0]}x{shape[2]} guidance {guidance:g}, {dtype}",
                        count_denoise(config, request, dtype),
                        denoise_bytes(config, request, RATIOS, element),
                    )
        for name in ("vae-0.9.0", "vae-0.9.1", "vae-0.9.5"):
            config = read_config(name)
            for shape in SHAPES:
                for tiling in TILINGS:
                    request = example(*shape)
                    yield (
                        f"decode {name} {shape[1]}x{shape[0]}x{shape[2]} tiles {tiling.tile_size or '-'} px "
                        f"{tiling.tile_frames or '-'} frames, {dtype}",
                        count_decode(config, request, dtype, tiling),
                        decode_bytes(config, request, element, tiling),
                    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, transformers {transformers.__version__}")
    print(f"{'counted':>10} {'formula':>10}  ratio")
    for what, counted, formula in rows():
        print(f"{counted / 1e9:7.3f} GB {formula / 1e9:7.3f} GB  {formula / counted:5.3f}  {what}", flush=True)


if __name__ == "__main__":
    main()
