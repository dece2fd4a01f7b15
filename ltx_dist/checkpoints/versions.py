"""The architecture of each published LTX-Video version: its configs in `configs/`, by component.

Sources: scripts/convert_ltx_to_diffusers.py in github.com/huggingface/diffusers for the transformer, the VAE and the
noise scheduler; huggingface.co/google/t5-v1_1-xxl for the text encoder. Versions of one shape share files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ltx_dist.strict_files import read_json

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True)
class Architecture:
    """Names of configs in `configs/`, and the diffusers pipeline that the version is rendered with."""

    transformer: str
    vae: str
    noise_scheduler: str
    pipeline_class: str
    text_encoder: str = "text_encoder"


_FIRST = Architecture("transformer-2b", "vae-0.9.0", "noise_scheduler-0.9.0", "LTXPipeline")
_NOISY = Architecture("transformer-2b", "vae-0.9.1", "noise_scheduler-0.9.0", "LTXPipeline")
_2B = Architecture("transformer-2b", "vae-0.9.5", "noise_scheduler-0.9.5", "LTXConditionPipeline")
_13B = Architecture("transformer-13b", "vae-0.9.5", "noise_scheduler-0.9.5", "LTXConditionPipeline")

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "0.9.0": _FIRST,
        "0.9.1": _NOISY,
        "0.9.5": _2B,
        "0.9.6-dev": _2B,
        "0.9.6-distilled": _2B,
        "0.9.7-13b-dev": _13B,
        "0.9.7-13b-distilled": _13B,
        "0.9.8-13b-dev": _13B,
        "0.9.8-13b-distilled": _13B,
        "0.9.8-2b-distilled": _2B,
    }
)
"""The versions published for text to video. Of 0.9.7 there is no 2B, and of 0.9.8 only a distilled one."""


def config_file(name: str) -> Path:
    """The packaged config of that name. Resolved where it is used: the package lies elsewhere on other machines."""
    return CONFIGS / f"{name}.json"


def read_config(name: str) -> dict[str, Any]:
    """A packaged config, by the name an `Architecture` gives."""
    return read_json(config_file(name))
