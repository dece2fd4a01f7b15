"""`ltx-dist decode`: decodes clips again from kept latents, with other settings for decoding and the mp4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.digests import checkpoint_digest
from ltx_dist.inputs.kept_request import kept_request
from ltx_dist.messages import count
from ltx_dist.models.family import family_of
from ltx_dist.pipeline.keys import Making, stage_keys
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.report.run_record import read_run_record
from ltx_dist.run.batch import Batch
from ltx_dist.store.artifact_folder import spool_folder
from ltx_dist.store.clip_names import with_ending
from ltx_dist.store.files import INTERNAL
from ltx_dist.store.kept_config import read_settings
from ltx_dist.store.output_errors import output_errors
from ltx_dist.store.sidecar import of_row, read_sidecar

MAY_CHANGE = ("decode.", "output.", "placement.", "model.vae_precision=")
"""Config sections, and one setting, that do not affect the latents."""

NAMES = "output.name="
"""The setting among them that decoding does not use: clips keep their names."""

NAMED = "decode.*, output.* (but not output.name), placement.* and model.vae_precision"

KEEP = "recovery.keep_latents=true"


def open_kept(folder: Path, overrides: Sequence[str]) -> Batch:
    """The clips of a folder's last run that have kept latents, with their original settings except `overrides`.

    The folder has the settings of that run only, so a warning names clips of earlier commands, which stay as they are.
    Raises ValueError for an override of a setting that the latents depend on, for a file that `Resumption` did not
    write, and if no clip has latents; OutputError if the latents cannot be read.
    """
    for override in overrides:
        if not override.startswith(MAY_CHANGE) or override.startswith(NAMES):
            raise ValueError(
                f"--set {override}: not a setting of decoding; these are {NAMED}: anything else needs the clips "
                f"rendered again"
            )
    from ltx_dist.store.artifacts import ArtifactStore, saved_requests

    config = read_settings(folder, [*overrides, KEEP])
    checkpoint = open_checkpoint(config.model.checkpoint, config.model.text_encoder, config.model.upscaler)
    spool = spool_folder(folder)
    with output_errors():
        saved, found = saved_requests(spool), ArtifactStore(spool, folder / INTERNAL / "tmp", 0)
    requests = [kept_request(path, told, checkpoint) for path, told in saved.items()]
    spooled = {request.request_id: request for request in requests}
    names = tuple(read_run_record(folder).get("requests", ())) or tuple(spooled)
    batch = Batch(config, checkpoint, family_of(checkpoint).preset_for(config.model.version, checkpoint), (), names)
    making = batch.making(checkpoint_digest(checkpoint), config.model.precision)
    kept = tuple(
        request
        for name in names
        if (request := spooled.get(name)) is not None and found.holds(name, _latents_key(making, request))
    )
    if not kept:
        why = (
            "they were made with other weights, or by an earlier version of ltx_dist; render them again"
            if spooled
            else "none were kept; render with --keep-latents"
        )
        raise ValueError(f"{folder}: none of {len(names)} clips has latents that can be decoded: {why}")
    with output_errors():
        notes = _notes(folder, kept)
    warnings = _of_earlier(names, spooled)
    return Batch(config, checkpoint, batch.preset, kept, names, warnings=warnings, notes=notes)


def _notes(folder: Path, requests: Sequence[RenderRequest]) -> dict[str, dict[str, Any]]:
    """The sidecars' notes on the clips' rows, by name."""
    names = (request.request_id for request in requests)
    return {name: of_row(read_sidecar(with_ending(folder / name, ".json"))) for name in names}


def _latents_key(making: Making, request: RenderRequest) -> str:
    """The key of the latents that are decoded: of the last stage whose output is kept until the clip is published."""
    keys = stage_keys(making, request)
    return [key for stage, key in keys.items() if making.recipe[stage].keeps == "spool"][-1]


def _of_earlier(names: Sequence[str], spooled: Iterable[str]) -> tuple[str, ...]:
    """A warning that names the clips with latents that were not part of the last run; empty if there are none."""
    others = sorted(set(spooled).difference(names))
    if not others:
        return ()
    return (
        f"{count(len(others), 'clip')} of earlier commands kept latents, too, but only the last command's settings "
        f"are known, so these stay as they are: {', '.join(others)}",
    )
