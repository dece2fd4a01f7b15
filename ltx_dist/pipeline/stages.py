"""The stages of LTX-Video, in order."""

from __future__ import annotations

from enum import StrEnum


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
