"""Prompt -> Conditioning, by the `encode_prompt` of the checkpoint's own diffusers pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.stages.loading import load_text_encoder, load_tokenizer, pipeline_class
from ltx_dist.types import PLAIN, Conditioning, RenderRequest, Storage

CACHED_NEGATIVE_PROMPTS = 16
"""Embeddings kept in host memory; a batch has one negative prompt, or a few."""


class TextEncoder:
    """T5 and its tokenizer, in a pipeline that has neither transformer nor VAE."""

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, storage: Storage = PLAIN
    ) -> None:
        self.module = load_text_encoder(checkpoint, dtype, storage.text_encoder, device)
        self._device = device
        self._pipeline = pipeline_class(checkpoint)(
            scheduler=None, vae=None, text_encoder=self.module, tokenizer=load_tokenizer(checkpoint), transformer=None
        )
        self._encode_negative = lru_cache(CACHED_NEGATIVE_PROMPTS)(self._encode)

    @property
    def blocks(self) -> Sequence[torch.nn.Module]:
        """What it can be streamed in."""
        return self.module.encoder.block

    def encode(self, request: RenderRequest) -> Conditioning:
        """Embeddings on the CPU. The two prompts are two passes, as in diffusers; the negative one is remembered."""
        embeds, mask = self._encode(request.prompt, request.max_sequence_length)
        if not request.do_classifier_free_guidance:
            return Conditioning(embeds, mask, None, None)
        return Conditioning(embeds, mask, *self._encode_negative(request.negative_prompt, request.max_sequence_length))

    def _encode(self, text: str, max_sequence_length: int) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, mask, _, _ = self._pipeline.encode_prompt(
            text, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length, device=self._device
        )
        return embeds.cpu(), mask.cpu()
