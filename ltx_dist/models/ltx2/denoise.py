"""Text and images to latents of video and sound: the `__call__` of diffusers' LTX-2 pipelines, with stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import diffusers
import PIL.Image
import torch

from ltx_dist.models.finite import check_finite
from ltx_dist.models.ltx2.passes import PassSettings, passes
from ltx_dist.models.ltx2.stand_ins import AudioVae, Connectors, FirstFrameVae, VideoVae
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import ConditionLatents, ConnectedText, SoundLatents
from ltx_dist.pipeline.sound import latent_index
from ltx_dist.weights.lora import use_loras

if TYPE_CHECKING:
    from ltx_dist.checkpoints.checkpoint import Checkpoint
    from ltx_dist.models.family import StageContext
    from ltx_dist.pipeline.request import RenderRequest

UNSHIFTED = {"use_dynamic_shifting": False, "shift_terminal": None}
"""Config of a noise scheduler that uses given sigmas unchanged; with any other config it would shift them again."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a second pass starts from, on the device.

    latents: (1, C, F, H, W) in the upsampler's dtype, not normalised. audio_latents: as in SoundLatents.
    """

    latents: torch.Tensor
    audio_latents: torch.Tensor


class Denoise:
    """The first, or only, pass."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._denoiser = Denoiser(components["transformer"], checkpoint, device, dtype)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[SoundLatents]:
        """Latents of each request on the CPU, one clip after another."""
        return [self._run(request, given, context) for request, given in zip(requests, inputs, strict=True)]

    def _run(self, request: RenderRequest, given: Mapping[str, Any], context: StageContext) -> SoundLatents:
        images: ConditionLatents | None = given.get("encode_image")
        return self._denoiser.denoise(
            request,
            0,
            given["encode_text"],
            () if images is None else images.first,
            torch.Generator("cpu").manual_seed(request.seed),
            context.on_step,
        )


