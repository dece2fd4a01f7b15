"""Interprets the names of a LoRA's tensors, as the various trainers write them.

Names of layers are translated to diffusers' own; those of LTX-2's connectors get the prefix `connectors.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

CONNECTORS = "connectors."

_PREFIXES = (
    "base_model.model.model.diffusion_model.", "base_model.model.transformer.", "base_model.model.",
    "model.diffusion_model.", "diffusion_model.", "transformer.",
)  # fmt: skip
_UNDERSCORED = ("lora_unet_", "lora_transformer_", "lycoris_")
"""kohya's and LyCORIS' trainers write the layer's name with underscores for dots."""

_A = (".lora_A.weight", ".lora_A.default.weight", ".lora_down.weight", ".lora.down.weight")
_B = (".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight", ".lora.up.weight")
_ALPHA = ".alpha"

_OFFICIAL_NAMES = {
    "patchify_proj": "proj_in",
    "adaln_single": "time_embed",
    "audio_patchify_proj": "audio_proj_in",
    "audio_adaln_single": "audio_time_embed",
    "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
    "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
    "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
    "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
    "prompt_adaln_single": "prompt_adaln",
    "audio_prompt_adaln_single": "audio_prompt_adaln",
}
"""The modules with linear layers that Lightricks' code and diffusers call by other names."""

_OFFICIAL_CONNECTORS = "text_embedding_projection."
"""Lightricks' name for what feeds the connectors; its `aggregate_embed` is diffusers' `text_proj_in`."""

_NOT_SUPPORTED = {
    r"\.(dora_scale|lora_magnitude_vector)": "DoRA (it also scales the weights); train or export it as plain LoRA",
    r"\.hada_w\d": "LoHa; export it as plain LoRA",
    r"\.lokr_": "LoKr; export it as plain LoRA",
    r"\.(oft|boft)": "OFT; export it as plain LoRA",
    r"\.lora_mid": "a LoRA with a middle layer (LoCon with CP decomposition); export it as plain LoRA",
    r"\.lora_(A|B|up|down)\S*\.bias": "a LoRA with biases; export it without",
    r"\.(diff|diff_b|w_norm|b_norm|set_weight)$": "changes to whole weights besides the LoRA; export the LoRA alone",
    r"^(text_encoders?|lora_te\d?|te\d?)[._]": "parts for the text encoder; export the transformer's part alone",
}
"""Unsupported formats by a pattern of their keys, each with its remedy."""

_OTHER_MODELS = {
    r"audio_|av_cross|av_ca_|video_to_audio|^text_embedding_projection|^connectors": "LTX-2",
    r"(^|[._])(double|single)_(transformer_)?blocks": "FLUX or HunyuanVideo",
    r"(^|[._])joint_(transformer_)?blocks": "Stable Diffusion 3",
    r"(^|[._])(down|up|mid|input|output)_blocks?[._]": "Stable Diffusion",
    r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn|ffn)": "Wan",
}


def layer_and_part(key: str, by_underscores: Mapping[str, str], label: str) -> tuple[str, str]:
    """The layer by diffusers' name and which of its parts the tensor is: `a`, `b` or `alpha`."""
    for pattern, what in _NOT_SUPPORTED.items():
        if re.search(pattern, key):
            raise ValueError(f"{label}: {key}: not supported: {what}")
    for part, endings in {"a": _A, "b": _B, "alpha": (_ALPHA,)}.items():
        for ending in endings:
            if key.endswith(ending):
                return _layer_name(key.removesuffix(ending), by_underscores), part
    raise ValueError(f"{label}: {key}: not a tensor of a LoRA{seems_for([key], {})}")


def _layer_name(name: str, by_underscores: Mapping[str, str]) -> str:
    for prefix in _UNDERSCORED:
        if name.startswith(prefix):
            bare = name.removeprefix(prefix)
            for official, ours in _OFFICIAL_NAMES.items():
                bare = re.sub(f"^{official}_", f"{ours}_", f"{bare}_")[:-1]
            return by_underscores.get(bare, bare)
    if name.startswith(_OFFICIAL_CONNECTORS):
        return CONNECTORS + name.removeprefix(_OFFICIAL_CONNECTORS).replace("aggregate_embed", "text_proj_in")
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return by_diffusers_name(name.removeprefix(prefix))


def by_diffusers_name(name: str) -> str:
    first, dot, rest = name.partition(".")
    return _OFFICIAL_NAMES.get(first, first) + dot + rest


def seems_for(keys: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """`; the file seems to be for X`, or nothing where its keys do not tell."""
    for pattern, model in _OTHER_MODELS.items():
        if any(re.search(pattern, key) for key in keys):
            return f"; the file seems to be for {model}"
    blocks = [int(number[1]) for key in keys if (number := re.search(r"transformer_blocks[._](\d+)[._]", key))]
    widths = {shape[1] for key, shape in shapes.items() if re.search(r"attn1[._]to_q", key) and key.endswith(_A)}
    if 4096 in widths or (blocks and 28 <= max(blocks) < 48):
        return "; the file seems to be for LTX-Video 13B"
    if 2048 in widths:
        return "; the file seems to be for LTX-Video 2B"
    return ""
