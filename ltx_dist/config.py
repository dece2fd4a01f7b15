"""RenderConfig: what a YAML file and `--set` may say. Strict and frozen; an unknown key is an error naming it.

The helpers that turn YAML's and pydantic's errors into one readable line each live here too; prompt files share them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Precision = Literal["float32", "bfloat16", "float16"]
Layout = Literal["pinned", "shared", "replicated"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelConfig(_Section):
    """Which weights, and in which precision."""

    checkpoint: str = Field("demo", description="`demo` (packaged), or a folder in diffusers layout.")
    version: str = Field("auto", description="A row of the preset table; `auto` reads it from the checkpoint.")
    precision: Literal["auto", Precision] = Field(
        "auto", description="dtype of the weights on the device; `auto` is bfloat16 on a GPU, float32 on a CPU."
    )


class PlacementConfig(_Section):
    """Which worker runs which stages, and where."""

    layout: Literal["auto", Layout] = Field(
        "auto",
        description="`pinned`: a device a stage, further devices denoise. `shared`: one device runs all stages. "
        "`replicated`: every device runs all stages. `auto`: shared on one device, replicated on several.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` is cuda where a GPU is found.")
    devices: int | None = Field(None, ge=1, le=4096, description="How many workers at most; all GPUs if not set.")
    memory_gb: float | None = Field(None, gt=0, description="Bytes of one device / 1e9; read from it if not set.")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of each worker's torch.")
    residency: Literal["auto", "resident", "time_sliced"] = Field(
        "auto",
        description="`resident`: a worker keeps all its components on its device. `time_sliced`: one at a time, in "
        "waves. `auto`: resident on a CPU, and on a GPU whose memory holds them all.",
    )
    wave: int | None = Field(
        None, ge=1, le=10_000, description="How many clips may wait between two stages: the size of a wave."
    )
    gpus_per_worker: float | None = Field(
        None, ge=0, le=1, description="GPUs a worker asks of Ray; 1 on cuda and 0 on a CPU if not set."
    )


class DefaultsConfig(_Section):
    """Settings of every request that its row does not set; what neither sets, the checkpoint's preset does.

    Names and meanings are diffusers'. `seed` is the batch's: a request's own default is it plus its position.
    """

    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    frame_rate: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    decode_timestep: float | None = None
    decode_noise_scale: float | None = None
    max_sequence_length: int | None = None
    seed: int = Field(0, ge=0, lt=2**63)


class OutputConfig(_Section):
    """How frames become an mp4. Each of these changes the file's bytes, so each is part of the render key."""

    crf: int = Field(17, ge=0, le=51, description="x264's constant rate factor; 0 is lossless, 17 looks so.")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"] = "medium"
    threads: int = Field(2, ge=1, le=64, description="x264's threads. Fixed, because the count changes the bytes.")


class RenderConfig(_Section):
    """Everything of a batch but its prompts."""

    model: ModelConfig = ModelConfig()
    placement: PlacementConfig = PlacementConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    output: OutputConfig = OutputConfig()


MAX_CONFIG_BYTES = 1 << 20


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RenderConfig:
    """The config of a YAML file with dotted overrides (`placement.layout=pinned`, the value in YAML) on top.

    Raises ValueError with a line for every error of the file and of the overrides.
    """
    problems: list[str] = []
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = _read_config(path)
            problems += _problems(document, str(path))
        except ValueError as error:
            problems.append(str(error))
    for override in overrides:
        try:
            section, key, value = _parse_override(override)
        except ValueError as error:
            problems.append(str(error))
            continue
        problems += _problems({section: {key: value}}, f"--set {override}", with_key=False)
        if not problems:
            document[section] = {**document.get(section, {}), key: value}
    if problems:
        raise ValueError("\n".join(problems))
    return RenderConfig.model_validate(document)


def _read_config(path: Path) -> dict[str, Any]:
    text = read_text(path, MAX_CONFIG_BYTES)
    with yaml_errors(str(path), text):
        document = yaml.load(text, StrictLoader)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a mapping; write sections: {', '.join(RenderConfig.model_fields)}")
    # `placement:` with every line below it commented out is an empty section, not an error.
    return {str(section): values for section, values in document.items() if values is not None}


def _parse_override(override: str) -> tuple[str, str, Any]:
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"--set {override}: no value; write section.key=value")
    if dotted not in _known_keys():
        raise ValueError(f"--set {override}: unknown key{did_you_mean(dotted, _candidates(dotted))}")
    with yaml_errors(f"--set {override}", text, with_line=False):
        section, _, key = dotted.partition(".")
        return section, key, yaml.load(text, StrictLoader)


def _candidates(dotted: str) -> list[str]:
    """What a wrong key may have been meant for: a key of its section, else a section or any section's key."""
    section = dotted.partition(".")[0]
    in_section = [key for key in _known_keys() if key.startswith(f"{section}.")]
    meant = [key for key in _known_keys() if key.endswith(f".{dotted}")]
    return in_section or meant or list(RenderConfig.model_fields)