class Denoiser:
    """The transformer in pipelines without text encoder and VAEs; shared by both passes."""

    def __init__(self, transformer: Any, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self._transformer = transformer
        self._checkpoint = checkpoint
        self._device = device
        self._vae = VideoVae(checkpoint, device, dtype)
        # The sound's VAE is loaded in float32, whatever the model's dtype (load.py).
        self._audio_vae = AudioVae(checkpoint, device, torch.float32)
        self._dtype = dtype

    @property
    def vae(self) -> VideoVae:
        return self._vae

    def denoise(
        self,
        request: RenderRequest,
        index: int,
        text: ConnectedText,
        encoded: Sequence[torch.Tensor],
        generator: torch.Generator,
        on_step: Callable[[int], None],
        start: Start | None = None,
    ) -> SoundLatents:
        """Latents of the clip, on the CPU.

        index: 0 for the first pass, 1 for the second. encoded: the latents of each condition for this pass.
        on_step: called with the number of steps done. generator: on the CPU, so that the noise does not depend on the
        device; it is advanced.
        """
        settings = passes(request)[index]
        use_loras(self._transformer, settings.loras)
        seen: list[torch.Tensor] = []

        def after_step(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            seen[:] = [tensors["latents"]]
            on_step(step + 1)
            return {}

        pipeline, arguments = self._pipeline(request, index, text, [latents.to(self._device) for latents in encoded])
        if start is not None:
            arguments |= {"latents": start.latents, "audio_latents": start.audio_latents}
        # The condition pipeline scales its noise by noise_scale even without latents; then the other two ignore it.
        arguments["noise_scale"] = settings.noise_scale
        embeds_dtype = getattr(torch, text.embeds_dtype)
        # One element is enough: the connectors' stand-in ignores the embeddings, and only their dtype is read.
        unused = torch.empty(1, 1, 1, dtype=embeds_dtype, device=self._device)
        mask = torch.ones(1, 1, dtype=torch.int64, device=self._device)
        if settings.guidance.is_classifier_free:
            arguments |= {"negative_prompt_embeds": unused, "negative_prompt_attention_mask": mask}
        _, audio_latents = pipeline(
            height=settings.height,
            width=settings.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
            num_inference_steps=settings.num_inference_steps,
            sigmas=None if settings.sigmas is None else list(settings.sigmas),
            prompt_embeds=unused,
            prompt_attention_mask=mask,
            generator=generator,
            use_cross_timestep=uses_cross_timestep(self._transformer),
            output_type="latent",
            return_dict=False,
            callback_on_step_end=after_step,
            callback_on_step_end_tensor_inputs=["latents"],
            **settings.guidance.arguments(),
            **arguments,
        )
        latents = self._unpacked(pipeline, seen[0], request, settings).float().cpu()
        audio_latents = audio_latents.float().cpu()
        check_finite(latents, "the latents are", self._dtype, "model.precision")
        check_finite(audio_latents, "the sound's latents are", self._dtype, "model.precision")
        return SoundLatents(
            latents=latents,
            audio_latents=audio_latents,
            generator_state=generator.get_state(),
            embeds_dtype=text.embeds_dtype,
        )

    def _pipeline(
        self, request: RenderRequest, index: int, text: ConnectedText, encoded: list[torch.Tensor]
    ) -> tuple[Any, dict[str, Any]]:
        """The pipeline for this kind of clip, and the arguments of its call besides those common to all pipelines.

        A new pipeline each time, because a noise scheduler remembers its step.
        """
        settings, pipeline_class = passes(request)[index], pipeline_class_of(request)
        vae: Any = self._vae
        arguments: dict[str, Any] = {}
        if pipeline_class is diffusers.LTX2ImageToVideoPipeline:
            vae = FirstFrameVae(self._checkpoint, self._device, self._dtype, encoded)
            arguments = {"image": PIL.Image.new("RGB", (settings.width, settings.height)), "image_crf": 0}
        pipeline = partial_pipeline(
            pipeline_class,
            scheduler=self._noise_scheduler(settings),
            vae=vae,
            audio_vae=self._audio_vae,
            connectors=Connectors(self._connected(text, index)),
            transformer=self._transformer,
        )
        if pipeline_class is diffusers.LTX2ConditionPipeline:
            ratio = self._vae.temporal_compression_ratio
            at = [latent_index(one.frame_index, request.num_frames, ratio) for one in request.conditions]
            strengths = [one.strength for one in request.conditions]
            frames = [(latents.shape[2] - 1) * ratio + 1 for latents in encoded]
            pipeline.preprocess_conditions = lambda *_, **__: (encoded, strengths, at, frames)
            arguments = {"conditions": []}
        return pipeline, arguments

    def _noise_scheduler(self, settings: PassSettings) -> Any:
        folder = self._checkpoint.folder("scheduler")
        scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder, local_files_only=True)
        if settings.sigmas is None:
            return scheduler
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(scheduler.config, **UNSHIFTED)

    def _connected(self, text: ConnectedText, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        which = text.of_pass[index]
        video, audio, mask = text.video[which], text.audio[which], text.mask[which]
        return video.to(self._device), audio.to(self._device), mask.to(self._device)

    def _unpacked(
        self, pipeline: Any, latents: torch.Tensor, request: RenderRequest, settings: PassSettings
    ) -> torch.Tensor:
        """The packed latents as (1, C, F, H, W), without the tokens that keyframes added at the end."""
        frames = (request.num_frames - 1) // self._vae.temporal_compression_ratio + 1
        height = settings.height // self._vae.spatial_compression_ratio
        width = settings.width // self._vae.spatial_compression_ratio
        patches = pipeline.transformer_spatial_patch_size, pipeline.transformer_temporal_patch_size
        tokens = frames * height * width // (patches[0] ** 2 * patches[1])
        return pipeline._unpack_latents(latents[:, :tokens], frames, height, width, *patches)


def pipeline_class_of(request: RenderRequest) -> type[diffusers.DiffusionPipeline]:
    """diffusers' pipeline class for the clip; it depends only on the clip's conditions."""
    if not request.conditions:
        return diffusers.LTX2Pipeline
    if is_first_frame(request):
        return diffusers.LTX2ImageToVideoPipeline
    return diffusers.LTX2ConditionPipeline


def is_first_frame(request: RenderRequest) -> bool:
    """Whether the clip is conditioned only on its first frame, at full strength."""
    if len(request.conditions) != 1:
        return False
    (only,) = request.conditions
    return not only.is_video and only.frame_index == 0 and only.strength == 1.0


def uses_cross_timestep(transformer: Any) -> bool:
    """Whether each modality's noise level modulates the other's cross-attention; true from 2.3 on."""
    return bool(transformer.config.cross_attn_mod)
