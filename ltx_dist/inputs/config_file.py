"""A YAML file and `--set` -> RenderConfig. All errors are reported together, with line numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.explain import did_you_mean, explain
from ltx_dist.inputs.other_names import meant
from ltx_dist.messages import Mistakes, printable, show
from ltx_dist.strict_files import StrictLoader, read_text, yaml_errors

MAX_CONFIG_BYTES = 1 << 20


def load_config(path: Path | None, overrides: Sequence[str] = (), profile: Path | None = None) -> RenderConfig:
    """The config of a YAML file with dotted overrides on top: `placement.layout=pinned`, or `model.checkpoint=/m/a #2`.

    profile: another such file; keys of `path` override its keys. The value of an override is read as YAML, except for
    keys of type text, where it is taken literally; only `null` unsets a text that is optional.

    Raises ValueError with one line per error in the file and the overrides.
    """
    problems: list[str] = []
    document: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for file in filter(None, (profile, path)):
        try:
            sections, lines = _read_config(file)
            problems += _problems(sections, lines, str(file))
        except ValueError as error:
            problems.append(str(error))
            continue
        if not problems:
            document |= {section: {**document.get(section, {}), **keys} for section, keys in sections.items()}
        origins |= lines
    problems += _override(document, origins, overrides, is_valid=not problems)
    return _validated(document, origins, problems)


def config_from(document: Mapping[str, Any]) -> RenderConfig:
    """The config from sections as mappings, dotted keys, or both: `{"placement.layout": "pinned"}`.

    Raises ValueError with one line per error.
    """
    sections: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in document.items():
        section, dot, rest = str(key).partition(".")
        if not dot and section in RenderConfig.model_fields and not isinstance(value, Mapping):
            problems.append(f"config: {section}: {show(value)} is not a mapping of its keys")
        for name, content in ({rest: value} if dot else value if isinstance(value, Mapping) else {}).items():
            sections.setdefault(section, {})[str(name)] = content
        if not dot:
            sections.setdefault(section, {})
    origins = {f"{section}.{key}": "config" for section, values in sections.items() for key in values}
    return _validated(sections, origins, problems + _problems(sections, {}, "config"))


def _override(document: dict[str, Any], origins: dict[str, str], overrides: Sequence[str], is_valid: bool) -> list[str]:
    """Put the overrides into a document. Returns their errors. is_valid: whether the document itself has none."""
    problems: list[str] = []
    for override in overrides:
        try:
            section, key, value = _parse_override(override)
        except ValueError as error:
            problems.append(str(error))
            continue
        origins[f"{section}.{key}"] = f"--set {override}"
        problems += _problems({section: {key: value}}, origins, f"--set {override}", with_key=False)
        if is_valid and not problems:
            document[section] = {**document.get(section, {}), key: value}
    return problems


def _validated(document: Mapping[str, Any], origins: Mapping[str, str], problems: Sequence[str]) -> RenderConfig:
    """The config, or all problems as one ValueError."""
    if problems:
        raise Mistakes(problems)
    config = RenderConfig.model_validate(document)
    _refuse_contradictions(config, origins)
    if given := {dotted: where for dotted, where in origins.items() if dotted.startswith("defaults.")}:
        config.defaults.remember(given)  # if nothing is given, `defaults` may be the instance that all configs share
    return config


def cut_off_texts(path: Path) -> list[str]:
    """A warning for each string of a YAML file that ` #` may have cut off without being meant as a comment.

    `checkpoint: /m/ltx #2` is YAML for /m/ltx. A comment that begins with a space or another # is assumed to be meant.
    """
    text = read_text(path, MAX_CONFIG_BYTES)
    with yaml_errors(str(path), text):
        root = yaml.compose(text, StrictLoader)
    lines = text.splitlines()
    warnings = []
    for dotted, node in _plain_scalars(root):
        section, _, key = dotted.partition(".")
        if dotted not in _known_keys() or str not in _kinds(section, key):
            continue
        rest = lines[node.end_mark.line][node.end_mark.column :]
        if re.match(r"\s+#[^\s#]", rest):
            warnings.append(
                f"{path}:{node.end_mark.line + 1}: {dotted}: {show(node.value)} ends before `{printable(rest.strip())}`"
                ", which YAML takes for a comment; put the whole text in quotes, or `# ` before a comment"
            )
    return warnings


def _plain_scalars(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.ScalarNode]]:
    """The unquoted values of a mapping and of nested mappings, by dotted key."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(value, yaml.ScalarNode) and value.style is None:
            yield f"{prefix}{key.value}", value
        else:
            yield from _plain_scalars(value, f"{prefix}{key.value}.")


