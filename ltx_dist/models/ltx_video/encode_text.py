"""Encodes prompts by the `encode_prompt` of the checkpoint's own diffusers pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import diffusers
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import StageContext
from ltx_dist.models.finite import check_finite
from ltx_dist.models.ltx_video.load import load_tokenizer
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import Conditioning
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.weights.loading import pipeline_class

REMEMBERED_PROMPTS = 16
"""Number of embeddings kept in host memory; a batch has one negative prompt, or a few."""


class EncodeText:
    """T5 and its tokenizer, in a pipeline without transformer and VAE."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._device, self._tokenizer = device, load_tokenizer(checkpoint)
        self._pipeline = self._pipeline_of(pipeline_class(checkpoint), components["text_encoder"])
        self._windowed = self._pipeline_of(
            diffusers.LTXI2VLongMultiPromptPipeline,
            components["text_encoder"],
            diffusers.LTXEulerAncestralRFScheduler(),  # without one it warns
        )
        self._remembered = lru_cache(REMEMBERED_PROMPTS)(self._encode)

    def _pipeline_of(self, chosen: Any, text_encoder: Any, scheduler: Any = None) -> Any:
        return partial_pipeline(chosen, scheduler=scheduler, text_encoder=text_encoder, tokenizer=self._tokenizer)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[Conditioning]:
        """Embeddings of each request on the CPU. Their prompts, padded to one length, are encoded in one pass.

        The negative prompt, as in diffusers, and each prompt of a long clip are encoded separately and cached.
        """
        if requests[0].windows:
            return [self._of_windows(request) for request in requests]
        prompts = tuple(request.prompt for request in requests)
        embeds, mask = self._encode(prompts, requests[0].max_sequence_length)
        return [
            Conditioning(embeds[row : row + 1].clone(), mask[row : row + 1].clone(), *self._negative(request))
            for row, request in enumerate(requests)
        ]

    def _of_windows(self, request: RenderRequest) -> Conditioning:
        """The embeddings of a long clip, one row for each of its distinct prompts."""
        assert request.windows is not None, request.request_id
        limit = request.max_sequence_length
        pairs = [self._remembered((prompt,), limit, True) for prompt in request.windows.distinct_prompts]
        embeds, masks = zip(*pairs, strict=True)
        return Conditioning(torch.cat(embeds), torch.cat(masks), *self._negative(request))

    def _negative(self, request: RenderRequest) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if not request.do_classifier_free_guidance:
            return None, None
        return self._remembered((request.negative_prompt,), request.max_sequence_length, request.windows is not None)

    def _encode(
        self, texts: tuple[str, ...], max_sequence_length: int, in_windows: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (texts, max_sequence_length, caption_channels) and mask (texts, max_sequence_length), on the CPU.

        in_windows: encode by the pipeline for long clips, which does not pass the mask to T5.
        """
        pipeline = self._windowed if in_windows else self._pipeline
        embeds, mask, _, _ = pipeline.encode_prompt(
            list(texts), do_classifier_free_guidance=False, max_sequence_length=max_sequence_length, device=self._device
        )
        embeds = embeds.cpu()
        check_finite(embeds, "the text embeddings are", embeds.dtype, "model.precision")
        return embeds, mask.cpu()
