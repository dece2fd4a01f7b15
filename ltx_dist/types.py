"""The nouns that cross rooms. Tensors appear only as annotations: importing this loads no torch.

Only small things travel between workers: text embeddings (2-4 MB), latents (3-9 MB), one mp4 (1-5 MB).
Decoded frames (120-660 MB) stay in the worker that decodes them, so there is no type for them here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


class Stage(StrEnum):
    """One of the three models in a row, in the order of the pipeline, and then the mp4, which needs none.

    ENCODE_VIDEO is a stage of its own only where a worker has `video_slots`: x264 then works on the worker's host while
    its device goes on with other clips. Elsewhere it is the end of DECODE.
    """

    ENCODE_TEXT = "encode_text"
    DENOISE = "denoise"
    DECODE = "decode"
    ENCODE_VIDEO = "encode_video"

    @property
    def following(self) -> Stage | None:
        """The stage whose queue this one's output goes to; None after the last that has a queue."""
        return _FOLLOWING.get(self)


_FOLLOWING = {Stage.ENCODE_TEXT: Stage.DENOISE, Stage.DENOISE: Stage.DECODE}

STAGES: tuple[Stage, ...] = (Stage.ENCODE_TEXT, Stage.DENOISE, Stage.DECODE)
"""The stages that need a device: those that workers host and that requests queue for."""

COMPONENT_OF_STAGE: dict[Stage, str] = {
    Stage.ENCODE_TEXT: "text_encoder",
    Stage.DENOISE: "transformer",
    Stage.DECODE: "vae",
}
"""The diffusers component whose weights a stage needs on its device."""


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One clip to make, every setting resolved. Field names and meanings are those of diffusers' LTX pipelines.

    `request_id` is also the file name without its ending. Sizes are pixels; `height` and `width` are multiples of
    the VAE's spatial compression and of 32; `num_frames` is k times its temporal compression plus 1. `timesteps` is a
    schedule of its own, `num_inference_steps` long and falling from at most 1000; None leaves it to diffusers.
    """

    request_id: str
    prompt: str
    negative_prompt: str
    height: int
    width: int
    num_frames: int
    frame_rate: float
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    seed: int
    decode_timestep: float
    decode_noise_scale: float | None
    max_sequence_length: int
    timesteps: tuple[float, ...] | None = None

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the negative prompt is encoded and used at all (diffusers' own rule)."""
        return self.guidance_scale > 1.0


@dataclass(frozen=True, slots=True)
class DecodeTiling:
    """In which pieces the VAE decodes a clip: at most so many pixels high and wide, and so many frames long.

    None: not cut that way. Pieces overlap and are blended, so the pixels differ from those of another tiling: one is
    resolved for a whole batch, whichever worker decodes.
    """

    tile_size: int | None = None
    tile_frames: int | None = None

    def of(self, height: int, width: int, num_frames: int, temporal_ratio: int) -> DecodeTiling:
        """What it comes to for a clip: one that is no larger than a tile is not cut, and its pixels do not tell.

        temporal_ratio: frames a latent frame of the VAE.
        """
        latent_frames = (num_frames - 1) // temporal_ratio + 1
        cuts_space = self.tile_size is not None and max(height, width) > self.tile_size
        cuts_time = self.tile_frames is not None and latent_frames > self.tile_frames // temporal_ratio
        return DecodeTiling(self.tile_size if cuts_space else None, self.tile_frames if cuts_time else None)


UNTILED = DecodeTiling()

TILE_OVERLAP_PIXELS = 64
TILE_OVERLAP_FRAMES = 8
"""How far two tiles overlap, where they are blended: two latent pixels as in diffusers' defaults, one latent frame."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How weights lie on the device where not in the model's precision: each changes the pixels.

    transformer: `float8` keeps linear layers in 8 bits, cast up as they are used. text_encoder: its linear layers.
    vae: its own precision, in which it also computes; `same` where that is the model's. It does not decide the latents.
    """

    transformer: Literal["same", "float8"] = "same"
    text_encoder: Literal["none", "int8", "int4"] = "none"
    vae: Literal["same", "float32", "bfloat16", "float16"] = "same"

    def vae_precision(self, precision: str) -> str:
        """The VAE's, where the model's is `precision`."""
        return precision if self.vae == "same" else self.vae


