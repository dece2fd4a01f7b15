"""Names that other programs give to settings that we have under diffusers' name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_OURS: Mapping[str, tuple[str, ...]] = {
    "num_inference_steps": (
        "steps", "num_steps", "step", "n_steps", "sampling_steps", "sample_steps", "inference_steps",
        "num_sampling_steps", "denoising_steps", "infer_steps",
    ),
    "guidance_scale": ("cfg", "cfg_scale", "guidance", "scale", "guide_scale", "text_guidance_scale", "cfg_weight"),
    "guidance_rescale": ("cfg_rescale", "rescale", "rescale_scale", "rescaling_scale"),
    "frame_rate": ("fps", "force_fps", "output_fps", "framerate", "frames_per_second"),
    "num_frames": (
        "frames", "frame_count", "video_length", "length", "n_frames", "frame_num", "video_frames", "number_of_frames",
        "duration", "seconds", "duration_seconds",
    ),
    "height and width": ("resolution", "size", "dimensions", "image_size", "video_size", "aspect_ratio", "target_size"),
    "height": ("h", "video_height", "image_height"),
    "width": ("w", "video_width", "image_width"),
    "prompt": (
        "text", "caption", "description", "prompts", "prompt_en", "prompt_text", "text_prompt", "positive",
        "positive_prompt", "refined_prompt", "long_caption", "input",
    ),
    "negative_prompt": (
        "negative", "neg", "neg_prompt", "n_prompt", "negative_prompts", "negative_text", "uncond_prompt",
    ),
    "name": ("id", "filename", "file_name", "file", "output", "output_name", "output_path", "title", "video_name"),
    "seed": ("noise_seed", "random_seed", "seeds", "rng_seed", "generator"),
    "max_sequence_length": ("max_length", "max_tokens", "max_prompt_length", "tokenizer_max_length"),
    "decode_noise_scale": ("image_cond_noise_scale_decode", "decode_noise"),
}  # fmt: skip
_OF_OTHERS = {name: ours for ours, names in _OURS.items() for name in names}

_HOW: Mapping[str, str] = {
    "duration": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "seconds": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "duration_seconds": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "resolution": " in pixels",
    "aspect_ratio": " in pixels",
}
"""What to know beside the name."""


def is_other_name(key: str) -> bool:
    """Whether some other program has a setting of this name that we have too."""
    return _normalised(key) in _OF_OTHERS


def meant(key: str, known: Iterable[str]) -> str | None:
    """The known keys that another program's key stands for, with how to convert its value; None if there are none.

    `known` may be dotted (`defaults.width`): then so is the answer.
    """
    other = _normalised(key.rpartition(".")[2])
    ours = _OF_OTHERS.get(other)
    full = {name.rpartition(".")[2]: name for name in known}
    if ours is None or not all(name in full for name in ours.split(" and ")):
        return None
    return " and ".join(full[name] for name in ours.split(" and ")) + _HOW.get(other, "")


def _normalised(key: str) -> str:
    return key.strip().lower().replace("-", "_").replace(" ", "_")
