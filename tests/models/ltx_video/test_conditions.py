"""Clips from images and videos, and in two passes: the stages give the bits of diffusers' own pipelines.

The monolith is what a user of diffusers would write, with the same generator in all calls for a clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import av
import diffusers
import numpy as np
import PIL.Image
import pytest
import tiny
import torch
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from oracle import make_request

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.media.sources import open_media
from ltx_dist.media.video_in import read_frames
from ltx_dist.models.family import StageContext, family_of
from ltx_dist.models.ltx_video.encode_image import EncodeImage
from ltx_dist.models.ltx_video.recipes import RECIPE
from ltx_dist.pipeline.conditions import Condition, SecondPass
from ltx_dist.pipeline.payloads import Conditioning, EncodedMedia, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]
FRAMES = 33


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Media:
    """Files in one folder: pictures of other sizes than the clip's, and a video of 33 frames."""

    folder: Path

    def image(self, number: int, **changes: Any) -> Condition:
        place = str(self.folder / f"{number}.png")
        return Condition(place, open_media(place).sha256, fit="stretch", **changes)

    def video(self, **changes: Any) -> Condition:
        place = str(self.folder / "video.mp4")
        return Condition(place, open_media(place).sha256, is_video=True, fit="stretch", **changes)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    folder = tmp_path_factory.mktemp("media")
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 255, (50 + 10 * number, 100, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(FRAMES):
            pixels = np.kron(random.integers(0, 255, (8, 12, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return Media(folder)


@dataclass(frozen=True)
class Parts:
    """A tiny checkpoint, its networks in one precision, and embeddings of a prompt."""

    checkpoint: Checkpoint
    vae: Any
    transformer: Any
    upsampler: Any
    text: Conditioning
    dtype: torch.dtype

    def pipeline(self, pipeline_class: type[Any]) -> Any:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(self.checkpoint.path / "scheduler")
        pipeline = pipeline_class(
            scheduler=scheduler, vae=self.vae, text_encoder=None, tokenizer=None, transformer=self.transformer
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def stages(self, request: RenderRequest) -> dict[str, Any]:
        """Each stage's output for the request, by stage name; for `decode`, the frames."""
        family = family_of(self.checkpoint)
        made: dict[str, Any] = {"encode_text": self.text}
        for stage in (family.recipe[name] for name in family.recipe.of(request)):
            if stage.name in made or stage.runs_on == "host":
                continue
            modules = {
                name: family.load_component(name, self.checkpoint, self.dtype, PLAIN, CPU) for name in stage.components
            }
            operation = family.operation(stage.operation)(modules, self.checkpoint, CPU, self.dtype)
            steps: list[int] = []
            inputs = {name: made[name] for name in stage.inputs if name in made}
            with torch.inference_mode():
                (output,) = operation.run([request], [inputs], StageContext(stage, steps.append))
                made[stage.name] = np.stack(list(output.frames)) if stage.name == "decode" else output
            assert steps == list(range(1, attrgetter(stage.steps)(request) + 1 if stage.steps else 1))
        return made


def make_parts(folder: Path, version: str, pipeline_class: str, dtype: torch.dtype) -> Parts:
    tiny.save_checkpoint(folder, version, pipeline_class)
    vae: Any = diffusers.AutoencoderKLLTXVideo.from_pretrained(folder / "vae", dtype=dtype)
    transformer = diffusers.LTXVideoTransformer3DModel.from_pretrained(folder / "transformer", dtype=dtype)
    upscaler = tiny.save_upscaler(folder.parent / "upscaler")
    upsampler: Any = LTXLatentUpsamplerModel.from_pretrained(upscaler, dtype=dtype).eval()
    torch.manual_seed(4)
    shape = (1, 16, tiny.CAPTION_CHANNELS)
    mask = torch.ones(1, 16, dtype=torch.bool)
    text = Conditioning(torch.randn(shape).to(dtype), mask, torch.randn(shape).to(dtype), mask)
    return Parts(open_checkpoint(str(folder), upscaler=str(upscaler)), vae, transformer, upsampler, text, dtype)


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """0.9.5 and later."""
    return make_parts(tmp_path_factory.mktemp("tiny") / "model", "0.9.5", "LTXConditionPipeline", request.param)


def monolith(parts: Parts, request: RenderRequest, output_type: str = "latent") -> tuple[Any, torch.Tensor]:
    """What diffusers makes of a request with one or two passes, and the state of its generator afterwards."""
    generator = torch.Generator("cpu").manual_seed(request.seed)
    pipeline = parts.pipeline(diffusers.LTXConditionPipeline)
    height, width = request.first_size
    latents = None
    if request.video:
        upsampling = diffusers.LTXLatentUpsamplePipeline(vae=parts.vae, latent_upsampler=None)
        frames = pipeline.video_processor.preprocess_video(frames_of(request.video), height, width)
        latents = upsampling.prepare_latents(frames, dtype=torch.float32, device=CPU, generator=generator)
    two = request.second_pass
    shared = {
        "conditions": [as_diffusers(condition) for condition in request.conditions] or None,
        "prompt_embeds": parts.text.prompt_embeds,
        "prompt_attention_mask": parts.text.prompt_attention_mask,
        "negative_prompt_embeds": parts.text.negative_prompt_embeds,
        "negative_prompt_attention_mask": parts.text.negative_prompt_attention_mask,
        "num_frames": request.num_frames, "frame_rate": request.frame_rate, "generator": generator,
        "decode_timestep": request.decode_timestep, "decode_noise_scale": request.decode_noise_scale,
        "return_dict": False,
    }  # fmt: skip
    result = pipeline(
        height=height, width=width, num_inference_steps=request.num_inference_steps, timesteps=request.timesteps,
        guidance_scale=request.guidance_scale, guidance_rescale=request.guidance_rescale,
        image_cond_noise_scale=request.image_cond_noise_scale, denoise_strength=request.denoise_strength,
        latents=latents, output_type="latent" if two else output_type, **shared,
    )[0]  # fmt: skip
    if two:
        upsampling = diffusers.LTXLatentUpsamplePipeline(vae=parts.vae, latent_upsampler=parts.upsampler)
        upsampled = upsampling(
            latents=result, adain_factor=two.adain_factor, output_type="latent", return_dict=False,
            tone_map_compression_ratio=two.tone_map_compression_ratio if two.tone_map_at == "upsample" else 0.0,
        )[0]  # fmt: skip
        own_steps = two.timesteps is not None
        result = pipeline(
            height=2 * height, width=2 * width, latents=upsampled,
            num_inference_steps=4 if own_steps else two.num_inference_steps,
            timesteps=[1000.0, *two.timesteps] if two.timesteps else None,
            denoise_strength=0.75 if own_steps else two.denoise_strength,
            guidance_scale=two.guidance_scale, guidance_rescale=two.guidance_rescale,
            image_cond_noise_scale=two.image_cond_noise_scale, output_type=output_type, **shared,
        )[0]  # fmt: skip
    return result, generator.get_state()


def as_diffusers(condition: Condition) -> LTXVideoCondition:
    where = {"frame_index": condition.frame_index, "strength": condition.strength}
    if condition.is_video:
        return LTXVideoCondition(video=frames_of(condition), **where)
    return LTXVideoCondition(image=PIL.Image.open(condition.place), **where)


def frames_of(condition: Condition) -> list[PIL.Image.Image]:
    return list(read_frames(Path(condition.place), condition.start_frame, condition.num_frames))


def clip(**changes: Any) -> RenderRequest:
    return make_request("clip", **({"num_frames": FRAMES, "num_inference_steps": 4} | changes))


CASES = {
    "image at 0": lambda media: {"conditions": (media.image(0),)},
    "weak image at 0": lambda media: {"conditions": (media.image(0, strength=0.6),)},
    "no noise on conditions": lambda media: {"conditions": (media.image(0),), "image_cond_noise_scale": 0.0},
    "keyframes": lambda media: {
        "conditions": (media.image(0), media.image(1, frame_index=13, strength=0.7), media.image(2, frame_index=24))
    },
    "last frame": lambda media: {"conditions": (media.image(3, frame_index=FRAMES - 1),)},
    "video prefix": lambda media: {"conditions": (media.video(num_frames=17, start_frame=3),)},
    "video later": lambda media: {"conditions": (media.video(num_frames=25, frame_index=8, strength=0.9),)},
    "image and video": lambda media: {
        "conditions": (media.video(num_frames=9, frame_index=16), media.image(0), media.image(1, frame_index=32)),
        "guidance_scale": 1.0,
    },
    "video to video": lambda media: {"video": media.video(num_frames=FRAMES), "denoise_strength": 0.5},
    "video to video with an image": lambda media: {
        "video": media.video(num_frames=FRAMES), "denoise_strength": 0.75, "conditions": (media.image(0),),
        "timesteps": (1000.0, 900.0, 700.0, 300.0),
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_media_condition_a_clip_as_in_diffusers(parts: Parts, media: Media, case: str):
    request = clip(**CASES[case](media))
    expected, state = monolith(parts, request)
    made = parts.stages(request)
    latents: Latents = made["denoise"]
    assert torch.equal(latents.latents, expected.float())
    assert torch.equal(latents.generator_state, state)
    frames, _ = monolith(parts, request, "np")
    assert np.array_equal(made["decode"], (frames[0] * 255).round().astype(np.uint8))
    without = replace(request, conditions=(), video=None, denoise_strength=1.0)
    assert not torch.equal(latents.latents, monolith(parts, without)[0].float()), "the media matter"


TWO = SecondPass(
    first_height=64, first_width=96, num_inference_steps=3, timesteps=(909.4, 725.0, 421.9), denoise_strength=1.0,
    guidance_scale=1.0, guidance_rescale=0.0, image_cond_noise_scale=0.15,
)  # fmt: skip
TWO_PASSES = {
    "as published": TWO,
    "with guidance": replace(TWO, guidance_scale=3.0, guidance_rescale=0.7),
    "part of a schedule": replace(TWO, timesteps=None, num_inference_steps=10, denoise_strength=0.4),
    "without adain": replace(TWO, adain_factor=0.0),
    "tone mapped between": replace(TWO, tone_map_compression_ratio=0.6, tone_map_at="upsample"),
}


@pytest.mark.parametrize("case", TWO_PASSES)
@pytest.mark.parametrize("with_media", [False, True], ids=["text only", "with media"])
def test_two_passes_are_three_calls_of_diffusers(parts: Parts, media: Media, case: str, with_media: bool):
    conditions = (media.image(0), media.video(num_frames=9, frame_index=16)) if with_media else ()
    request = clip(second_pass=TWO_PASSES[case], height=96, width=128, conditions=conditions)
    expected, state = monolith(parts, request)
    made = parts.stages(request)
    refined: Latents = made["refine"]
    assert refined.latents.shape[-2:] == (4, 6) and refined.latents.dtype == torch.float32
    assert torch.equal(refined.latents, expected.float())
    assert torch.equal(refined.generator_state, state)
    frames = torch.from_numpy(monolith(parts, request, "np")[0][0]).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(frames, (96, 128), mode="bilinear", align_corners=False)
    assert np.array_equal(made["decode"], (scaled * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def test_a_clip_of_the_second_passes_size_is_not_scaled(parts: Parts):
    request = clip(second_pass=TWO, height=128, width=192, num_frames=9)
    frames, _ = monolith(parts, request, "np")
    assert np.array_equal(parts.stages(request)["decode"], (frames[0] * 255).round().astype(np.uint8))


@pytest.mark.parametrize("with_image", [False, True], ids=["text only", "with an image"])
def test_a_second_pass_follows_a_first_of_the_older_pipelines(tmp_path: Path, media: Media, with_image: bool):
    """As for the packaged model: the first pass has a shifted schedule of LTXPipeline, and the second has exactly the
    given timesteps."""
    parts = make_parts(tmp_path / "model", "0.9.5", "LTXPipeline", torch.float32)
    schedule = parts.checkpoint.path / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps(json.loads(schedule.read_text()) | {"shift": 4.0}))
    request = clip(second_pass=TWO, height=128, width=192, conditions=(media.image(0),) if with_image else ())
    generator = torch.Generator("cpu").manual_seed(request.seed)
    image = PIL.Image.open(media.image(0).place)
    shared = {
        "prompt_embeds": parts.text.prompt_embeds,
        "prompt_attention_mask": parts.text.prompt_attention_mask,
        "negative_prompt_embeds": parts.text.negative_prompt_embeds,
        "negative_prompt_attention_mask": parts.text.negative_prompt_attention_mask,
        "num_frames": FRAMES, "frame_rate": 25.0, "generator": generator, "output_type": "latent", "return_dict": False,
    }  # fmt: skip
    first = parts.pipeline(diffusers.LTXImageToVideoPipeline if with_image else diffusers.LTXPipeline)
    (made,) = first(height=64, width=96, num_inference_steps=4, **({"image": image} if with_image else {}), **shared)
    upsampling = diffusers.LTXLatentUpsamplePipeline(vae=parts.vae, latent_upsampler=parts.upsampler)
    (upsampled,) = upsampling(
        latents=first._unpack_latents(made, 5, 2, 3), adain_factor=TWO.adain_factor, output_type="latent",
        return_dict=False,
    )  # fmt: skip
    second = parts.pipeline(diffusers.LTXConditionPipeline)
    second.register_modules(scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    (expected,) = second(
        height=128, width=192, latents=upsampled, timesteps=[1000.0, 909.4, 725.0, 421.9], num_inference_steps=4,
        denoise_strength=0.75, guidance_scale=TWO.guidance_scale, image_cond_noise_scale=TWO.image_cond_noise_scale,
        conditions=[LTXVideoCondition(image=image)] if with_image else None, **shared,
    )  # fmt: skip
    refined: Latents = parts.stages(request)["refine"]
    assert torch.equal(refined.latents, expected)
    assert torch.equal(refined.generator_state, generator.get_state())


def test_highlights_are_pressed_down_before_decoding(parts: Parts):
    """The order of Lightricks' LTXMultiScalePipeline: decode noise, tone mapping of normalised latents, decoder."""
    two = replace(TWO, tone_map_compression_ratio=0.6, tone_map_at="decode")
    request = clip(second_pass=two, height=128, width=192, num_frames=9)
    latents, state = monolith(parts, request)
    generator = torch.Generator("cpu")
    generator.set_state(state)
    vae, pipeline = parts.vae, diffusers.LTXLatentUpsamplePipeline
    samples = pipeline._denormalize_latents(latents, vae.latents_mean, vae.latents_std, 1.0).to(parts.dtype)
    noise = torch.randn(samples.shape, generator=generator, dtype=parts.dtype)
    scale = torch.tensor([0.025], dtype=parts.dtype)
    noised = (1 - scale) * samples + scale * noise
    mapped = parts.pipeline(diffusers.LTXConditionPipeline)._normalize_latents(
        noised, vae.latents_mean, vae.latents_std
    )
    factor = 1.0 - 0.8 * (0.6 * 0.75) * torch.sigmoid(4.0 * (0.6 * 0.75) * (mapped.abs() - 1.0))
    mapped = pipeline._denormalize_latents(mapped * factor, vae.latents_mean, vae.latents_std, 1.0)
    with torch.inference_mode():
        decoded = vae.decode(mapped, torch.tensor([0.05], dtype=parts.dtype), return_dict=False)[0]
    expected = ((decoded[0] / 2 + 0.5).clamp(0, 1).float() * 255).round().to(torch.uint8).permute(1, 2, 3, 0)
    frames = parts.stages(request)["decode"]
    assert np.array_equal(frames, expected.numpy())
    assert not np.array_equal(frames, parts.stages(replace(request, second_pass=TWO))["decode"])


@pytest.fixture(scope="module", params=[(v, d) for v in ("0.9.0", "0.9.1", "0.9.5") for d in DTYPES], ids=str)
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Versions that diffusers renders with LTXPipeline can begin with an image, but have no other conditions."""
    version, dtype = request.param
    return make_parts(tmp_path_factory.mktemp("tiny") / "model", version, "LTXPipeline", dtype)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_an_image_begins_a_clip_of_older_versions(older: Parts, media: Media, guidance_scale: float):
    request = clip(conditions=(media.image(0),), guidance_scale=guidance_scale)

    def monolith(output_type: str) -> tuple[Any, torch.Tensor]:
        generator = torch.Generator("cpu").manual_seed(request.seed)
        torch.manual_seed(request.seed)  # 0.9.1's decoder draws from the global generator
        made = older.pipeline(diffusers.LTXImageToVideoPipeline)(
            image=PIL.Image.open(request.conditions[0].place), height=64, width=96, num_frames=FRAMES,
            frame_rate=25.0, num_inference_steps=4, guidance_scale=guidance_scale, generator=generator,
            prompt_embeds=older.text.prompt_embeds, prompt_attention_mask=older.text.prompt_attention_mask,
            negative_prompt_embeds=older.text.negative_prompt_embeds,
            negative_prompt_attention_mask=older.text.negative_prompt_attention_mask,
            decode_timestep=request.decode_timestep, decode_noise_scale=request.decode_noise_scale,
            output_type=output_type, return_dict=False,
        )[0]  # fmt: skip
        return made, generator.get_state()

    expected, state = monolith("latent")
    made = older.stages(request)
    latents: Latents = made["denoise"]
    assert torch.equal(latents.latents.permute(0, 2, 3, 4, 1).reshape(1, -1, tiny.LATENT_CHANNELS), expected.float())
    assert torch.equal(latents.generator_state, state)
    frames, _ = monolith("np")
    assert np.array_equal(made["decode"], (frames[0] * 255).round().astype(np.uint8))


def test_what_travels_is_half_of_the_posterior(parts: Parts, media: Media):
    request = clip(conditions=(media.image(0), media.video(num_frames=17)), second_pass=TWO)
    encoded: EncodedMedia = parts.stages(replace(request, num_inference_steps=1))["encode_image"]
    channels = tiny.LATENT_CHANNELS + 1
    assert [tuple(one.shape) for one in encoded.seen] == [(1, channels, 1, 2, 3), (1, channels, 3, 2, 3)]
    assert [tuple(one.shape) for one in encoded.refined] == [(1, channels, 1, 4, 6), (1, channels, 3, 4, 6)]
    assert {one.dtype for one in encoded.seen} == {parts.dtype}
    assert all(one.untyped_storage().nbytes() == one.nbytes for one in encoded.seen), "and nothing beside it"


@pytest.fixture
def counted(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """The shapes of everything that the VAE encodes."""
    shapes: list[torch.Size] = []
    encode = parts.vae.encode
    monkeypatch.setattr(parts.vae, "encode", lambda pixels: (shapes.append(pixels.shape), encode(pixels))[1])
    yield shapes


def test_a_picture_of_many_clips_is_encoded_once(parts: Parts, media: Media, counted: list[torch.Size]):
    requests = [clip(conditions=(media.image(0, frame_index=8 * number),), seed=number) for number in range(4)]
    operation = EncodeImage({"vae_encoder": parts.vae}, parts.checkpoint, CPU, parts.dtype)
    outputs = [operation.run([request], [{}], StageContext(RECIPE["encode_image"]))[0] for request in requests]
    assert len(counted) == 1
    assert all(torch.equal(output.seen[0], outputs[0].seen[0]) for output in outputs)
    operation.run(
        [clip(conditions=(media.image(0, crf=20, preprocess="official"),))], [{}], StageContext(RECIPE["encode_image"])
    )
    assert len(counted) == 2, "prepared otherwise it is another picture"


def test_the_official_preparation_reaches_the_vae(parts: Parts, media: Media):
    plain, official = (
        parts.stages(clip(conditions=(media.image(0, **how),), num_inference_steps=1))["encode_image"].seen[0]
        for how in ({}, {"preprocess": "official", "crf": 29, "blur": True})
    )
    assert not torch.equal(plain, official)


def test_media_that_changed_since_they_were_planned_are_refused(parts: Parts, media: Media, tmp_path: Path):
    place = tmp_path / "a.png"
    place.write_bytes(Path(media.image(0).place).read_bytes())
    condition = replace(media.image(0), place=str(place))
    place.write_bytes(Path(media.image(1).place).read_bytes())
    with pytest.raises(ValueError, match="changed since it was first read"):
        parts.stages(clip(conditions=(condition,)))


def seen_by(parts: Parts, request: RenderRequest, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The hidden states that the transformer is given in each step, (rows, tokens, channels)."""
    seen: list[torch.Tensor] = []
    forward = diffusers.LTXVideoTransformer3DModel.forward

    def noted(self: Any, hidden_states: torch.Tensor, **rest: Any) -> Any:
        seen.append(hidden_states.clone())
        return forward(self, hidden_states=hidden_states, **rest)

    monkeypatch.setattr(diffusers.LTXVideoTransformer3DModel, "forward", noted)
    parts.stages(request)
    return seen


def test_keyframes_are_tokens_of_their_own(parts: Parts, media: Media, monkeypatch: pytest.MonkeyPatch):
    """The first of three images replaces a latent frame; the others are added, and nothing is replaced in place."""
    frames = (0, 16, 32)
    conditions = tuple(media.image(number, frame_index=frame) for number, frame in enumerate(frames))
    first, *_ = seen_by(parts, clip(conditions=conditions, num_inference_steps=1), monkeypatch)
    assert first.shape[1] == (5 + 2) * 2 * 3


def test_a_source_is_noised_to_the_first_sigma_that_runs(
    parts: Parts, media: Media, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    request = clip(
        video=media.video(num_frames=FRAMES), denoise_strength=0.5, timesteps=(1000.0, 900.0, 700.0, 300.0),
        guidance_scale=1.0,
    )  # fmt: skip
    first, *later = seen_by(parts, request, monkeypatch)
    generator = torch.Generator("cpu").manual_seed(request.seed)
    pipeline = parts.pipeline(diffusers.LTXConditionPipeline)
    assert request.video is not None
    pixels = pipeline.video_processor.preprocess_video(frames_of(request.video), 64, 96)
    upsampling = diffusers.LTXLatentUpsamplePipeline(vae=parts.vae, latent_upsampler=None)
    source = upsampling.prepare_latents(pixels, dtype=torch.float32, device=CPU, generator=generator)
    sigma = torch.tensor([0.7])
    noise = torch.randn(source.shape, generator=generator)
    noised = pipeline._pack_latents(sigma * noise + (1 - sigma) * source)
    assert torch.equal(first, noised.to(parts.dtype)) and len(later) == 1


def test_compression_and_noise_are_fields(parts: Parts, media: Media):
    made = [
        parts.stages(
            clip(
                conditions=(media.image(0, preprocess="official", crf=crf),), image_cond_noise_scale=scale,
                num_inference_steps=1,
            )
        )["denoise"].sha256()
        for crf in (0, 35) for scale in (0.0, 0.15)
    ]  # fmt: skip
    assert len(set(made)) == 4
