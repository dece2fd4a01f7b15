"""`owner/name` or `owner/name@commit`: a model's files on the Hugging Face hub, through the cache on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltx_dist.messages import first_line

_NAME = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w-][\w.-]*(/[\w-][\w.-]*)*))?", re.ASCII
)
"""A revision may hold slashes, as refs/pr/32 does; no part of it begins with a dot, so that none leads elsewhere."""

TEXT_ENCODER_FILES = (
    "text_encoder/*.json", "text_encoder/*.safetensors",
    "tokenizer/*.json", "tokenizer/*.model", "tokenizer/*.txt",
)  # fmt: skip
"""safetensors and text only: pickles are not even downloaded."""

T5_FILES = (
    *TEXT_ENCODER_FILES,
    "config.json", "model*.safetensors", "model*.safetensors.index.json",
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "spiece.model",
)  # fmt: skip
"""Files to download for a text encoder, from a repository with a whole model or with T5 alone."""

CHECKPOINT_FILES = (
    "model_index.json", "scheduler/*.json", *TEXT_ENCODER_FILES,
    "transformer/*.json", "transformer/*.safetensors", "vae/*.json", "vae/*.safetensors",
    "connectors/*.json", "connectors/*.safetensors", "audio_vae/*.json", "audio_vae/*.safetensors",
    "vocoder/*.json", "vocoder/*.safetensors", "latent_upsampler/*.json", "latent_upsampler/*.safetensors",
)  # fmt: skip
"""No files beside the folders: official repositories hold every version's single file, tens of gigabytes of them."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model's files at one commit. name: `owner/name@commit`, which finds the same files again."""

    name: str
    path: Path


class NotCachedError(ValueError):
    """The files are not in the cache, and the hub was not reached or must not be used."""


def is_hub_name(name: str) -> bool:
    """Whether the name has the form `owner/name`; a folder of that name takes precedence."""
    return _NAME.fullmatch(name) is not None


def fetch_snapshot(name: str, files: Sequence[str], field: str) -> Snapshot:
    """The files of a hub repository that match the patterns `files`, downloaded unless the cache has them.

    Without network, the cached files are used. A branch, or the default one, is resolved to a commit here, once. Raises
    ValueError naming the field.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    match = _NAME.fullmatch(name)
    assert match is not None
    repository = match["repository"]
    try:
        path = Path(snapshot_download(repository, revision=match["revision"], allow_patterns=list(files)))
    except LocalEntryNotFoundError:
        raise NotCachedError(
            f"{field}: {name}: no such folder, not in the cache ({constants.HF_HUB_CACHE}), and the hub was not "
            f"reached; run `hf download {repository} --include '*/*' '*.json'` on a machine with network access and "
            "copy the cache, or give a folder"
        ) from None
    except HfHubHTTPError as error:
        raise ValueError(
            f"{field}: {name}: no such folder, and the hub refused it ({first_line(error)}); check the name and "
            f"the commit, and run `hf auth login` for a gated model"
        ) from None
    except OSError as error:
        raise ValueError(f"{field}: {name}: cannot be kept in {constants.HF_HUB_CACHE}: {error}; free space") from None
    # In the cache a snapshot's folder is called by its commit.
    return Snapshot(f"{repository}@{path.name}", path)
