"""Text encoder training: every token learns to tell what the whole caption says.

The encoder is trained on captions alone, by linear classifiers on each token (thrown away
afterwards), and then stays fixed. Learning the meaning of words through the denoiser's loss would
take far longer.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import T5EncoderModel

from .captions import MAX_SEQUENCE_LENGTH, fill, random_template, said
from .clips import BACKGROUNDS, COLORS, DIRECTIONS, SHAPES, Scene, split_scenes
from .common import Trainer, autocast
from .models import TEXT_WIDTH, build_text_encoder, build_tokenizer

BATCH = 48
LEARNING_RATE = 1e-3
WARMUP = 50
AVERAGE_DECAY = 0.99
SAVE_EVERY = 100
_VALUES = (tuple(COLORS), SHAPES, tuple(DIRECTIONS), tuple(BACKGROUNDS))


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids, mask), padded as the rendering pipeline pads them."""
    tokens = build_tokenizer()(
        texts,
        padding="max_length",
        max_length=MAX_SEQUENCE_LENGTH,
        truncation=True,
        return_tensors="pt",
    )
    return tokens.input_ids, tokens.attention_mask


def _labels(template: str, scene: Scene) -> list[int]:
    """Class of each attribute; 0 stands for one that the caption leaves unsaid."""
    values = (scene.color, scene.shape, scene.direction, scene.background)
    return [
        1 + names.index(value) if mentioned else 0
        for names, value, mentioned in zip(_VALUES, values, said(template), strict=True)
    ]


def _sample(scenes: list[Scene], rng: random.Random, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(token ids, mask, labels) of random captions."""
    texts, labels = [], []
    for scene in rng.choices(scenes, k=count):
        template = random_template(rng)
        texts.append(fill(template, scene, rng))
        labels.append(_labels(template, scene))
    return *tokenize(texts), torch.tensor(labels)


class _Heads(nn.Module):
    """Linear classifiers of the four attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(TEXT_WIDTH, 1 + len(names)) for names in _VALUES)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(cross entropy averaged over tokens, share of tokens that tell all four right)."""
        tokens = hidden[mask.bool()]
        targets = labels[:, None].expand(-1, mask.size(1), -1)[mask.bool()]
        loss = tokens.new_zeros(())
        right = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        for index, layer in enumerate(self.layers):
            logits = layer(tokens).float()
            loss = loss + functional.cross_entropy(logits, targets[:, index])
            right &= logits.argmax(-1) == targets[:, index]
        return loss, right.float().mean()


def _right(encoder: T5EncoderModel, heads: _Heads, scenes: list[Scene], seed: int) -> float:
    """Share of the tokens of captions of `scenes` that tell all four attributes."""
    sample = _sample(scenes, random.Random(seed), 192)
    ids, mask, labels = (value.to(encoder.device) for value in sample)
    with torch.no_grad():
        _, right = heads(encoder(ids).last_hidden_state, mask, labels)
    return float(right)


def train_text_encoder(work: Path, steps: int, device: torch.device, seed: int) -> T5EncoderModel:
    """The trained text encoder; continues from the checkpoint in `work`."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"encoder": build_text_encoder(), "heads": _Heads()}).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    trainer = Trainer(work / "text.pt", model, [optimizer], steps, WARMUP, AVERAGE_DECAY, seed)
    train, held_out = split_scenes()
    parts: Any = model
    encoder, heads = parts["encoder"], parts["heads"]
    while trainer.step < steps:
        trainer.begin()
        sample = _sample(train, random.Random(f"text {seed} {trainer.step}"), BATCH)
        ids, mask, labels = (value.to(device) for value in sample)
        with autocast(device):
            loss, _ = heads(encoder(ids).last_hidden_state, mask, labels)
        trainer.finish(loss)
        if trainer.due(SAVE_EVERY):
            trainer.save()
            print(
                f"text {trainer.step}/{steps} {trainer.seconds:.0f}s loss {loss:.4f} "
                f"held-out tokens right {_right(encoder, heads, held_out, seed):.4f}",
                flush=True,
            )
    trainer.average.copy_to(model)
    return encoder.eval().requires_grad_(False)