def _refuse_contradictions(config: RenderConfig, origins: Mapping[str, str]) -> None:
    """Raises ValueError for settings that are valid by themselves but not together."""
    if config.recovery.exact and config.denoise.batch_size > 1:
        raise ValueError(
            f"{origins['denoise.batch_size']}: denoise.batch_size: {config.denoise.batch_size} changes the low bits of "
            f"clips, which recovery.exact ({origins['recovery.exact']}) does not allow; use 1, or leave exact out"
        )


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The document, and `path:line` of each of its keys, dotted."""
    text = read_text(path, MAX_CONFIG_BYTES)
    with yaml_errors(str(path), text):
        document = yaml.load(text, StrictLoader)
        lines = _lines(yaml.compose(text, StrictLoader))
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a mapping; write sections: {', '.join(RenderConfig.model_fields)}")
    # `placement:` with every line below it commented out is an empty section, not an error.
    sections = {str(section): values for section, values in document.items() if values is not None}
    return sections, {dotted: f"{path}:{line}" for dotted, line in lines.items()}


def _lines(node: yaml.Node | None, prefix: str = "") -> dict[str, int]:
    """The line of each key of a mapping and of nested mappings."""
    lines: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        dotted = f"{prefix}{key.value}"
        lines |= {dotted: key.start_mark.line + 1} | _lines(value, f"{dotted}.")
    return lines


def _parse_override(override: str) -> tuple[str, str, Any]:
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"--set {override}: no value; write section.key=value")
    if dotted not in _known_keys():
        raise ValueError(f"--set {override}: unknown key{did_you_mean(dotted, _candidates(dotted))}")
    section, _, key = dotted.partition(".")
    if (kinds := _kinds(section, key)) <= {str, NoneType}:
        # The shell has already handled quotes; YAML would cut the text at ` #`, and take `: ` for a mapping.
        return section, key, None if text == "null" and NoneType in kinds else text
    with yaml_errors(f"--set {override}", text, with_line=False):
        return section, key, yaml.load(text, StrictLoader)


def _kinds(section: str, key: str) -> set[Any]:
    """The types that a key's value may have: {str, NoneType} for an optional text."""
    model = RenderConfig.model_fields[section].annotation
    annotation = model.model_fields[key].annotation  # type: ignore[union-attr]
    return set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}


def _candidates(dotted: str) -> list[str]:
    """Candidates for a wrong key: the keys of its section, otherwise sections and all keys."""
    section = dotted.partition(".")[0]
    in_section = [key for key in _known_keys() if key.startswith(f"{section}.")]
    named = [key for key in _known_keys() if key.endswith(f".{dotted.rpartition('.')[2]}")]
    if in_section or named:
        return in_section or named
    return _known_keys() if meant(dotted, _known_keys()) else list(RenderConfig.model_fields)


def _known_keys() -> list[str]:
    sections = {name: field.annotation for name, field in RenderConfig.model_fields.items()}
    return [f"{name}.{key}" for name, model in sections.items() for key in model.model_fields]  # type: ignore[union-attr]


def _problems(document: Mapping[str, Any], origins: Mapping[str, str], label: str, with_key: bool = True) -> list[str]:
    """The errors of a document, each with the place where its key was given; for an item of a list, the list's."""
    try:
        RenderConfig.model_validate(document)
    except ValidationError as error:
        found = []
        for details in error.errors():
            key = ".".join(str(part) for part in details["loc"][:2])
            found.append(f"{origins.get(key, label)}: {_explain_key(details, with_key)}")
        return found
    return []


def _explain_key(error: ErrorDetails, with_key: bool) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
    section = RenderConfig.model_fields.get(str(error["loc"][0]))
    field = section.annotation.model_fields.get(dotted.partition(".")[2]) if section else None  # type: ignore[union-attr]
    message = explain(error, field, _candidates(dotted), dotted)
    return f"{printable(dotted)}: {message}" if with_key else message
