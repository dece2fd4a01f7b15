"""Prompt -> Conditioning, by the `encode_prompt` of the checkpoint's own diffusers pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.pipeline.payloads import Conditioning
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, Storage
from ltx_dist.weights.loading import load_text_encoder, load_tokenizer, pipeline_class

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
        self._encode_negative = lru_cache(CACHED_NEGATIVE_PROMPTS)(self._encode_one)

    @property
    def blocks(self) -> Sequence[torch.nn.Module]:
        """What it can be streamed in."""
        return self.module.encoder.block

    def encode(self, requests: Sequence[RenderRequest]) -> list[Conditioning]:
        """Embeddings of each on the CPU. Their prompts, padded to one length, share a pass.

        The negative prompt is a pass of its own, as in diffusers, and remembered.
        """
        embeds, mask = self._encode([request.prompt for request in requests], requests[0].max_sequence_length)
        return [
            Conditioning(embeds[row : row + 1].clone(), mask[row : row + 1].clone(), *self._negative(request))
            for row, request in enumerate(requests)
        ]

    def _negative(self, request: RenderRequest) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if not request.do_classifier_free_guidance:
            return None, None
        return self._encode_negative(request.negative_prompt, request.max_sequence_length)

    def _encode_one(self, text: str, max_sequence_length: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._encode([text], max_sequence_length)

    def _encode(self, texts: list[str], max_sequence_length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(texts, max_sequence_length, caption_channels) and (texts, max_sequence_length)."""
        embeds, mask, _, _ = self._pipeline.encode_prompt(
            texts, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length, device=self._device
        )
        return embeds.cpu(), mask.cpu()
