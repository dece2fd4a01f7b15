"""T5's tokenizer as it is published: a sentencepiece model, and no tokenizer.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
import tiny

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.weights.loading import load_tokenizer

TEXT = "a red ball rolls over green grass\na blue square moves to the left\nwaves in the evening, slow pan\n" * 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that T5Tokenizer saved when the checkpoints were converted."""
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    (folder / "text.txt").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "tokenizer" / "spiece"), vocab_size=80,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer" / "spiece.vocab").unlink()
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(special))
    config = special | {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 128}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "T5Tokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("prompt", ["a red ball", "Waves, slow!", "grass in the evening"])
def test_it_gives_the_ids_of_the_sentencepiece_model(checkpoint: Path, prompt: str):
    model = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "tokenizer" / "spiece.model"))
    tokenizer = load_tokenizer(open_checkpoint(str(checkpoint)))
    found = tokenizer(prompt, padding="max_length", max_length=32, truncation=True).input_ids
    expected = [*model.encode(prompt), 1]
    assert found == expected + [0] * (32 - len(expected))
