"""Load one component of a checkpoint, straight in its precision, from safetensors only."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import torch
import transformers

from ltx_dist.checkpoints.checkpoint import Checkpoint

# A bar a component would be printed by every worker at once, over the live view.
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pipeline_class(checkpoint: Checkpoint) -> type[diffusers.DiffusionPipeline]:
    """The diffusers class that the checkpoint names: it owns the numerics of every stage."""
    return getattr(diffusers, checkpoint.pipeline_class)


def load_text_encoder(checkpoint: Checkpoint, dtype: torch.dtype) -> torch.nn.Module:
    return transformers.T5EncoderModel.from_pretrained(
        checkpoint.path / "text_encoder", dtype=dtype, use_safetensors=True, local_files_only=True
    ).eval()


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer class that `model_index.json` names, so that a byte-level one works as well as T5's."""
    index = json.loads((checkpoint.path / "model_index.json").read_text("utf-8"))
    _, class_name = index["tokenizer"]
    tokenizer_class = getattr(transformers, class_name, transformers.AutoTokenizer)
    return tokenizer_class.from_pretrained(checkpoint.path / "tokenizer", local_files_only=True)


def load_transformer(checkpoint: Checkpoint, dtype: torch.dtype) -> torch.nn.Module:
    return diffusers.LTXVideoTransformer3DModel.from_pretrained(
        checkpoint.path / "transformer", dtype=dtype, use_safetensors=True, local_files_only=True
    ).eval()


def load_vae(checkpoint: Checkpoint, dtype: torch.dtype) -> torch.nn.Module:
    return diffusers.AutoencoderKLLTXVideo.from_pretrained(
        checkpoint.path / "vae", dtype=dtype, use_safetensors=True, local_files_only=True
    ).eval()


def load_noise_scheduler(checkpoint: Checkpoint) -> diffusers.FlowMatchEulerDiscreteScheduler:
    return diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
        checkpoint.path / "scheduler", local_files_only=True
    )
