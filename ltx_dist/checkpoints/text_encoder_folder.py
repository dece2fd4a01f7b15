"""`model.text_encoder`: T5 and its tokenizer from a folder of their own."""

from __future__ import annotations

from pathlib import Path

TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "spiece.model")


def locate_text_encoder(path: Path) -> dict[str, Path]:
    """The folders of `text_encoder` and `tokenizer`: those below `path`, or `path` itself where T5 lies in it."""
    if not path.is_dir():
        raise ValueError(f"model.text_encoder: {path}: no such folder; give a folder with a T5 encoder and tokenizer")
    encoder = path / "text_encoder" if (path / "text_encoder").is_dir() else path
    tokenizer = path / "tokenizer" if (path / "tokenizer").is_dir() else path
    if not (encoder / "config.json").is_file():
        raise ValueError(f"model.text_encoder: {path}: holds neither text_encoder/ nor config.json; give a T5 folder")
    if not any((tokenizer / name).is_file() for name in TOKENIZER_FILES):
        raise ValueError(f"model.text_encoder: {path}: holds no tokenizer; put its files into {path / 'tokenizer'}")
    return {"text_encoder": encoder, "tokenizer": tokenizer}
