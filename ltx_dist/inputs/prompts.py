"""A prompt file, the config's defaults and the preset -> RenderRequests. All errors are reported together."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.clip_settings import SOUND_FIELDS
from ltx_dist.inputs.columns import Columns
from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.images_folder import ImagesFolder
from ltx_dist.inputs.loras import LoraResolver
from ltx_dist.inputs.media import FIELDS as MEDIA_FIELDS
from ltx_dist.inputs.media import MediaResolver
from ltx_dist.inputs.media_rows import LoraRow, lora_rows
from ltx_dist.inputs.names import MAX_NAME, MAX_PART_BYTES
from ltx_dist.inputs.names import slug as slug_of
from ltx_dist.inputs.passes import has_two_passes, overlaid_schedule, second_pass
from ltx_dist.inputs.preset import Preset
from ltx_dist.inputs.prompt_files import Prompts, read_prompt_file
from ltx_dist.inputs.prompt_messages import known_keys_once, one_checkpoint_once, unexpanded_parts
from ltx_dist.inputs.prompt_row import Row, check_row
from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.inputs.rows import MAX_ROWS, Doubt, Item, Problem
from ltx_dist.inputs.schedules import overlaid
from ltx_dist.inputs.sound import sound_problems, sound_second_pass, sound_settings, sound_warnings
from ltx_dist.inputs.variants import Variant, variation_of
from ltx_dist.inputs.windows import FIELDS as WINDOW_FIELDS
from ltx_dist.inputs.windows import asks_for_windows, windows_of, with_segments_joined
from ltx_dist.media.checks import high_frame_rate_warning, refined_aspect_warning
from ltx_dist.messages import Mistakes, printable, show
from ltx_dist.pipeline.conditions import SecondPass
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

    source: a path or URL, `-` for standard input, or texts and mappings, which are rows 1, 2, ...

    What may be other than it was meant is added to `warnings`. loras: `model.loras` of the config. Media and LoRAs are
    opened and hashed; their paths are relative to the prompt file's folder. reading: the config's section `prompts`.
    What sidecars say of single clips is added to `notes`, by name: the row's `meta`, and `variation`, which has the
    name that the clips of a row share and the values of this one. images: a folder of first frames for the clips of the
    same names.

    A field's value is the row's, else that of `defaults`, else the preset's. Raises ValueError with a line for every
    error: `prompts.csv:7: height: 130 is not a multiple of 32; use 128 or 160`.
    """
    reading = reading or PromptsConfig()
    file = read_prompt_file(source, Columns(reading.columns, frozenset(reading.keep_columns)))
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
        self._media, self._images = MediaResolver(folder, checkpoint), images
        self._loras, self._model_loras = LoraResolver(folder, checkpoint, loras), loras
        self._checkpoint, self._preset, self._seed = checkpoint, preset, defaults.seed
        self._named = defaults.named
        self._variation, self._wrong_axes = variation_of(defaults, reading, folder)
        self._wrong_values: dict[tuple[str, str], None] = {}
        self._defaults = defaults.model_dump(exclude={"seed"}, exclude_none=True)
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
        # A key of half a surrogate pair could not even be printed.
        given = {str(key).encode(errors="backslashreplace").decode(): value for key, value in content.items()}
        # A null says not set, as an empty cell does.
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
        extra = self._resolve_extra(item, row, two_passes)
        return None if extra is None else RenderRequest(request_id=row.pop("name"), **(row | extra))

    def _set_name(self, position: int, item: Item, row: dict[str, Any], variant: Variant) -> None:
        """Complete the name of a row; record an error if it is taken or too long."""
        given, suffix = row.get("name"), variant.suffix
        shared = given if given is not None else _default_name(position, variant.template or row["prompt"])
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
            self._note(item, f"image: --images has {found.name} for this row, too; leave one of the two out")
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
            return has_two_passes(recipe, settings, self._preset, self._checkpoint)
        except ValueError as error:
            self._note(item, f"{'second_pass' if given.get('second_pass') else 'recipe'}: {error}")
            return None

    def _resolve_extra(self, item: Item, row: dict[str, Any], two_passes: bool) -> dict[str, Any] | None:
        """Media, second pass and LoRAs, of a row whose fields are right by themselves and lose those that ask for
        them; or None after recording its errors."""
        asked = {key: row.pop(key, None) for key in (*MEDIA_FIELDS, *WINDOW_FIELDS, "recipe", "second_pass", "loras")}
        media, adds = row | asked, list[LoraRow]()
        extra = self._media.resolve(media)
        problems = self._media.problems
        self.doubts += [Doubt(item.line, f"{field}: {message}") for field, message in self._media.warnings]
        if not any(asked[field] for field in ("image", "conditions", "reference")):
            row.pop("image_cond_noise_scale", None)  # it has no effect, and must not change the key
        try:
            if two_passes:
                of_row: dict[str, Any] = asked["second_pass"].model_dump() if asked["second_pass"] else {}
                of_preset = self._preset.two_passes.second if self._preset.two_passes else {}
                settings = overlaid_schedule(
                    overlaid_schedule(of_preset, self._defaults.get("second_pass", {})), of_row
                )
                make = sound_second_pass if self._checkpoint.generation else second_pass
                extra["second_pass"] = make(settings, media, self._checkpoint)
                adds = [LoraRow.model_validate(one) for one in lora_rows(settings.get("loras") or [])]
        except ValueError as error:
            problems.append(("second_pass", str(error)))
        try:
            extra["windows"] = windows_of(row, asked | {"second_pass": two_passes}, self._checkpoint)
        except ValueError as error:
            field, _, message = str(error).partition(": ")
            problems.append((field, message))
        if asks_for_windows(asked):
            row.pop("image_cond_noise_scale", None)  # their pipeline has no such noise
        try:
            of_config = asked["loras"] is None
            listed = self._model_loras if of_config else asked["loras"]
            folder = Path() if of_config else None
            extra["loras"] = self._loras.resolve(listed, folder, has_reference=bool(asked["reference"]))
        except ValueError as error:
            problems.append(("model.loras" if asked["loras"] is None else "loras", str(error)))
        else:
            self._add_to_second_pass(item, adds, extra, problems)
        if self._checkpoint.generation:
            of_sound = {key: row.pop(key, None) for key in SOUND_FIELDS}
            problems += sound_problems(of_sound, media, self._checkpoint)
            self.doubts += [Doubt(item.line, message) for message in sound_warnings(of_sound, media, self._checkpoint)]
            extra["sound"] = None if problems else sound_settings(of_sound, media)
        else:
            self.doubts += [Doubt(item.line, message) for message in _odd_settings(row, extra.get("second_pass"))]
        for field, message in problems:
            self._note(item, f"{field}: {message}")
        return None if problems else extra

    def _add_to_second_pass(
        self, item: Item, loras: Sequence[LoraRow], extra: dict[str, Any], problems: list[tuple[str, str]]
    ) -> None:
        """LoRAs of the second pass alone. Paths of the config are relative to the working directory."""
        if not loras:
            return
        of_row = isinstance(item.content, dict) and (item.content.get("second_pass") or {}).get("loras")
        try:
            found = self._loras.resolve(loras, None if of_row else Path(), beside=extra["loras"])
            extra["second_pass"] = replace(extra["second_pass"], loras=found)
        except ValueError as error:
            problems.append(("second_pass", f"loras: {error}"))

    def problems_of_all_rows(self) -> list[str]:
        """Errors in config and preset values that rows relied on, each once rather than per row."""
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


def _odd_settings(row: dict[str, Any], two: SecondPass | None) -> Iterator[str]:
    """Warnings about settings of an LTX-Video clip that may not be meant."""
    if message := high_frame_rate_warning(row["frame_rate"]):
        yield f"frame_rate: {message}"
    if two and (message := refined_aspect_warning(two.width, two.height, row["width"], row["height"])):
        yield f"second_pass: {message}"


def _quoted(content: object) -> str:
    """A hint to quote: YAML does not read `no` and `7` as strings."""
    return "; put text in quotes" if isinstance(content, bool | int | float) else ""


def _default_name(position: int, prompt: str) -> str:
    """`001-a-red-circle`: the position counted from 1 and what is plain ASCII of the prompt's first words.

    Words of a prompt without any ASCII stay in their own script.
    """
    ascii_only = unicodedata.normalize("NFKD", prompt[:400]).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:40].rstrip("-")
    words = slug or slug_of(prompt[:40])
    return f"{position + 1:03d}-{words}".rstrip("-")