PLAIN = Storage()


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the text encoder hands on.

    prompt_embeds: (1, max_sequence_length, caption_channels) in the text encoder's dtype.
    prompt_attention_mask: (1, max_sequence_length) bool. The negative pair is None without guidance.
    """

    prompt_embeds: torch.Tensor
    prompt_attention_mask: torch.Tensor
    negative_prompt_embeds: torch.Tensor | None
    negative_prompt_attention_mask: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Latents:
    """What the transformer hands on.

    latents: (1, C, F, H, W) float32, normalised (diffusers' `output_type="latent"`, unpacked).
    generator_state: (5056,) uint8, the clip's CPU generator after it drew the initial noise: the decode noise of
        timestep-conditioned VAEs is its next draw, so the state travels, not the seed.
    embeds_dtype: name of the text embeddings' dtype, to which diffusers casts the latents before decoding.
    """

    latents: torch.Tensor
    generator_state: torch.Tensor
    embeds_dtype: str


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """What the VAE worker hands on: a finished mp4 and the digest of the frames it was made from.

    frames_sha256 is over the uint8 RGB frames in T,H,W,3 order.
    """

    mp4: bytes
    num_frames: int
    height: int
    width: int
    frames_sha256: str
    mp4_sha256: str


StageOutput = Conditioning | Latents | EncodedVideo


@dataclass(frozen=True, slots=True)
class Assignment:
    """One stage on one worker, in one pass: of one request, or of several alike that share it.

    The unit the scheduler decides and an executor runs.
    """

    request_ids: tuple[str, ...]
    stage: Stage
    worker_id: str

    @property
    def parts(self) -> tuple[Assignment, ...]:
        """The same a request each: how a pass ends that is not over for all of its requests in the same way."""
        return tuple(replace(self, request_ids=(request_id,)) for request_id in self.request_ids)

    @property
    def clips(self) -> str:
        """Its requests in words: `a`, or `a and 3 more`."""
        first, *others = self.request_ids
        return f"{first} and {len(others)} more" if others else first


class Failure(StrEnum):
    """How an assignment ended that did not end well. What follows from it is decided in `execution/failures.py`.

    ERROR: the stage raised, and the worker is as good as before. CRASH: its worker died, or its device raises at every
    call since, while it ran. HANG: nothing moved for too long, so the worker was ended. QUEUED: its worker died before
    it began. NODE_LOST: its worker went with its node, or was preempted. INPUT_LOST: what the stage needed, or made,
    was on a node that is gone. All but ERROR and INPUT_LOST take the worker with them.
    """

    ERROR = "error"
    CRASH = "crash"
    HANG = "hang"
    QUEUED = "queued"
    NODE_LOST = "node_lost"
    INPUT_LOST = "input_lost"


@dataclass(frozen=True, slots=True)
class StageReport:
    """What a worker says of an assignment it ran; small, so it always travels to the driver.

    seconds: in the stage itself, on the worker's monotonic clock; of all its requests together. load_seconds: weights
        read or moved before it. latents_sha256: of each request, in their order, where the stage has latents.
    peak_bytes: device memory at its highest during the stage; None where the device does not count (CPU).
    rung: what it took after there was no memory for the stage as planned (execution/ladder.py); None if there was.
    device_lost: the error has left the worker's device unusable, so the worker must not be given anything again.
    """

    seconds: float
    load_seconds: float = 0.0
    error: str | None = None
    latents_sha256: tuple[str, ...] = ()
    peak_bytes: int | None = None
    device_lost: bool = False
    rung: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """An assignment that ended. Times are seconds since the batch started, on the driver's clock.

    `failure` is None if it ended well; else `error` says what happened. `video` is set by the last stage only:
    ENCODE_VIDEO, or DECODE where that makes the mp4, too.
    submitted: when it was given to its worker; None where that is when it started.
    """

    assignment: Assignment
    started: float
    finished: float
    report: StageReport
    failure: Failure | None = None
    video: EncodedVideo | None = None
    submitted: float | None = None

    @property
    def error(self) -> str | None:
        return self.report.error

    @property
    def worker_lost(self) -> bool:
        return self.failure not in (None, Failure.ERROR, Failure.INPUT_LOST)


@dataclass(frozen=True, slots=True)
class RenderResult:
    """The one terminal result of a request: its video, or the error that ended it."""

    request: RenderRequest
    status: Literal["done", "failed"]
    completions: tuple[Completion, ...]
    video: EncodedVideo | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker is doing now, for people to watch. `stage` is None while it waits.

    request_ids: those that share what it does. step of num_steps: denoising steps done; 0 of 0 in the other stages.
    is_loading: it reads or moves the stage's weights.
    components: those whose weights are on the device. memory_bytes: what the worker has allocated on its device; on a
    CPU the memory of its process; None where nobody counts.
    """

    worker_id: str
    stage: Stage | None = None
    request_ids: tuple[str, ...] = ()
    step: int = 0
    num_steps: int = 0
    components: tuple[str, ...] = ()
    memory_bytes: int | None = None
    is_loading: bool = False
