"""T5's tokenizer as it is published: a sentencepiece model, and no tokenizer.json."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
import tiny

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.models.ltx_video.load import load_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")
    tiny.save_t5_tokenizer(folder)
    return folder


@pytest.mark.parametrize("prompt", ["a red ball", "Waves, slow!", "grass in the evening"])
def test_it_gives_the_ids_of_the_sentencepiece_model(checkpoint: Path, prompt: str):
    model = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "tokenizer" / "spiece.model"))
    tokenizer = load_tokenizer(open_checkpoint(str(checkpoint)))
    found = tokenizer(prompt, padding="max_length", max_length=32, truncation=True).input_ids
    expected = [*model.encode(prompt), 1]
    assert found == expected + [0] * (32 - len(expected))
