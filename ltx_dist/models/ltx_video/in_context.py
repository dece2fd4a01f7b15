"""In-context conditioning: the transformer sees a reference video beside the clip, as IC-LoRAs are trained for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import retrieve_latents


class InContextPipeline(diffusers.LTXConditionPipeline):
    """LTXConditionPipeline whose last condition is a reference video, as long as the clip and at full strength.

    diffusers has no such pipeline for LTX-Video. This one does what the pipeline of
    github.com/Lightricks/LTX-Video-Trainer (commit 31b1273) does with its `reference_video`: the reference's latents
    come before those of other conditions and of the clip, at the same places in time and space as the clip's, and its
    posterior's sample is drawn after all of theirs. The rest of the call is diffusers'.
    """

    def prepare_latents(
        self,
        conditions: Sequence[torch.Tensor],
        condition_strength: list[float],
        condition_frame_index: list[int],
        **settings: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Tokens (1, S, C), how far each is fixed (1, S), their coordinates in time and space (1, 3, S), and the number
        of tokens that are not the clip's."""
        *others, reference = conditions
        latents, mask, places, num_extra = super().prepare_latents(
            others, condition_strength[:-1], condition_frame_index[:-1], **settings
        )
        device, generator = settings["device"], settings["generator"]
        sample = retrieve_latents(self.vae.encode(reference), generator=generator)
        sample = self._normalize_latents(sample, self.vae.latents_mean, self.vae.latents_std)
        sample = sample.to(device, dtype=settings["dtype"])
        sizes = self.transformer_spatial_patch_size, self.transformer_temporal_patch_size
        tokens = self._pack_latents(sample, *sizes)
        _, _, frames, height, width = sample.shape
        own_places = self._scale_video_ids(
            self._prepare_video_ids(1, frames, height, width, *sizes, device=device),
            self.vae_spatial_compression_ratio,
            self.vae_temporal_compression_ratio,
            0,
            device,
        )
        fixed = torch.ones(tokens.shape[:2], device=device)
        free = torch.zeros(latents.shape[:2], device=device) if mask is None else mask
        return (
            torch.cat([tokens, latents], dim=1),
            torch.cat([fixed, free], dim=1),
            torch.cat([own_places, places], dim=2),
            num_extra + tokens.shape[1],
        )
