"""A batch as a job on a Ray cluster: checks it here, packs what travels, and names it. Does not import Ray."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.hub import is_hub_name
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.preset import TAKES_TIMESTEPS
from ltx_dist.inputs.prompt_files import Prompts
from ltx_dist.inputs.prompt_sources import read_bytes, suffix_of
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.models.family import family_of
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.user_cache import from_home

CONFIG_FILE = "config.yaml"

STOP_WAIT_SECONDS = 60
"""Seconds between the first signal and the kill. Ray's default of 3 would cut off clips that are nearly done."""

GRACE_SECONDS = STOP_WAIT_SECONDS - 5
"""`recovery.grace_seconds` of a job, unless the config sets it."""

ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_SECONDS), "PYTHONUNBUFFERED": "1", "RAY_DEDUP_LOGS": "0"}
"""Environment of the job's driver. Ray would merge log lines that differ only in their numbers, as ours do."""

LTX_VIDEO_RATIOS = (32, 8)
"""Pixels (frames) a latent pixel (frame) of every VAE that LTX-Video was released with."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked batch, packed. files: what the job finds in its working folder, by name; never weights or clips.

    digest: of everything that identifies the batch: prompts, config and output. num_clips: its clips.
    checkpoint_is_here: False where only the cluster can tell whether the checkpoint is complete.
    """

    files: dict[str, bytes]
    arguments: tuple[str, ...]
    digest: str
    num_clips: int
    checkpoint_is_here: bool

    @property
    def entrypoint(self) -> str:
        """The job's command line, for the shell that Ray hands it to."""
        return shlex.join(self.arguments)

    @property
    def id_prefix(self) -> str:
        """The common prefix of the ids of all attempts at this batch."""
        return f"ltx-{self.digest}-"

    def next_id(self, taken: Iterable[str]) -> str:
        """The id of the next attempt, `taken` being those of the cluster's jobs. Ray refuses an id given twice."""
        attempts = [one.removeprefix(self.id_prefix) for one in taken if one.startswith(self.id_prefix)]
        last = max((int(attempt) for attempt in attempts if attempt.isdigit()), default=0)
        return f"{self.id_prefix}{last + 1}"


def prepare(prompts: Prompts, config: RenderConfig, output: str) -> Submission:
    """Check the batch as far as possible here, and pack it.

    A checkpoint that lies on the cluster only cannot be opened here, and one on the hub is not downloaded for this: the
    prompts are then checked by what all LTX-Video models have in common, and the rest when the job starts.
    Raises ValueError with every mistake found.
    """
    _check_output(output)
    here = _is_here(config)
    checkpoint = (
        open_checkpoint(config.model.checkpoint, config.model.text_encoder, config.model.upscaler)
        if here
        else _stand_in(config)
    )
    name, content, requests = _read(prompts, config, checkpoint, here)
    chosen = config.model_dump(mode="json", exclude_unset=True)
    chosen.setdefault("recovery", {}).setdefault("grace_seconds", GRACE_SECONDS)
    settings = yaml.safe_dump(chosen, sort_keys=False).encode()
    arguments = ("ltx-dist", "render", name, "--config", CONFIG_FILE, "--output", output)
    digest = hashlib.sha256(b"\0".join([content, settings, output.encode()])).hexdigest()[:12]
    return Submission({name: content, CONFIG_FILE: settings}, arguments, digest, len(requests), here)


def _check_output(output: str) -> None:
    if "://" not in output and not PurePosixPath(output).is_absolute():
        raise ValueError(
            f"--output: {output} is relative, but a job's working folder is deleted when it ends; give an "
            "absolute path that "
            "the cluster's head can write to, best on storage that you can read, too"
        )


def _is_here(config: RenderConfig) -> bool:
    """Whether checkpoint and text encoder can be opened on this machine. Raises ValueError for a relative path."""
    model = config.model
    names = {"model.checkpoint": model.checkpoint, "model.text_encoder": model.text_encoder}
    found = [_is_file_here(field, name) for field, name in names.items() if name is not None and name != "demo"]
    return all(found)


def _is_file_here(field: str, name: str) -> bool:
    path = from_home(name, field)
    if path.is_absolute() or PurePosixPath(name).is_absolute():  # Windows regards /models as a relative path
        return path.exists()
    if path.exists() or not is_hub_name(name):
        raise ValueError(
            f"{field}: {name} is relative, which would name another file on the cluster; give the path there"
        )
    return False


def _stand_in(config: RenderConfig) -> Checkpoint:
    """What can be assumed about a checkpoint that is not here. It takes timesteps, so that none are refused wrongly."""
    nothing: dict[str, int] = dict.fromkeys(("text_encoder", "transformer", "vae"), 0)
    name = config.model.checkpoint
    return Checkpoint(name, Path(name), TAKES_TIMESTEPS, *LTX_VIDEO_RATIOS, True, 128, nothing, nothing)


def _read(
    prompts: Prompts, config: RenderConfig, checkpoint: Checkpoint, here: bool
) -> tuple[str, bytes, list[RenderRequest]]:
    """The prompt file's name in the job, its bytes, and its requests."""
    version = config.model.version
    # Which preset a checkpoint elsewhere goes with is not known, unless the config says so; all have the same sizes.
    preset = family_of(checkpoint).preset_for("generic" if version == "auto" and not here else version, checkpoint)

    def requests(source: Prompts) -> list[RenderRequest]:
        return read_prompts(source, config.defaults, preset, checkpoint, reading=config.prompts)

    if not isinstance(prompts, str):
        rows = [{"prompt": row} if isinstance(row, str) else row for row in prompts]
        return "prompts.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), requests(prompts)
    content = read_bytes(prompts)
    if prompts != "-":
        return f"prompts{suffix_of(prompts)}", content, requests(prompts)
    name = "prompts.jsonl" if content.lstrip().startswith(b"{") else "prompts.txt"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        return name, content, requests(f"{folder}/{name}")
