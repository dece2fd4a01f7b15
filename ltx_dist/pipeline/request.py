"""The request for one clip, with every setting resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from ltx_dist.pipeline.conditions import Condition, Lora, SecondPass, Windows, steps_of
from ltx_dist.pipeline.settings import setting
from ltx_dist.pipeline.sound import SoundSecondPass, SoundSettings

MAX_SEED = 2**63 - 1
MAX_TOKENS = 1024
"""The maximum of Gemma, LTX-2's text encoder; T5 takes fewer (inputs/prompt_row.py)."""


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One clip to make, every setting resolved. Field names and meanings are those of diffusers' LTX pipelines.

    `request_id` is also the file name without its ending. Sizes are pixels; `height` and `width` are multiples of
    the VAE's spatial compression and of 32; `num_frames` is k times its temporal compression plus 1. `timesteps` is a
    custom schedule, `num_inference_steps` long and decreasing from at most 1000; None leaves it to diffusers.
    `video`: the video that the clip begins as, in place of pure noise; only the last `denoise_strength` (a share) of
    the steps runs. `reference`: a video as long as the clip that the transformer sees beside it, which IC-LoRAs are
    trained to follow. `second_pass`: None renders in one pass at full size. `windows`: None denoises all frames at
    once; else `prompt` is the prompts of its windows, joined by ` | `. `loras`: their order affects low bits. `sound`:
    settings for LTX-2.x, which makes sound; None for other models.

    A field with `metadata=setting(...)` is a key of prompt rows under the same name. The other fields are resolved from
    rows.
    """

    request_id: str
    prompt: str = field(
        metadata=setting(
            "what the clip shows; at most 8 KiB, not empty, no control characters; line breaks become spaces",
            only_rows=True,
            other_names="text caption description prompts prompt_en prompt_text text_prompt positive positive_prompt "
            "refined_prompt long_caption input",
        )
    )
    negative_prompt: str = field(
        metadata=setting(
            "what the clip should not show; used if `guidance_scale` (LTX-2: or `audio_guidance_scale`) is above 1; "
            "like `prompt`, but may be empty",
            other_names="negative neg neg_prompt n_prompt negative_prompts negative_text uncond_prompt",
        )
    )
    # libx264 refuses to open above 16384 pixels a side (tried with PyAV 18.1: 16384 x 16 encodes, 16400 x 16 does not).
    # An hour of frames is far beyond what any LTX-Video was trained for.
    height: int = field(
        metadata=setting(
            "height of the clip in pixels; a multiple of 32 and of the VAE's spatial ratio (32)",
            ge=1,
            le=16384,
            other_names="h video_height image_height",
        )
    )
    width: int = field(
        metadata=setting(
            "width of the clip in pixels; see `height`", ge=1, le=16384, other_names="w video_width image_width"
        ),
    )
    num_frames: int = field(
        metadata=setting(
            "length of the clip in frames: 8k + 1 (4k + 1 for the demo model), as the VAE's temporal ratio requires",
            ge=1,
            le=100_000,
            other_names="frames frame_count video_length length n_frames frame_num video_frames number_of_frames "
            "duration seconds duration_seconds",
        )
    )
    frame_rate: float = field(
        metadata=setting(
            "frames per second; also an input of the model",
            gt=0,
            le=240,
            other_names="fps force_fps output_fps framerate frames_per_second",
        )
    )
    num_inference_steps: int = field(
        metadata=setting(
            "denoising steps",
            ge=1,
            le=1000,
            other_names="steps num_steps step n_steps sampling_steps sample_steps inference_steps num_sampling_steps "
            "denoising_steps infer_steps",
        )
    )
    guidance_scale: float = field(
        metadata=setting(
            "strength of classifier-free guidance; at 1 or below it is off, and a clip takes half the time",
            ge=0,
            other_names="cfg cfg_scale guidance scale guide_scale text_guidance_scale cfg_weight",
        )
    )
    guidance_rescale: float = field(
        metadata=setting(
            "reduces overexposure caused by guidance",
            ge=0,
            le=1,
            other_names="cfg_rescale rescale rescale_scale rescaling_scale",
        )
    )
    seed: int = field(
        metadata=setting(
            "seed of the clip's noise; if not set, `defaults.seed` + position, counted from 0",
            ge=0,
            le=MAX_SEED,
            only_rows=True,
            other_names="noise_seed random_seed seeds rng_seed generator",
        )
    )
    decode_timestep: float = field(
        metadata=setting("timestep (noise level) given to the VAE's decoder, if it takes one", ge=0, le=1),
    )
    decode_noise_scale: float | None = field(
        metadata=setting(
            "noise mixed into the latents before decoding; if not set, equal to `decode_timestep`",
            ge=0,
            le=1,
            other_names="image_cond_noise_scale_decode decode_noise",
        )
    )
    max_sequence_length: int = field(
        metadata=setting(
            "maximum number of the text encoder's tokens (512 for T5); longer prompts are cut off",
            ge=1,
            le=MAX_TOKENS,
            other_names="max_length max_tokens max_prompt_length tokenizer_max_length",
        )
    )
    timesteps: tuple[float, ...] | None = field(
        default=None,
        metadata=setting(
            "a schedule that replaces `num_inference_steps`: decreasing numbers, from at most 1000; only for "
            "checkpoints of `LTXConditionPipeline`"
        ),
    )
    conditions: tuple[Condition, ...] = ()
    image_cond_noise_scale: float = field(
        default=0.15,
        metadata=setting("noise added to conditions of `strength` 1; more noise gives more motion", ge=0, le=1),
    )
    video: Condition | None = None
    denoise_strength: float = field(
        default=1.0,
        metadata=setting(
            "share of the denoising schedule that `video` goes through; lower values keep more of the video",
            gt=0,
            le=1,
            only_rows=True,
            other_names="denoise denoising_strength strength",
        ),
    )
    reference: Condition | None = None
    second_pass: SecondPass | SoundSecondPass | None = None
    windows: Windows | None = None
    loras: tuple[Lora, ...] = ()
    sound: SoundSettings | None = None

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the negative prompt is encoded and used at all, in any pass (diffusers' own rule, which considers
        sound and video)."""
        guided = self.guidance_scale > 1.0 or (self.sound is not None and self.sound.audio_guidance_scale > 1.0)
        return guided or (isinstance(self.second_pass, SecondPass) and self.second_pass.guidance_scale > 1.0)

    @property
    def used_negative_prompt(self) -> str | None:
        """The negative prompt; None where no pass is guided by it."""
        return self.negative_prompt if self.do_classifier_free_guidance else None

    @property
    def num_steps(self) -> int:
        """Number of steps that the first pass runs, over all of its windows."""
        steps = steps_of(self.num_inference_steps, self.denoise_strength)
        return steps * (len(self.windows.prompts) if self.windows else 1)

    @property
    def has_media(self) -> bool:
        """Whether the VAE has anything to encode."""
        return bool(self.seen) or self.video is not None

    @property
    def has_own_pass(self) -> bool:
        """Whether it never shares a pass of the transformer, because it has media or windows."""
        return self.has_media or self.windows is not None

    @property
    def seen(self) -> tuple[Condition, ...]:
        """The media that every step of the transformer sees, each at the size of its pass: the conditions and, after
        them, the reference."""
        return (*self.conditions, self.reference) if self.reference else self.conditions

    @property
    def all_loras(self) -> tuple[Lora, ...]:
        """The LoRAs of the first pass, and those that the second adds."""
        of_second = self.second_pass.loras if isinstance(self.second_pass, SoundSecondPass) else ()
        return self.loras + of_second

    @property
    def loras_of_passes(self) -> tuple[tuple[Lora, ...], ...]:
        """The LoRAs of each denoising pass, in order."""
        return (self.loras,) if self.second_pass is None else (self.loras, self.all_loras)

    @property
    def first_size(self) -> tuple[int, int]:
        """Height and width, in pixels, that the first pass denoises."""
        two = self.second_pass
        return (two.first_height, two.first_width) if two else (self.height, self.width)

    @property
    def decoded_size(self) -> tuple[int, int]:
        """Height and width, in pixels, that the VAE decodes; the frames are then scaled to `height` and `width`."""
        two = self.second_pass
        return (two.height, two.width) if two else (self.height, self.width)
