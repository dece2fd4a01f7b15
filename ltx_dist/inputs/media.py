"""The media of a row -> Conditions. Files are found, opened, measured and hashed, each of them once per batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.media_rows import OFFICIAL_CRF, ConditionRow, Preparation
from ltx_dist.inputs.preset import TAKES_TIMESTEPS
from ltx_dist.inputs.sound import latent_start
from ltx_dist.media.checks import aspect_warning, frame_index_problem, frame_rate_warning, video_length_problem
from ltx_dist.media.sources import MediaFile, open_media, resolve_place
from ltx_dist.pipeline.conditions import Condition, steps_of

_OF_ROW = tuple(Preparation.model_fields)

FIELDS = ("image", "conditions", "video", "denoise_strength", "reference", *_OF_ROW)
"""The media fields of a row."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Facts about a media file. frame_rate: a video's, if known. num_frames: counted up to the number needed."""

    file: MediaFile
    width: int
    height: int
    num_frames: int = 1
    frame_rate: float | None = None


class MediaResolver:
    """Resolves the media of rows. folder: a path or URL that paths in rows are relative to.

    problems and warnings: the last row's, each with the field that it is about.
    """

    def __init__(self, folder: Path | str, checkpoint: Checkpoint) -> None:
        self.problems: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self._folder, self._checkpoint = folder, checkpoint
        self._known: dict[tuple[str, bool, int], Picture | str] = {}

    def resolve(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a request that hold media, from a row whose fields are valid by themselves."""
        self.problems, self.warnings = [], []
        asked = [("image", ConditionRow(image=row["image"]))] if row.get("image") else []
        asked += [(f"conditions: [{index}]", one) for index, one in enumerate(row.get("conditions") or ())]
        conditions = [self._condition(field, one, row) for field, one in asked]
        resolved: dict[str, Any] = {"conditions": tuple(one for one in conditions if one is not None)}
        if row.get("video"):
            resolved["video"] = self._whole("video", row)
        if row.get("reference"):
            resolved["reference"] = self._whole("reference", row)
        if row.get("denoise_strength") is not None:
            resolved["denoise_strength"] = row["denoise_strength"]
        self._check_strength(row)
        self._check_pipeline(asked, row)
        return resolved

    def _condition(self, field: str, one: ConditionRow, row: Mapping[str, Any]) -> Condition | None:
        is_video = one.video is not None
        field = f"{field}.{'video' if is_video else 'image'}" if field != "image" else field
        ratio, clip_frames = self._checkpoint.temporal_compression_ratio, row["num_frames"]
        if self._checkpoint.generation:
            index, problem = latent_start(one.frame_index, clip_frames, ratio)
        else:
            problem = frame_index_problem(one.frame_index, clip_frames, is_video, ratio)
            index = clip_frames - 1 if one.frame_index == -1 else one.frame_index
        if problem:
            self.problems.append((field.rpartition(".")[0] or field, f"frame_index: {problem}"))
            return None
        limit = one.start_frame + max(one.num_frames or 0, clip_frames + 1)
        picture = self._open(field, one.video or one.image or "", is_video, limit)
        if picture is None:
            return None
        if is_video and (
            problem := video_length_problem(
                picture.num_frames, one.start_frame, one.num_frames, index, clip_frames, ratio
            )
        ):
            self.problems.append((field, f"{picture.file.place}: {problem}"))
            return None
        settings = self._preparation(field, one, row)
        self._warn(field, picture, row, settings["fit"])
        return Condition(
            place=picture.file.place,
            sha256=picture.file.sha256,
            is_video=is_video,
            frame_index=index,
            strength=one.strength,
            start_frame=one.start_frame,
            num_frames=(one.num_frames or picture.num_frames - one.start_frame) if is_video else 1,
            **settings,
        )

    def _whole(self, field: str, row: Mapping[str, Any]) -> Condition | None:
        """A video of the clip's length: its first frames, as many as the clip has."""
        picture = self._open(field, row[field], True, row["num_frames"])
        if picture is None:
            return None
        if picture.num_frames < row["num_frames"]:
            ratio = self._checkpoint.temporal_compression_ratio
            longest = (picture.num_frames - 1) // ratio * ratio + 1
            self.problems.append(
                (field, f"{picture.file.place}: has {picture.num_frames} frames and the clip {row['num_frames']}; "
                 f"set num_frames: {longest}, or give a longer video")
            )  # fmt: skip
            return None
        settings = self._preparation(field, None, row)
        self._warn(field, picture, row, settings["fit"])
        file = picture.file
        return Condition(file.place, file.sha256, is_video=True, num_frames=row["num_frames"], **settings)

    def _preparation(self, field: str, one: ConditionRow | None, row: Mapping[str, Any]) -> dict[str, Any]:
        """fit, preprocess, crf and blur: the condition's, else the row's, else the defaults."""
        own = {name: getattr(one, name, None) for name in _OF_ROW}
        chosen = {name: row.get(name) if own[name] is None else own[name] for name in _OF_ROW}
        if self._checkpoint.generation:
            return self._preparation_of_ltx2(field, chosen)
        official = chosen["preprocess"] == "official"
        for name in ("crf", "blur"):
            if chosen[name] is not None and not official:
                self.problems.append((field, f"{name}: applies only to preprocess: official; set that, too"))
        crf, blur = chosen["crf"], chosen["blur"]
        return {
            "fit": chosen["fit"] or "crop",
            "preprocess": chosen["preprocess"] or "diffusers",
            "crf": (OFFICIAL_CRF if crf is None else crf) if official else 0,
            "blur": (blur is not False) if official else False,
        }

    def _preparation_of_ltx2(self, field: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The same for LTX-2: diffusers compresses an image as the version was trained; there is no other choice."""
        for name in ("preprocess", "blur"):
            if chosen[name] not in (None, "diffusers"):
                self.problems.append((field, f"{name}: is only for LTX-Video; leave it out"))
        # Each preset of LTX-2 has a crf.
        return {"fit": chosen["fit"] or "crop", "preprocess": "diffusers", "crf": chosen["crf"], "blur": False}

    def _open(self, field: str, given: str, is_video: bool, limit: int) -> Picture | None:
        try:
            place = resolve_place(given, self._folder)
        except ValueError as error:
            self.problems.append((field, str(error)))
            return None
        known = self._known.get((place, is_video, limit))
        if known is None:
            try:
                known = _measured(place, is_video, limit)
            except ValueError as error:
                known = str(error)
            self._known[place, is_video, limit] = known
        if isinstance(known, str):
            self.problems.append((field, known))
            return None
        return known

    def _warn(self, field: str, picture: Picture, row: Mapping[str, Any], fit: str) -> None:
        found = [aspect_warning(picture.width, picture.height, row["width"], row["height"], fit)]
        found.append(frame_rate_warning(picture.frame_rate, row["frame_rate"]))
        self.warnings += [(field, f"{picture.file.place}: {message}") for message in found if message]

    def _check_strength(self, row: Mapping[str, Any]) -> None:
        strength, steps = row.get("denoise_strength"), row["num_inference_steps"]
        if not row.get("video"):
            if strength is not None and strength < 1:
                self.problems.append(("denoise_strength", "applies only to a clip with video; give video, too"))
        elif strength is None or strength == 1:
            self.problems.append(
                ("video", "needs denoise_strength below 1: how much of the schedule runs, such as 0.5")
            )
        elif steps_of(steps, strength) < 1:
            self.problems.append(
                (
                    "denoise_strength",
                    f"{strength:g} of {steps} steps is less than one step; use at least {1 / steps:.3g}",
                )
            )

    def _check_pipeline(self, asked: list[tuple[str, ConditionRow]], row: Mapping[str, Any]) -> None:
        """Note media that the checkpoint's pipeline cannot use: those before LTXConditionPipeline take a first frame
        only, and LTX-2 has no video to video."""
        if self._checkpoint.generation:
            if row.get("video"):
                self.problems.append(("video", "LTX-2 has no video to video here; give the frames as conditions"))
            if row.get("reference"):
                self.problems.append(("reference", "is for IC-LoRAs of LTX-Video; those of LTX-2 are not supported"))
            return
        if self._checkpoint.pipeline_class == TAKES_TIMESTEPS:
            return
        plain = len(asked) == 1 and (asked[0][1].image is not None, asked[0][1].frame_index, asked[0][1].strength) == (
            True, 0, 1.0,
        )  # fmt: skip
        videos = [field for field in ("video", "reference") if row.get(field)]
        if asked and not plain or videos:
            field = videos[0] if videos else "conditions"
            self.problems.append(
                (field, f"{self._checkpoint.pipeline_class}, which renders this checkpoint, takes one image, as "
                 "the first frame and at full strength; use a checkpoint of 0.9.5 or newer")
            )  # fmt: skip


def _measured(place: str, is_video: bool, limit: int) -> Picture:
    """Facts about the file, after decoding it. Raises ValueError naming the file and the remedy."""
    # Imported here, because a batch without media needs no decoders.
    from ltx_dist.media.images import open_image
    from ltx_dist.media.video_in import inspect_video

    file = open_media(place)
    if is_video:
        facts = inspect_video(file.path, limit, place)
        return Picture(file, facts.width, facts.height, facts.num_frames, facts.frame_rate)
    image = open_image(file.path, place)
    return Picture(file, image.width, image.height)
