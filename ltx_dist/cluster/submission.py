"""A batch as a job on a Ray cluster: checks it here, packs what travels, and names it. Does not import Ray."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.hub import is_hub_name
from ltx_dist.cluster.job_packages import JobPackages, read_packages
from ltx_dist.cluster.packing import IMAGES, content_of, pack_files, strings_in
from ltx_dist.inputs.config import DefaultsConfig, RenderConfig
from ltx_dist.inputs.expansion import folder_of_lists, used_lists
from ltx_dist.inputs.plain_text import json_kind
from ltx_dist.inputs.prompt_files import PromptFile, Prompts, read_prompt_file
from ltx_dist.inputs.prompt_sources import MAX_FILE_BYTES, label_of, read_bytes, suffix_of
from ltx_dist.inputs.prompts import requests_of
from ltx_dist.inputs.vary import read_axes
from ltx_dist.messages import Mistakes
from ltx_dist.models.family import FAMILIES, family_of
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.strict_files import decode_text
from ltx_dist.user_cache import from_home

CONFIG_FILE = "config.yaml"

WORD_LISTS = "word-lists"
"""The folder for the wildcards' files inside the job's folder; the job's `prompts.wildcards`."""

STOP_WAIT_SECONDS = 60
"""Seconds between the first signal and the kill. Ray's default of 3 would cut off clips that are nearly done."""

GRACE_SECONDS = STOP_WAIT_SECONDS - 5
"""`recovery.grace_seconds` of a job, unless the config sets it."""

ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_SECONDS), "PYTHONUNBUFFERED": "1", "RAY_DEDUP_LOGS": "0"}
"""Environment of the job's driver. Ray would merge log lines that differ only in their numbers, as ours do."""

PATHS_TO_LORAS = (("loras",), ("reference",), ("vary", "loras"), ("vary", "reference"), ("second_pass", "loras"))
"""Keys of a row that name LoRAs of a clip, or a video that needs one."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked batch, packed. files: what the job finds in its working folder, by path; no model and no clips.

    digest: of everything that identifies the batch: prompts, config, output, packages, and the files that are sent.
    num_clips: number of clips.
    packages: lines of a requirements file, which Ray installs for the job on every node.
    checkpoint_is_here: False where only the cluster can tell whether the checkpoint is complete.
    """

    files: dict[str, bytes]
    arguments: tuple[str, ...]
    digest: str
    num_clips: int
    checkpoint_is_here: bool
    packages: tuple[str, ...] = ()

    def runtime_env(self, folder: str) -> dict[str, Any]:
        """The job's environment, in Ray's terms. folder: where `files` are."""
        environment: dict[str, Any] = {"working_dir": folder, "env_vars": dict(ENVIRONMENT)}
        return environment | ({"pip": list(self.packages)} if self.packages else {})

    @property
    def entrypoint(self) -> str:
        """The job's command line, for the shell that Ray hands it to."""
        return shlex.join(self.arguments)

    @property
    def id_prefix(self) -> str:
        """The common prefix of the ids of all attempts at this batch."""
        return f"ltx-{self.digest}-"

    def next_id(self, taken: Iterable[str]) -> str:
        """The id of the next attempt. taken: ids of the cluster's jobs, as Ray refuses one that was used before."""
        attempts = [one.removeprefix(self.id_prefix) for one in taken if one.startswith(self.id_prefix)]
        last = max((int(attempt) for attempt in attempts if attempt.isdigit()), default=0)
        return f"{self.id_prefix}{last + 1}"


def prepare(
    prompts: Prompts, config: RenderConfig, output: str, images: Path | None = None, pip: Sequence[str] = ()
) -> Submission:
    """Check the batch as far as possible here, and pack it.

    images: a folder with first frames of clips. pip: packages for the job, as in `read_packages`.
    A checkpoint that lies on the cluster only cannot be opened here, and one on the hub is not downloaded for this: the
    prompts are then checked by what all models of a family have in common, and the rest when the job starts.
    Raises ValueError with every mistake found.
    """
    _check_output(output)
    here = _is_here(config)
    name, content = _packed(prompts)
    file = read_prompt_file(prompts, config.prompts, content)
    requests = (_checked_here if here else _checked_elsewhere)(file, config, images)
    packages = read_packages(pip)
    lists = _word_lists(file, config, packages)
    media = lists | _files(file, config, requests, images, packages.files | lists)
    chosen = config.model_dump(mode="json", exclude_unset=True)
    if lists:
        chosen["prompts"]["wildcards"] = WORD_LISTS
    chosen.setdefault("recovery", {}).setdefault("grace_seconds", GRACE_SECONDS)
    settings = yaml.safe_dump(chosen, sort_keys=False).encode()
    # A virtual environment has a `python`, but no `ltx-dist` that runs with it, if it is based on the system's Python.
    program = ("python", "-m", "ltx_dist.cli") if packages.lines else ("ltx-dist",)
    arguments = (*program, "render", name, "--config", CONFIG_FILE, "--output", output)
    if images is not None and any(path.startswith(f"{IMAGES}/") for path in media):
        arguments += ("--images", IMAGES)
    named = [part for path in sorted(media) for part in (path.encode(), hashlib.sha256(media[path]).digest())]
    lines = [line.encode() for line in packages.lines]
    parts = [name.encode(), content, settings, output.encode(), *named, *lines]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
    files = {**media, **packages.files, name: content, CONFIG_FILE: settings}
    return Submission(files, arguments, digest, len(requests), here, packages.lines)


