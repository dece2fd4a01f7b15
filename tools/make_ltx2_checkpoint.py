"""Write a checkpoint of LTX-2.0, 2.3 or 2.5 in diffusers' layout: true names and shapes, random weights.

    python tools/make_ltx2_checkpoint.py 2.3 out/ltx23                       # tiny, renders on a CPU
    python tools/make_ltx2_checkpoint.py 2.5 out/ltx25 --scale full --holes  # true sizes, sparse files

The tokenizer has one token per byte and needs no vocabulary file. With `--holes`, only the headers of the weight files
are written: to anything that plans from headers, they look like downloaded files.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines import ltx2

sys.path.insert(0, str(Path(__file__).parent))
from ltx2_configs import (
    CLASSES,
    DISTILLED_SCHEDULER,
    FULL,
    SCHEDULER,
    TEXT_ENCODER_CLASSES,
    TINY,
    VERSIONS,
    VOCODER_CLASSES,
    Version,
    text_encoder_config,
)
from make_checkpoint import Shapes, random_tensor, safetensors_header, write_safetensors

DISTILLED: tuple[Version, ...] = ("2.5",)
"""Versions in which `transformer` holds distilled weights, and `transformer_full` those they were distilled from."""


def make_checkpoint(version: Version, out: Path, tiny: bool = True, holes: bool = False) -> Path:
    """Write a checkpoint, and return `out`, which `model.checkpoint` can be set to."""
    components = dict(FULL[version])
    if version in DISTILLED:
        components["transformer_full"] = components["transformer"]
    for name, config in components.items():
        changes = TINY[version][name.removesuffix("_full")] if tiny else {}
        # The vocoder's filters and spectra are buffers that only its own class can make.
        model = _make(_class_name(version, name), config | changes, "cpu" if name == "vocoder" else "meta")
        model.save_config(out / name)
        buffers = {f"{name}:{key}": tensor for key, tensor in model.named_buffers() if name == "vocoder"}
        _write_weights(out / name / "diffusion_pytorch_model.safetensors", name, _shapes(model), holes, buffers)
    _write_text_encoder(version, out / "text_encoder", tiny, holes)
    tokenizer().save_pretrained(out / "tokenizer")
    schedule = SCHEDULER | (DISTILLED_SCHEDULER if version in DISTILLED else {})
    diffusers.FlowMatchEulerDiscreteScheduler(**schedule).save_config(out / "scheduler")
    index = {"_class_name": "LTX2Pipeline", "_diffusers_version": diffusers.__version__}
    index |= {name: _library(version, name) for name in components if name != "transformer_full"}
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    index["text_encoder"] = ["transformers", TEXT_ENCODER_CLASSES[version]]
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    del index["latent_upsampler"]  # as published: no pipeline has all of these, so this one is loaded by name
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return out


def tokenizer() -> Any:
    """A tokenizer with one token per byte: byte-level BPE of 256 letters without merges, and four special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({text: i for i, text in enumerate(special + letters)}, [], unk_token="<unk>"))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    names = dict(zip(("pad_token", "eos_token", "bos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=bytewise, padding_side="left", model_max_length=1024, **names)


def _class_name(version: Version, component: str) -> str:
    return VOCODER_CLASSES[version] if component == "vocoder" else CLASSES[component]


def _library(version: Version, component: str) -> list[str]:
    """Library and class as diffusers' save_pretrained writes them: for a class of this pipeline only, its module."""
    name = _class_name(version, component)
    return ["diffusers" if hasattr(diffusers, name) else "ltx2", name]


def _make(class_name: str, config: dict[str, Any], device: str) -> Any:
    model_class = getattr(diffusers, class_name, None) or getattr(ltx2, class_name)
    with torch.device(device):
        return model_class(**config)


def _shapes(model: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _write_text_encoder(version: Version, folder: Path, tiny: bool, holes: bool) -> None:
    import transformers

    config = text_encoder_config(version, tiny)
    with torch.device("meta"):
        model: Any = getattr(transformers, TEXT_ENCODER_CLASSES[version])(config)
    config.save_pretrained(folder)
    shapes = _shapes(model)
    shapes.pop("lm_head.weight", None)  # the input embedding, stored once
    _write_weights(folder / "model.safetensors", "text_encoder", shapes, holes)


def _write_weights(
    path: Path, component: str, shapes: Shapes, holes: bool, buffers: dict[str, torch.Tensor] | None = None
) -> None:
    tensors = {f"{component}:{name}": (name, shape) for name, shape in shapes.items()}
    if not holes:
        write_safetensors(path, tensors, {"format": "pt"}, lambda name, shape: _values(name, shape, buffers or {}))
        return
    header, num_bytes = safetensors_header(tensors, {"format": "pt"})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + num_bytes)


def _values(identity: str, shape: tuple[int, ...], buffers: dict[str, torch.Tensor]) -> torch.Tensor:
    if identity in buffers:
        return buffers[identity].to(torch.bfloat16)
    values = random_tensor(identity, shape)
    if identity.endswith("layer_scalar"):  # Gemma 4 multiplies each layer's output by it
        return values + 1
    # The vocoder's residual blocks have no norms between them: values of the usual size would clip all sound.
    return values * VOCODER_GAIN if identity.startswith("vocoder:") else values


VOCODER_GAIN = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", choices=VERSIONS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", choices=("full", "tiny"), default="tiny")
    parser.add_argument("--holes", action="store_true", help="write only headers: good for planning, not for rendering")
    arguments = parser.parse_args()
    print(make_checkpoint(arguments.version, arguments.out, arguments.scale == "tiny", arguments.holes))


if __name__ == "__main__":
    main()