def _known_keys() -> list[str]:
    sections = {name: field.annotation for name, field in RenderConfig.model_fields.items()}
    return [f"{name}.{key}" for name, model in sections.items() for key in model.model_fields]  # type: ignore[union-attr]


def _problems(document: Mapping[str, Any], label: str, with_key: bool = True) -> list[str]:
    try:
        RenderConfig.model_validate(document)
    except ValidationError as error:
        return [f"{label}: {_explain_key(details, with_key)}" for details in error.errors()]
    return []


def _explain_key(error: ErrorDetails, with_key: bool) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
    section = RenderConfig.model_fields.get(str(error["loc"][0]))
    field = section.annotation.model_fields.get(dotted.partition(".")[2]) if section else None  # type: ignore[union-attr]
    message = explain(error, field, _candidates(dotted), dotted)
    return f"{printable(dotted)}: {message}" if with_key else message


def read_text(path: Path, max_bytes: int) -> str:
    """The text of a UTF-8 file (BOM dropped) of at most `max_bytes`; ValueError names what is wrong and where."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    return decode_text(data, str(path), max_bytes)


def decode_text(data: bytes, label: str, max_bytes: int) -> str:
    """`data` as UTF-8 without BOM; ValueError if it is longer than `max_bytes` or not UTF-8."""
    if len(data) > max_bytes:
        raise ValueError(f"{label}: larger than {max_bytes >> 20} MiB; split the file")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{label}:{line}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses aliases (they can blow a small file up) and a key given twice (one would be lost)."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed; write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        # JSON is YAML, and writes an emoji as two escapes; PyYAML leaves the halves apart. One half is an error.
        return value.encode("utf-16", "surrogatepass").decode("utf-16") if isinstance(value, str) else value

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError):  # e.g. the date 2026-99-99, `!!bool x`
            message = f"{show(node.value)} is not a value of its kind; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from None


# YAML 1.1, which PyYAML follows, reads 1e-3 as text; 1.2 and everybody who writes it mean the number.
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@contextmanager
def yaml_errors(label: str, text: str, with_line: bool = True) -> Iterator[None]:
    """Turn whatever YAML raises inside into a ValueError that names `label` and the line."""
    try:
        yield
    except RecursionError:
        raise ValueError(f"{label}: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        where = f"{label}:{line}" if with_line else label
        raise ValueError(f"{where}: not valid YAML: {reason}") from None


_WORDING = {
    "missing": "missing",
    "int_type": "{given} is not a whole number{allowed}",
    "int_from_float": "{given} is not a whole number{allowed}",
    "float_type": "{given} is not a number{allowed}",
    "finite_number": "{given} is not a finite number{allowed}",
    "string_type": "{given} is not text; put it in quotes",
    "string_unicode": "holds half a surrogate pair, which is no character",
    "literal_error": "{given} is not one of {expected}",
    "model_type": "{given} is not a mapping of settings",
    "greater_than": "{given} is too small{allowed}",
    "greater_than_equal": "{given} is too small{allowed}",
    "less_than": "{given} is too large{allowed}",
    "less_than_equal": "{given} is too large{allowed}",
    "value_error": "{error}",
}
"""Ours for pydantic's error types: what was given and what is allowed."""


def explain(error: ErrorDetails, field: FieldInfo | None, known: Iterable[str], key: str) -> str:
    """One of pydantic's errors in a few words: what was given, what is allowed, what was probably meant."""
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return "unknown key" + did_you_mean(key, known)
    details = {"given": show(error["input"]), "allowed": _allowed(field), "expected": "", "error": ""}
    details |= {name: str(value) for name, value in error.get("ctx", {}).items() if name in ("expected", "error")}
    template = _WORDING.get(error["type"])
    return template.format_map(details) if template else f"{details['given']}: {error['msg']}"


def _allowed(field: FieldInfo | None) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [
        f"{word} {getattr(bound, name):g}" if abs(getattr(bound, name)) < 1e6 else f"{word} {getattr(bound, name)}"
        for name, word in words.items()
        for bound in (field.metadata if field else ())
        if hasattr(bound, name) and getattr(bound, name) is not None
    ]
    return f"; it must be {' and '.join(limits)}" if limits else ""


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest known key, else the known ones. Of dotted keys only the ends differ."""
    known = list(known)
    ends = {name.rpartition(".")[2]: name for name in known}
    end = key.rpartition(".")[2]
    nearest = [ends[match] for match in difflib.get_close_matches(end, ends, n=1, cutoff=0.6)]
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; known are {', '.join(known)}"


def show(value: object) -> str:
    """A given value as a person wrote it, cut to a readable length and safe to print."""
    words = {True: "true", False: "false"} if isinstance(value, bool) else {None: "null"} if value is None else {}
    text = words[value] if words else repr(value)  # type: ignore[index]
    return text if len(text) <= 80 else text[:77] + "..."


def printable(text: str) -> str:
    """`text` itself, or its escaped form where it would move a terminal's cursor."""
    return text if text.isprintable() else repr(text)
