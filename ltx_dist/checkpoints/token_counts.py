"""Counts a text's tokens with a checkpoint's tokenizer, without transformers and torch, in microseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.tokenizer_folder import SPIECE, TOKENIZER_JSON, tokenizer_class_name

TokenCounter = Callable[[str], int]


def token_counter(checkpoint: Checkpoint) -> TokenCounter:
    """A function that counts a text's tokens, the end token included, as the tokenizer's class in transformers would.

    Special tokens that are spelled out in a text, such as </s>, count as the text they are.

    tokenizer.json is read in place of spiece.model where both are there, as transformers does. Raises ValueError for a
    tokenizer of an unsupported class.
    """
    folder = checkpoint.folder("tokenizer")
    if tokenizer_class_name(folder, folder.parent / "model_index.json") == "ByT5Tokenizer":
        return _count_bytes
    if (folder / TOKENIZER_JSON).is_file():
        return _json_counter(folder / TOKENIZER_JSON)
    return _spiece_counter(folder / SPIECE)


def _count_bytes(text: str) -> int:
    return len(text.encode()) + 1


def _spiece_counter(path: Path) -> TokenCounter:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor()
    model.LoadFromSerializedProto(path.read_bytes())
    return lambda text: len(model.EncodeAsIds(text)) + 1


def _json_counter(path: Path) -> TokenCounter:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)
