"""Prompt -> Conditioning, by the `encode_prompt` of the checkpoint's own diffusers pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import StageContext
from ltx_dist.models.finite import check_finite
from ltx_dist.models.ltx_video.load import load_tokenizer
from ltx_dist.pipeline.payloads import Conditioning
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.weights.loading import pipeline_class

CACHED_NEGATIVE_PROMPTS = 16
"""Embeddings kept in host memory; a batch has one negative prompt, or a few."""


class EncodeText:
    """T5 and its tokenizer, in a pipeline that has neither transformer nor VAE."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._device = device
        self._pipeline: Any = pipeline_class(checkpoint)(
            scheduler=None,
            vae=None,
            text_encoder=components["text_encoder"],
            tokenizer=load_tokenizer(checkpoint),
            transformer=None,
        )
        self._encode_negative = lru_cache(CACHED_NEGATIVE_PROMPTS)(self._encode_one)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[Conditioning]:
        """Embeddings of each request on the CPU. Their prompts, padded to one length, share a pass.

        The negative prompt has a pass of its own, as in diffusers, and is remembered.
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
        """(texts, max_sequence_length, caption_channels) and (texts, max_sequence_length), on the CPU."""
        embeds, mask, _, _ = self._pipeline.encode_prompt(
            texts, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length, device=self._device
        )
        embeds = embeds.cpu()
        check_finite(embeds, "the text embeddings are", embeds.dtype, "model.precision")
        return embeds, mask.cpu()
