"""Checks a tokenizer's files without transformers: which class reads them, and whether the vocabulary is complete.

A T5 tokenizer without its vocabulary loads without an error: transformers makes one of some hundred tokens, in which
every word is `<unk>`, so that all prompts give the same clip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ltx_dist.checkpoints.config_checks import refuse_code
from ltx_dist.strict_files import mistaken_for, read_json

PADDING_ROWS = 128
"""T5's embeddings have more rows than there are tokens, up to the next multiple of this: 32,128 for 32,100."""

BYTE_TOKENS = 259
"""ByT5's: 256 bytes and the three special tokens."""

EXTRA_IDS = {"T5Tokenizer": 100, "ByT5Tokenizer": 125}
"""Sentinel tokens that the classes of transformers add unless tokenizer_config.json says another number."""

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "T5Tokenizer": "T5Tokenizer",
        "T5TokenizerFast": "T5Tokenizer",
        "ByT5Tokenizer": "ByT5Tokenizer",
        "PreTrainedTokenizerFast": "PreTrainedTokenizerFast",
        "TokenizersBackend": "PreTrainedTokenizerFast",
        "GemmaTokenizer": "PreTrainedTokenizerFast",
        "GemmaTokenizerFast": "PreTrainedTokenizerFast",
    }
)
"""Names that a checkpoint may give, and the class of transformers that is used. No other name is looked up there."""

SPIECE, TOKENIZER_JSON = "spiece.model", "tokenizer.json"

_VOCABULARIES = {"T5Tokenizer": (SPIECE, TOKENIZER_JSON), "PreTrainedTokenizerFast": (TOKENIZER_JSON,)}
"""The vocabulary files of each class; ByT5's vocabulary is the bytes themselves."""

_JSON_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", TOKENIZER_JSON)


def tokenizer_class_name(folder: Path, model_index: Path) -> str:
    """Name of the transformers class that a tokenizer is loaded with.

    It is what model_index.json names, else the tokenizer's own config, else T5's. Raises ValueError for any class that
    is not one of `CLASSES`.
    """
    config = _read_if_there(folder / "tokenizer_config.json")
    entry = _read_if_there(model_index).get("tokenizer")
    named = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    where = f"{model_index}: tokenizer"
    if named in (None, "AutoTokenizer"):
        named, where = config.get("tokenizer_class"), f"{folder / 'tokenizer_config.json'}: tokenizer_class"
    if named is None:
        return "T5Tokenizer"
    if not isinstance(named, str) or named not in CLASSES:
        raise ValueError(f"{where}: {named!r} is not one of {', '.join(CLASSES)}; give T5's tokenizer")
    return CLASSES[named]


def require_tokenizer(folder: Path, model_index: Path, vocab_size: int | None) -> None:
    """Raises ValueError unless the vocabulary is there, whole, and of the text encoder's `vocab_size` (where known)."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; it holds {SPIECE} (or {TOKENIZER_JSON}) and tokenizer_config.json")
    for name in (*_JSON_FILES, "config.json"):
        refuse_code(folder / name, _read_if_there(folder / name))
    class_name = tokenizer_class_name(folder, model_index)
    counts: dict[str, int] = {}
    for name in _VOCABULARIES.get(class_name, ()):
        if (folder / name).exists():
            counts[name] = _count(folder / name, _sentinels(folder, class_name))
    if class_name in _VOCABULARIES and not counts:
        wanted = " (or ".join(_VOCABULARIES[class_name]) + ")" * (len(_VOCABULARIES[class_name]) - 1)
        raise ValueError(f"{folder}: {wanted} is missing: without it every word is unknown; download all of it again")
    if class_name == "ByT5Tokenizer":
        counts["tokenizer_config.json"] = BYTE_TOKENS + _sentinels(folder, class_name)
    for name, tokens in counts.items():
        if vocab_size is not None:
            require_size(tokens, vocab_size, str(folder / name))


def require_size(tokens: int, vocab_size: int, label: str) -> None:
    """Raises ValueError unless a tokenizer with this many tokens fits a text encoder with `vocab_size` embeddings."""
    if not vocab_size - PADDING_ROWS < tokens <= vocab_size:
        raise ValueError(
            f"{label}: a vocabulary of {tokens} tokens, where the text encoder has {vocab_size}; "
            "give the tokenizer that belongs to it"
        )


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _sentinels(folder: Path, class_name: str) -> int:
    """Number of tokens `<extra_id_N>`. A config that transformers 5 saved says 0 and lists them instead."""
    file = folder / "tokenizer_config.json"
    config = _read_if_there(file)
    given, added = config.get("extra_ids", EXTRA_IDS.get(class_name, 0)), config.get("added_tokens_decoder")
    if type(given) is not int or given < 0:
        raise ValueError(f"{file}: extra_ids: {given!r} is not a whole number of 0 or more")
    listed = added.values() if isinstance(added, dict) else ()
    return max(given, sum("<extra_id_" in str(token) for token in listed))


def _count(path: Path, sentinels: int) -> int:
    return _count_json(path) if path.name == TOKENIZER_JSON else _count_spiece(path) + sentinels


def _count_spiece(path: Path) -> int:
    """The tokens of a sentencepiece model, to which the tokenizer's class adds the sentinels."""
    from sentencepiece import SentencePieceProcessor

    if mistake := _mistaken(path):
        raise ValueError(f"{path}: {mistake}")
    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a sentencepiece model ({error}); download it again") from None
    return model.GetPieceSize()


def _count_json(path: Path) -> int:
    """The tokens of tokenizer.json: those of its model, and the added ones, which may be among them."""
    document = read_json(path)
    model, added = document.get("model"), document.get("added_tokens", [])
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    try:
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary or ()))
        return max((*ids, *(token["id"] for token in added)), default=-1) + 1
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a tokenizer ({json.dumps(str(error))}); download it again") from None


def _mistaken(path: Path) -> str | None:
    if not path.is_file():
        return "not a file; download it again"
    with path.open("rb") as file:
        return mistaken_for(file.read(64))