def _check_output(output: str) -> None:
    if "://" not in output and not PurePosixPath(output).is_absolute():
        raise ValueError(
            f"--output: {output} is relative, but a job's working folder is deleted when it ends; give an "
            "absolute path that "
            "the cluster's head can write to, best on storage that you can read, too"
        )


def _is_here(config: RenderConfig) -> bool:
    """Whether the model can be opened on this machine. Raises ValueError for a relative path."""
    model = config.model
    names = {
        "model.checkpoint": model.checkpoint,
        "model.text_encoder": model.text_encoder,
        "model.upscaler": model.upscaler,
    }
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


def _packed(prompts: Prompts) -> tuple[str, bytes]:
    """The prompt file's name in the job, and its bytes."""
    if not isinstance(prompts, str):
        rows = [{"prompt": row} if isinstance(row, str) else row for row in prompts]
        return "prompts.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()
    content = read_bytes(prompts)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{label_of(prompts)}: larger than {MAX_FILE_BYTES >> 20} MiB; split the file")
    if prompts != "-":
        return f"prompts{suffix_of(prompts)}", content
    kind = json_kind(decode_text(content, label_of(prompts), MAX_FILE_BYTES)) or ".txt"
    return f"prompts{kind}", content


def _files(
    file: PromptFile,
    config: RenderConfig,
    requests: list[RenderRequest],
    images: Path | None,
    sent: Mapping[str, bytes],
) -> dict[str, bytes]:
    """The files that rows and config name, by their path in the job's folder. sent: the other files, likewise."""
    rows = [item.content for item in file.items]
    varied = [config.defaults.vary, *(row.get("vary") for row in rows if isinstance(row, dict))]
    # Several values may be written as one text, with commas.
    axes = [axis for vary in varied if isinstance(vary, dict) for axis in read_axes(vary)[0].values()]
    given = [rows, config.defaults.model_dump(), [value.value for axis in axes for value in axis.values]]
    num_bytes = sum(map(len, sent.values()))
    return pack_files(requests, given, file.folder, config.model.loras, images, num_bytes)


def _word_lists(file: PromptFile, config: RenderConfig, packages: JobPackages) -> dict[str, bytes]:
    """The wildcards' files that the prompts were checked with, by their path in the job's folder."""
    if config.prompts.expand == "off":
        return {}
    lists: dict[str, bytes] = {}
    folder, sent = folder_of_lists(config.prompts, file.folder), sum(map(len, packages.files.values()))
    texts = strings_in([item.content for item in file.items])
    for name, path in used_lists(texts, folder).items():
        content = lists[f"{WORD_LISTS}/{name}.txt"] = content_of(str(path), sent)
        sent += len(content)
    return lists


def _checked_here(file: PromptFile, config: RenderConfig, images: Path | None) -> list[RenderRequest]:
    model = config.model
    checkpoint = open_checkpoint(model.checkpoint, model.text_encoder, model.upscaler)
    preset = family_of(checkpoint).preset_for(model.version, checkpoint)
    return requests_of(file, config.defaults, preset, checkpoint, config.prompts, loras=model.loras, images=images)


def _checked_elsewhere(file: PromptFile, config: RenderConfig, images: Path | None) -> list[RenderRequest]:
    """The requests by the first model that could render them; else the mistakes of the one that finds the fewest."""
    _refuse_loras(file, config.defaults)
    model = config.model
    asked = model.checkpoint, model.version, model.upscaler
    candidates = [candidate for family in FAMILIES for candidate in family.assumed(*asked)]
    if not candidates:
        known = ", ".join(version for family in FAMILIES for version in family.presets)
        raise ValueError(f"model.version: no preset {model.version!r}; use auto, {known}")
    mistakes: list[ValueError] = []
    for checkpoint, preset in candidates:
        try:
            return requests_of(file, config.defaults, preset, checkpoint, config.prompts, images=images)
        except ValueError as error:
            mistakes.append(error)
    raise min(mistakes, key=lambda error: error.number if isinstance(error, Mistakes) else 1)


def _refuse_loras(file: PromptFile, defaults: DefaultsConfig) -> None:
    """Raises ValueError for LoRAs of single clips: whether they fit is in the model's files."""
    why = "cannot be checked, as the model's files are not on this machine; run `ltx-dist render` on the cluster's head"
    if path := _path_to_loras(defaults.model_dump()):
        raise ValueError(f"{': '.join([defaults.named(path[0]), *path[1:]])}: {why}")
    for item in file.items:
        if path := _path_to_loras(item.content):
            otherwise = ", or name LoRAs for all rows as model.loras" if path == ("loras",) else ""
            raise ValueError(f"{file.label}:{item.line}: {': '.join(path)}: {why}{otherwise}")


def _path_to_loras(settings: Any) -> tuple[str, ...]:
    """The first of PATHS_TO_LORAS at which a row, or the defaults, have a value; empty if there is none."""
    for path in PATHS_TO_LORAS:
        value = settings
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value:
            return path
    return ()
