"""Load one component of a checkpoint, straight in its precision, from safetensors only."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile, Source
from ltx_dist.checkpoints.component_config import component_config
from ltx_dist.checkpoints.tokenizer_folder import require_size, require_tokenizer, tokenizer_class_name
from ltx_dist.checkpoints.versions import config_file, read_config
from ltx_dist.checkpoints.weight_files import weight_files
from ltx_dist.weights.decoder_weights import decoder_tensors, fill
from ltx_dist.weights.quantization import quantized

# A bar a component would be printed by every worker at once, over the live view.
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

# Printed for every worker or clip: what a user can do nothing about, or what is reported once before the run.
_NOISE = {
    "diffusers.pipelines.ltx.pipeline_ltx": "The following part of your input was truncated",
    "diffusers.pipelines.ltx.pipeline_ltx_condition": "The following part of your input was truncated",
    "diffusers.models.modeling_utils": "should be kept in float32: []",
    "diffusers.schedulers.scheduling_flow_match_euler_discrete": "`timesteps` were passed without `sigmas`",
}
for _logger, _words in _NOISE.items():
    logging.getLogger(_logger).addFilter(lambda record, words=_words: words not in record.getMessage())

CPU = torch.device("cpu")

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pipeline_class(checkpoint: Checkpoint) -> type[diffusers.DiffusionPipeline]:
    """The diffusers class that the checkpoint names: it owns the numerics of every stage."""
    return getattr(diffusers, checkpoint.pipeline_class)


def load_text_encoder(
    checkpoint: Checkpoint, dtype: torch.dtype, quantization: str = "none", device: torch.device = CPU
) -> Any:
    """In `int8` or `int4` its linear layers are quantised on the device as they are read, one by one.

    Read, then, and not mapped: the pages of a mapped file would stay in memory until the last layer is done, 9.5 GB of
    them beside the 4.9 GB they are made into.
    """
    folder = checkpoint.folder("text_encoder")
    if quantization == "none":
        return complete(transformers.T5EncoderModel, folder, dtype)
    how = quantized(quantization, dtype, device)
    config = transformers.T5Config.from_pretrained(folder, local_files_only=True)
    with ExitStack() as files:
        tensors = {
            name: file.get_slice(name)
            for path in weight_files(folder, "text_encoder")
            for file in [files.enter_context(safe_open(path, framework="pt", backend="pread"))]
            for name in file.keys()  # noqa: SIM118 (not a dict)
        }
        return complete(transformers.T5EncoderModel, None, dtype, config=config, state_dict=tensors, **how)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer, by a class of transformers that is on a list, and never by code of the checkpoint.

    Raises ValueError unless its vocabulary is there and of the text encoder's size: transformers makes a T5 tokenizer
    that finds no vocabulary of some hundred tokens, and every word is unknown to it.
    """
    folder, vocab_size = checkpoint.folder("tokenizer"), component_config(checkpoint, "text_encoder")["vocab_size"]
    index = folder.parent / "model_index.json"
    require_tokenizer(folder, index, vocab_size)
    tokenizer_class = getattr(transformers, tokenizer_class_name(folder, index))
    tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    require_size(len(tokenizer), vocab_size, str(folder))
    return tokenizer


def load_transformer(checkpoint: Checkpoint, dtype: torch.dtype, storage: str = "same") -> Any:
    """`float8`: diffusers keeps linear layers in 8 bits and casts each up while it computes."""
    transformer: Any = _load_model(diffusers.LTXVideoTransformer3DModel, checkpoint.source("transformer"), dtype)
    if storage == "float8":
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    return transformer


def load_vae_decoder(checkpoint: Checkpoint, dtype: torch.dtype) -> torch.nn.Module:
    """The VAE without its encoder, which is half of it and which rendering from text never runs.

    Raises ValueError when weights and config do not belong together.
    """
    source = checkpoint.source("vae")
    with torch.device("meta"):
        if isinstance(source, InFile):
            config = read_config(source.config_name) | source.changes
            vae: Any = diffusers.AutoencoderKLLTXVideo.from_config(config)
        else:
            vae = diffusers.AutoencoderKLLTXVideo.from_config(diffusers.AutoencoderKLLTXVideo.load_config(source))
    vae.encoder = None
    fill(vae, decoder_tensors(source, dtype))
    return vae.eval()


def load_noise_scheduler(checkpoint: Checkpoint) -> diffusers.FlowMatchEulerDiscreteScheduler:
    scheduler_class, source = diffusers.FlowMatchEulerDiscreteScheduler, checkpoint.source("scheduler")
    if isinstance(source, InFile):
        return scheduler_class.from_config(read_config(source.config_name) | source.changes)
    return scheduler_class.from_pretrained(source, local_files_only=True)


def _load_model(model_class: Any, source: Source, dtype: torch.dtype) -> torch.nn.Module:
    """diffusers maps the file into memory and casts tensor by tensor, so that no second copy of it all is made."""
    if not isinstance(source, InFile):
        return complete(model_class, source, dtype)
    # With a config of ours nothing is asked of the hub; `changes` override it.
    config = str(config_file(source.config_name))
    model = model_class.from_single_file(str(source.file), config=config, dtype=dtype, **source.changes)
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ValueError(f"{source.file}: {len(missing)} tensors are missing, such as {missing[0]}; download it again")
    return model.eval()


def complete(model_class: Any, folder: Any, dtype: torch.dtype, **how: Any) -> torch.nn.Module:
    """Raises ValueError when weights and config.json do not belong together.

    Both libraries fill what is missing with random numbers and leave out what is too much, with no more than a warning.
    """
    model, found = model_class.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **how
    )
    for kind in ("missing", "unexpected", "mismatched"):
        if keys := sorted(map(str, found.get(f"{kind}_keys") or ())):
            raise ValueError(f"{len(keys)} {kind} tensors, such as {keys[0]}: config.json is of other weights")
    return model.eval()
