"""Encodes prompts to ConnectedText: Gemma and the connectors in one stage.

Gemma returns the hidden states of all its layers, 385 MB for a prompt of 1,024 tokens. The connectors' output is 30
times smaller, so that is what is sent to other workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import diffusers
import torch

from ltx_dist.models.ltx2.load import load_tokenizer
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import ConnectedText
from ltx_dist.weights.lora import adapter_name, loaded_loras, use_loras

if TYPE_CHECKING:
    from ltx_dist.checkpoints.checkpoint import Checkpoint
    from ltx_dist.models.family import StageContext
    from ltx_dist.pipeline.conditions import Lora
    from ltx_dist.pipeline.request import RenderRequest

CACHED_NEGATIVE_PROMPTS = 2
"""Number of negative prompts whose hidden states are kept in host memory, 385 MB each; a batch has one, or a few. The
connectors' output cannot be kept instead, because it depends on the prompt and the negative prompt together."""

States = tuple[torch.Tensor, torch.Tensor]
Connected = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class EncodeText:
    """The text encoder, its tokenizer and the connectors, in a pipeline without other components."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._device = device
        self._connectors = components["connectors"]
        self._pipeline = partial_pipeline(
            diffusers.LTX2Pipeline, text_encoder=components["text_encoder"], tokenizer=load_tokenizer(checkpoint)
        )
        self._negative = lru_cache(CACHED_NEGATIVE_PROMPTS)(self._encode)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[ConnectedText]:
        """The connectors' output for each prompt, on the CPU, one prompt after another."""
        return [self._run(request) for request in requests]

    def _run(self, request: RenderRequest) -> ConnectedText:
        prompt = self._encode(request.prompt, request.max_sequence_length)
        # A second pass is not guided.
        guided = [request.used_negative_prompt is not None, False]
        wanted = [
            (is_guided, self._in_connectors(loras))
            for is_guided, loras in zip(guided, request.loras_of_passes, strict=False)
        ]
        different = list(dict.fromkeys(wanted))
        made = [self._text(request, prompt, guided, loras) for guided, loras in different]
        video, audio, mask = zip(*made, strict=True)
        of_pass = tuple(map(different.index, wanted))
        return ConnectedText(video, audio, mask, of_pass, str(prompt[0].dtype).removeprefix("torch."))

    def _in_connectors(self, loras: Sequence[Lora]) -> tuple[Lora, ...]:
        """The LoRAs that change the connectors; most change only the transformer."""
        return tuple(lora for lora in loras if adapter_name(lora.sha256) in loaded_loras(self._connectors))

    def _text(self, request: RenderRequest, prompt: States, guided: bool, loras: Sequence[Lora]) -> Connected:
        use_loras(self._connectors, loras)
        if not guided:
            return self._connect(*prompt)
        negative = self._negative(request.negative_prompt, request.max_sequence_length)
        return self._connect(torch.cat([negative[0], prompt[0]]), torch.cat([negative[1], prompt[1]]))

    def _encode(self, text: str, max_sequence_length: int) -> States:
        """(1, S, layers x width) and (1, S) on the CPU."""
        states, mask, _, _ = self._pipeline.encode_prompt(
            text, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length, device=self._device
        )
        return states.cpu(), mask.cpu()

    def _connect(self, states: torch.Tensor, mask: torch.Tensor) -> Connected:
        made = self._connectors(
            states.to(self._device), mask.to(self._device), padding_side=self._pipeline.tokenizer.padding_side
        )
        video, audio, seen = (tensor.cpu() for tensor in made)
        return video, audio, seen
