"""Opens T5 and its tokenizer: a checkpoint's own, or those of a separate folder (`model.text_encoder`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.config_checks import read_checked_config
from ltx_dist.checkpoints.tokenizer_folder import SPIECE, TOKENIZER_JSON, require_tokenizer
from ltx_dist.checkpoints.weight_files import GGUF, attempt, measure_weights, what_lies_in

TOKENIZER_FILES = ("tokenizer_config.json", TOKENIZER_JSON, SPIECE)

MODEL_TYPE = "t5"

HUB_EXAMPLE = "Lightricks/LTX-Video"
"""A repository whose text_encoder/ and tokenizer/ are T5 v1.1 XXL's; for a text encoder, nothing else of it is
downloaded."""


def locate_text_encoder(path: Path) -> dict[str, Path]:
    """The folders of `text_encoder` and `tokenizer`: those below `path`, or `path` itself where T5 lies in it.

    Raises ValueError where there is no such folder.
    """
    if path.suffix == ".gguf":
        raise ValueError(f"model.text_encoder: {path}: {GGUF}")
    if path.is_file():
        raise ValueError(
            f"model.text_encoder: {path}: is a file, but T5 needs its config and tokenizer, too; make a folder of "
            "text_encoder/config.json, text_encoder/model.safetensors (the weights, by transformers' key names) and "
            f"tokenizer/spiece.model, or give the name of a repository that has them, such as {HUB_EXAMPLE}"
        )
    if not path.is_dir():
        raise ValueError(
            f"model.text_encoder: {path}: no such folder; give a folder with a T5 encoder and tokenizer, or a name on "
            f"the Hugging Face hub, such as {HUB_EXAMPLE}"
        )
    encoder = path / "text_encoder" if (path / "text_encoder").is_dir() else path
    beside_t5 = encoder == path or any((path / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = path if beside_t5 and not (path / "tokenizer").is_dir() else path / "tokenizer"
    return {"text_encoder": encoder, "tokenizer": tokenizer}


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Facts about T5 before it is loaded. size: bytes and elements of its tensors; config: its config.json."""

    folders: dict[str, Path]
    size: tuple[int, int]
    config: dict[str, Any]


def open_text_encoder(path: Path) -> TextEncoder:
    """T5 and its tokenizer from `model.text_encoder`.

    Raises ValueError, with a line for each thing that is missing or cannot be used.
    """
    problems: list[str] = []
    found = examine_text_encoder(locate_text_encoder(path), problems)
    _refuse(path, problems)
    return found


def require_t5(path: Path) -> None:
    """Raises ValueError as `open_text_encoder` does, for all but the weights, which need not be there."""
    problems: list[str] = []
    _examine_files(locate_text_encoder(path), problems)
    _refuse(path, problems)


def examine_text_encoder(folders: dict[str, Path], problems: list[str]) -> TextEncoder:
    """T5 and its tokenizer in these folders; errors are added to `problems`."""
    config = _examine_files(folders, problems)
    size = attempt(problems, (0, 0), lambda: measure_weights(folders["text_encoder"], "text_encoder"))
    return TextEncoder(folders, size, config)


def _examine_files(folders: dict[str, Path], problems: list[str]) -> dict[str, Any]:
    """T5's config; errors in it and in the tokenizer are added to `problems`."""
    encoder, tokenizer = folders["text_encoder"], folders["tokenizer"]
    config = attempt(problems, {}, lambda: _read_t5_config(encoder / "config.json"))
    vocab_size = config.get("vocab_size")
    known = vocab_size if type(vocab_size) is int else None
    attempt(problems, None, lambda: require_tokenizer(tokenizer, tokenizer.parent / "model_index.json", known))
    return config


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(
            f"model.text_encoder: {path} is not a usable folder of T5 and its tokenizer; complete or replace it:\n"
            f"{lines}"
        )


def width_problem(t5: dict[str, Any], caption_channels: object) -> str | None:
    """The error and its remedy if the transformer cannot take the embeddings of this text encoder."""
    width = t5.get("d_model")
    if width is None or caption_channels is None or width == caption_channels:
        return None
    return (
        f"d_model is {width}, but the transformer was trained on embeddings of {caption_channels}; give the text "
        "encoder it was trained with (T5 v1.1 XXL has 4096)"
    )


def _read_t5_config(path: Path) -> dict[str, Any]:
    if not path.exists() and path.parent.is_dir():
        raise ValueError(f"{path}: missing; {what_lies_in(path.parent)}")
    config = read_checked_config(path)
    if config.get("model_type", MODEL_TYPE) != MODEL_TYPE:
        raise ValueError(f"{path}: model_type: {config['model_type']!r} is not {MODEL_TYPE!r}; give a T5 encoder")
    return config
