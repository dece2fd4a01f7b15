"""A prompt file, the config's defaults and the preset -> RenderRequests. All errors are reported together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.images_folder import ImagesFolder
from ltx_dist.inputs.media_rows import LoraRow
from ltx_dist.inputs.names import MAX_NAME, MAX_PART_BYTES, default_name
from ltx_dist.inputs.passes import can_refine, has_two_passes
from ltx_dist.inputs.preset import Preset
from ltx_dist.inputs.prompt_files import PromptFile, Prompts, read_prompt_file
from ltx_dist.inputs.prompt_messages import known_keys_once, one_checkpoint_once, unexpanded_parts
from ltx_dist.inputs.prompt_row import Row, check_row
from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.inputs.row_parts import PartsResolver
from ltx_dist.inputs.rows import MAX_ROWS, Doubt, Item, Problem
from ltx_dist.inputs.schedules import overlaid
from ltx_dist.inputs.variants import Variant, variation_of
from ltx_dist.inputs.windows import asks_for_windows, with_segments_joined
from ltx_dist.messages import Mistakes, printable, show
from ltx_dist.pipeline.request import MAX_SEED, RenderRequest


def read_prompts(
    source: Prompts,
    defaults: DefaultsConfig,
    preset: Preset,
    checkpoint: Checkpoint,
    warnings: list[str] | None = None,
    loras: Sequence[LoraRow] = (),
    reading: PromptsConfig | None = None,
    notes: dict[str, dict[str, Any]] | None = None,
    images: Path | None = None,
) -> list[RenderRequest]:
    """The requests of a prompt file (.txt, .csv, .tsv, .jsonl, .json, .yaml, .yml, .parquet), in its order.

    source: a path or URL, `-` for standard input, or texts and mappings, which are rows 1, 2, ... The other parameters
    are those of `requests_of`. Raises ValueError for a file that cannot be read, and for errors in rows.
    """
    reading = reading or PromptsConfig()
    file = read_prompt_file(source, reading)
    return requests_of(
        file, defaults, preset, checkpoint, reading, loras=loras, warnings=warnings, notes=notes, images=images
    )


def requests_of(
    file: PromptFile,
    defaults: DefaultsConfig,
    preset: Preset,
    checkpoint: Checkpoint,
    reading: PromptsConfig,
    *,
    loras: Sequence[LoraRow] = (),
    warnings: list[str] | None = None,
    notes: dict[str, dict[str, Any]] | None = None,
    images: Path | None = None,
) -> list[RenderRequest]:
    """The requests of a prompt file that has been read, in its order.

    reading: the config's section `prompts`. loras: the config's `model.loras`. Media and LoRAs are opened and hashed;
    their paths are relative to the prompt file's folder. warnings: gets a line for each setting that may not be meant.
    notes: gets each clip's notes for its sidecar, by name: the row's `meta`, and `variation`, with the name that the
    clips of a row share and this clip's values. images: a folder of first frames, each for the clip of the same name.

    A field's value is the row's, or else that of `defaults`, or else the preset's. Raises ValueError with one line per
    error: `prompts.csv:7: height: 130 is not a multiple of 32; use 128 or 160`.
    """
    first_frames = ImagesFolder(images) if images is not None else None
    resolver = _Resolver(defaults, preset, checkpoint, file.folder, loras, reading, first_frames)
    for position, item in enumerate(file.items):
        resolver.add(position, item)
        if len(resolver.requests) > MAX_ROWS:
            raise ValueError(f"{file.label}:{item.line}: vary: at most {MAX_ROWS} clips are allowed; split the file")
    by_line = sorted([*file.problems, *resolver.problems], key=lambda problem: problem.line)
    messages = [f"{file.label}:{problem.line}: {problem.message}" for problem in by_line]
    if messages := resolver.problems_of_all_rows() + known_keys_once(one_checkpoint_once(messages)):
        raise Mistakes(messages)
    if warnings is not None:
        doubts = [*file.doubts, *unexpanded_parts(resolver.requests), *resolver.doubts]
        warnings += dict.fromkeys(f"{file.label}:{doubt.line}: {doubt.message}" for doubt in doubts)
        warnings += first_frames.warnings() if first_frames else ()
    if notes is not None:
        notes |= resolver.notes
    return [request for _, request in resolver.requests]


class _Resolver:
    """Converts items to requests one by one, and collects errors and taken names."""

    def __init__(
        self,
        defaults: DefaultsConfig,
        preset: Preset,
        checkpoint: Checkpoint,
        folder: Path | str,
        loras: Sequence[LoraRow],
        reading: PromptsConfig,
        images: ImagesFolder | None,
    ) -> None:
        self.requests: list[tuple[Item, RenderRequest]] = []
        self.notes: dict[str, dict[str, Any]] = {}
        self.problems: dict[Problem, None] = {}
        self.doubts: list[Doubt] = []
        self._images = images
        self._checkpoint, self._preset, self._seed = checkpoint, preset, defaults.seed
        self._is_refinable = can_refine(checkpoint)
        self._named = defaults.named
        self._variation, self._wrong_axes = variation_of(defaults, reading, folder)
        self._wrong_values: dict[tuple[str, str], None] = {}
        self._defaults = defaults.model_dump(exclude={"seed"}, exclude_none=True)
        self._parts = PartsResolver(folder, checkpoint, preset, self._defaults, loras)
        self._fallback = overlaid(preset.settings, self._defaults)
        first = preset.two_passes.first if preset.two_passes else {}
        self._fallback_of_two = overlaid(overlaid(preset.settings, first), self._defaults)
        self._wrong_fallback: dict[str, str] = {}
        self._line_of_name: dict[str, int] = {}

    def add(self, position: int, item: Item) -> None:
        """Add the requests of an item, or note why there are none."""
        content = {"prompt": item.content} if isinstance(item.content, str) else item.content
        if not isinstance(content, dict):
            self._note(item, f"{show(content)} is neither a prompt nor a mapping with one{_quoted(content)}")
            return
        # A key with half a surrogate pair could not even be printed.
        given = {str(key).encode(errors="backslashreplace").decode(): value for key, value in content.items()}
        # A null means "not set", like an empty cell.
        given = {key: value for key, value in given.items() if value is not None or key not in Row.model_fields}
        try:
            given = with_segments_joined(given)
        except ValueError as error:
            self._note(item, str(error))
            return
        variants, problems = self._variation.of(given, self._seed + position)
        for problem in problems:
            self._note(item, problem)
        # Other errors are reported together with those of `vary`.
        for variant in variants or [Variant(given)]:
            request = self._resolve(position, item, variant)
            if request is not None:
                self.requests.append((item, request))

    def _resolve(self, position: int, item: Item, variant: Variant) -> RenderRequest | None:
        """The request of a variant, or None after recording its errors."""
        given = {
            key: value for key, value in variant.content.items() if value is not None or key not in Row.model_fields
        }
        two_passes = self._has_two_passes(item, given)
        fallback = self._fallback_of_two if two_passes else self._fallback
        row, wrong = check_row(overlaid(fallback, given), self._checkpoint)
        for key, message in wrong.items():
            if key in variant.of_batch:
                self._wrong_values[key, message] = None
            elif key in fallback and key not in given:
                self._wrong_fallback[key] = message
            else:
                self._note(item, f"{printable(key)}: {message}")
        of_clip = {key: value for key in ("num_videos_per_prompt", "vary", "meta") if (value := row.pop(key, None))}
        if "prompt" in row and "name" not in wrong:
            self._set_name(position, item, row, variant)
        seed = row.setdefault("seed", self._seed + position)
        if seed > MAX_SEED:
            self._note(item, f"seed: defaults.seed plus the position is {seed}; at most {MAX_SEED} is allowed")
        if wrong or two_passes is None:
            return None
        if "meta" in of_clip:
            self.notes.setdefault(row["name"], {})["meta"] = of_clip["meta"]
        self._pair(item, row)
        parts = self._resolve_parts(item, row, two_passes)
        return None if parts is None else RenderRequest(request_id=row.pop("name"), **(row | parts))

    def _set_name(self, position: int, item: Item, row: dict[str, Any], variant: Variant) -> None:
        """Complete the name of a row; record an error if it is taken or too long."""
        given, suffix = row.get("name"), variant.suffix
        shared = given if given is not None else default_name(position, variant.template or row["prompt"])
        row["name"] = (shared if given is not None else shared[: MAX_NAME - len(suffix)].rstrip("-")) + suffix
        too_long = len(row["name"]) > MAX_NAME or len(row["name"].encode()) > MAX_PART_BYTES
        if suffix and (too_long or len(suffix) > MAX_NAME - len("000001-a")):
            self._note(
                item,
                f"name: has more than {MAX_NAME} characters with what varies; set a shorter one, or give the values "
                "labels: {soft: ..., hard: ...}",
            )
        if suffix:
            self.notes[row["name"]] = {"variation": {"of": shared, "values": dict(variant.values)}}
        self._claim(item, row["name"])

    def _pair(self, item: Item, row: dict[str, Any]) -> None:
        """Give the row the `--images` file with its name."""
        found = self._images.take(row["name"]) if self._images else None
        if found and row.get("image"):
            self._note(item, f"image: --images also has {found.name} for this row; leave one of the two out")
        elif found:
            row["image"] = str(found)

    def _has_two_passes(self, item: Item, given: dict[str, Any]) -> bool | None:
        """Whether a row asks for two passes; None after noting why that is unclear."""
        recipe, settings = (given.get(key, self._defaults.get(key)) for key in ("recipe", "second_pass"))
        if given.get("recipe") == "one_pass" and given.get("second_pass"):
            self._note(item, "second_pass: recipe is one_pass; leave one of the two out")
            return None
        try:
            if asks_for_windows(given) and recipe is None and not given.get("second_pass"):
                recipe, settings = "one_pass", None
            return has_two_passes(recipe, settings, self._preset, self._checkpoint, self._is_refinable)
        except ValueError as error:
            self._note(item, f"{'second_pass' if given.get('second_pass') else 'recipe'}: {error}")
            return None

    def _resolve_parts(self, item: Item, row: dict[str, Any], two_passes: bool) -> dict[str, Any] | None:
        """Media, second pass, windows, LoRAs and sound; or None after noting what is wrong."""
        given = item.content if isinstance(item.content, dict) else {}
        parts = self._parts.resolve(row, given, two_passes)
        self.doubts += [Doubt(item.line, message) for message in self._parts.warnings]
        for field, message in self._parts.problems:
            self._note(item, f"{field}: {message}")
        return None if self._parts.problems else parts

    def problems_of_all_rows(self) -> list[str]:
        """Errors in values of config and preset that rows rely on, each reported once and not for every row."""
        varied = [*self._wrong_axes, *(f"{printable(key)}: {message}" for key, message in self._wrong_values)]
        of_defaults, of_preset = [f"{self._named('vary')}: {problem}" for problem in varied], []
        for key in Row.model_fields:
            message = self._wrong_fallback.get(key)
            if message and key in self._defaults:
                of_defaults.append(f"{self._named(key)}: {message}")
            elif message:
                remedy = f"in the prompt file or as defaults.{key}"
                of_preset.append(f"preset {self._preset.version}: {key}: {message} {remedy}")
        return of_defaults + of_preset

    def _claim(self, item: Item, name: str) -> None:
        line = self._line_of_name.get(name.casefold())
        if line is None:
            self._line_of_name[name.casefold()] = item.line
        else:
            self._note(item, f"name: {name!r} is taken by line {line} (case does not count); choose another")

    def _note(self, item: Item, message: str) -> None:
        self.problems[Problem(item.line, message)] = None  # once per row, however many clips it makes


def _quoted(content: object) -> str:
    """A hint to quote: YAML does not read `no` and `7` as strings."""
    return "; put text in quotes" if isinstance(content, bool | int | float) else ""
