"""Recognises single files of LTX-2.x by version, so that the error that refuses them names the folder to use instead.

diffusers 0.42 converts the transformer, the VAE and the sound's VAE of 2.0 (loaders/single_file_utils.py). It has no
names of 2.3 and 2.5, and reads connectors, vocoder and upsampler of any version from folders alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

FOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "2.0": "Lightricks/LTX-2",
        "2.3": "diffusers/LTX-2.3-Diffusers, or distilled diffusers/LTX-2.3-Distilled-Diffusers",
        "2.5": "Lightricks/LTX-2.5-Diffusers",
    }
)
"""Where each version is published in diffusers layout."""

_PARTS = {
    "the text encoder": ("language_model.",),
    "a VAE": ("encoder.conv_in.", "decoder.conv_in.", "per_channel_statistics."),
    "the sound's VAE and the vocoder": ("audio_vae.", "vocoder."),
}
"""Parts that ComfyUI keeps in files of their own, by how their tensors' names begin."""


def other_form_of_ltx2(keys: Collection[str]) -> str | None:
    """What a file is and what to give instead, by tensors' names without the transformer's prefix; None if it is not
    LTX-2's."""
    if "audio_patchify_proj.weight" in keys:
        generation = _generation(keys)
        return (
            f"a single file of LTX-{generation}, which diffusers can read only in part; give the model in diffusers "
            f"layout, {FOLDERS[generation]} on the hub, or convert the file with "
            "scripts/convert_ltx2_to_diffusers.py of github.com/huggingface/diffusers"
        )
    for part, names in _PARTS.items():
        if any(key.removeprefix("model.").startswith(names) for key in keys):
            return (
                f"{part} alone, perhaps of LTX-2; give the whole model: LTX-2.x in folders, such as "
                f"{FOLDERS['2.5']}, or an official file of LTX-Video"
            )
    return None


def _generation(keys: Collection[str]) -> str:
    if not any("prompt_adaln_single." in key for key in keys):
        return "2.0"
    return "2.3" if "transformer_blocks.0.ff.net.2.bias" in keys else "2.5"
