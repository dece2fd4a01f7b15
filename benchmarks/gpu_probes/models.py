"""Makes checkpoints for the probes: tiny ones on disk, and full-size ones whose weights are drawn on the card.

Writing and reading a file of 16 GB of random numbers takes minutes. So the folder of a full-size checkpoint has true
configs and sparse files, and our functions that would read them get other weights, which are drawn on the card in under
a second. These are kept on the host, so that reading them again takes as long as from a warm page cache.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from .scale import Scale

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

VERSIONS = {"2b": "0.9.5", "13b": "0.9.7-13b-dev"}
TOKENS = {"full": 256, "tiny": 32}

HostWeights = dict[str, dict[str, torch.Tensor]]


def checkpoint_of(scale: Scale, model: str, folder: Path) -> Any:
    """An opened checkpoint of the model. Replaces the functions that load its weights in this process."""
    import sparse
    import tiny

    from ltx_dist.checkpoints.checkpoint import open_checkpoint

    replace_loaders(scale)
    if scale.is_tiny:
        return open_checkpoint(str(tiny.save_checkpoint(folder / model, "0.9.5")))
    return open_checkpoint(str(sparse.save_sparse_checkpoint(folder / model, VERSIONS[model])))


def request_of(
    scale: Scale, index: int, shape: tuple[int, int, int], steps: int, guidance: float = 3.0, **others: Any
) -> Any:
    from ltx_dist.pipeline.request import RenderRequest

    height, width, num_frames = shape
    return RenderRequest(
        request_id=f"clip{index}",
        prompt=f"prompt number {index}",
        negative_prompt="",
        height=height,
        width=width,
        num_frames=num_frames,
        frame_rate=25.0,
        num_inference_steps=steps,
        guidance_scale=guidance,
        guidance_rescale=0.0,
        seed=index,
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        max_sequence_length=TOKENS[scale.name],
        **others,
    )


def replace_loaders(scale: Scale) -> None:
    """Replace the functions that load components in every module of ours that has them."""
    kept: HostWeights = {}

    def text_encoder(checkpoint: Any, dtype: torch.dtype, *_: Any, **__: Any) -> torch.nn.Module:
        return component("text_encoder", checkpoint, dtype, scale, kept)

    def transformer(checkpoint: Any, dtype: torch.dtype, storage: str = "same", *_: Any, **__: Any) -> torch.nn.Module:
        made: Any = component("transformer", checkpoint, dtype, scale, kept)
        if storage == "float8":
            made.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
        return made

    def vae(checkpoint: Any, dtype: torch.dtype, *_: Any, **__: Any) -> torch.nn.Module:
        return component("vae", checkpoint, dtype, scale, kept)

    import ltx_dist.models.ltx_video.encode_text
    import ltx_dist.models.ltx_video.load  # noqa: F401 (these two have all the names below)

    replaced = {
        "load_text_encoder": text_encoder,
        "load_transformer": transformer,
        "load_vae_decoder": vae,
        "load_tokenizer": lambda *_: transformers.ByT5Tokenizer(),
    }
    for name, module in list(sys.modules.items()):
        if name.startswith("ltx_dist."):
            for attribute, loader in replaced.items():
                if hasattr(module, attribute):
                    setattr(module, attribute, loader)


def component(name: str, checkpoint: Any, dtype: torch.dtype, scale: Scale, kept: HostWeights) -> torch.nn.Module:
    """A component on the host. Its weights are drawn on the card the first time, and copied from then on."""
    module = skeleton(name, checkpoint).to(dtype)
    key = f"{name} {dtype}"
    if key not in kept:
        draw(module.to_empty(device=scale.device), scale)
        kept[key] = {path: tensor.cpu() for path, tensor in module.state_dict().items()}
    module.load_state_dict({path: tensor.clone() for path, tensor in kept[key].items()}, assign=True)
    return module.eval().requires_grad_(False)


def skeleton(name: str, checkpoint: Any) -> torch.nn.Module:
    """A module of the component's real class on the meta device; the VAE without its encoder."""
    from ltx_dist.checkpoints.component_config import component_config

    config = dict(component_config(checkpoint, name))
    with torch.device("meta"):
        if name == "text_encoder":
            return transformers.T5EncoderModel(transformers.T5Config(**config))
        if name == "transformer":
            transformer: Any = diffusers.LTXVideoTransformer3DModel
            return transformer.from_config(config)
        vae: Any = diffusers.AutoencoderKLLTXVideo.from_config(config)
        vae.encoder = None
        return vae


def draw(module: torch.nn.Module, scale: Scale, seed: int = 0) -> torch.nn.Module:
    """Draw weights in place that keep activations near 1: matrices scaled by their fan-in, norms 1, biases 0."""
    generator = torch.Generator(scale.device).manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if "timestep_scale_multiplier" in name:
            tensor.data.fill_(1000.0)
        elif tensor.ndim >= 2:
            fan_in = tensor[0].numel()
            tensor.data.normal_(0, fan_in**-0.5, generator=generator)
        else:
            tensor.data.fill_(0.0 if name.endswith(("bias", "mean")) else 1.0)
    return module


def plain_pipeline(scale: Scale, checkpoint: Any) -> Any:
    """diffusers' own pipeline with the same weights, on the host: the reference of every comparison."""
    from ltx_dist.models.ltx_video import load
    from ltx_dist.weights.loading import load_noise_scheduler

    pipeline = getattr(diffusers, checkpoint.pipeline_class)(
        scheduler=load_noise_scheduler(checkpoint),
        vae=load.load_vae_decoder(checkpoint, scale.dtype),
        text_encoder=load.load_text_encoder(checkpoint, scale.dtype),
        tokenizer=load.load_tokenizer(checkpoint),
        transformer=load.load_transformer(checkpoint, scale.dtype),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
