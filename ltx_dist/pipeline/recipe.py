"""Recipes: the stages that turn a request into a clip, as data.

A recipe is a chain. A stage may read the output of any earlier stage, but their order is total: branches inside one
clip would gain under 1 % of a batch, and joins let bounded queues deadlock. A request runs a subset of its recipe's
stages, in order: stages whose output exists, or is not needed, are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from operator import attrgetter
from typing import Literal


@dataclass(frozen=True, slots=True)
class Component:
    """A network by diffusers' name, and the traits that decide what a worker may try with it.

    blocks: dotted name of the list of blocks that it calls in order, so that it can be streamed through a device block
        by block; empty if it cannot.
    has_tiles: its stage can work in smaller tiles.
    is_transformer: its linear layers can be kept in float8.
    part: the part of the checkpoint that holds its weights, if its name differs.
    has_config: the checkpoint holds a config.json for it, from which its cost is estimated.
    """

    name: str
    blocks: str = ""
    has_tiles: bool = False
    is_transformer: bool = False
    part: str = ""
    has_config: bool = True


@dataclass(frozen=True, slots=True)
class StageLabel:
    """How views show a stage: `letter` in the timeline, `verb` in the live view, `noun` for what does the work in
    advice, `colour` on the page (a CSS custom property's value)."""

    letter: str
    verb: str
    noun: str
    colour: str


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One step of a recipe.

    name: unique in its recipe; appears in records, keys and views.
    operation: which class of the model family runs it. Two stages may share one.
    components: weights that it needs on the device, by diffusers' names; () on the host.
    inputs: names of the earlier stages whose outputs it reads.
    files: parts of the checkpoint that it reads beside the weights of its components, such as `scheduler`.
    settings: fields and properties of the request that it depends on beyond those of its inputs. Its key, which
        requests may share a pass, and what a later `decode` may change all follow from this.
    run_settings: what it depends on that is the same for all requests of a run: `tiling`, `mp4`.
    runs_on: `host` stages run beside the device, on the host of the worker that ran the stage before.
    keeps: what becomes of its output: `spool` keeps it until the clip is published, so that a rerun resumes after it;
        `cache` keeps it for later batches.
    shares_pass: several requests with equal settings may share one forward pass.
    alone_with: the request's attribute that, where true, gives the request a pass to itself all the same.
    steps: the request's attribute that counts its denoising steps, each of which it reports; empty if it has none.
    only_with: the request's attribute that must be true for the stage to run; empty if every request runs it.
    replaces: an earlier stage whose output this one's supersedes: a stage that names both as inputs reads this one's
        where the request runs it.
    share: rough share of a clip's time. Ranks the stages that a device should host where nothing better is known.
    """

    name: str
    operation: str
    label: StageLabel
    components: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    run_settings: tuple[str, ...] = ()
    runs_on: Literal["device", "host"] = "device"
    keeps: Literal["nothing", "spool", "cache"] = "nothing"
    shares_pass: bool = False
    alone_with: str = ""
    steps: str = ""
    only_with: str = ""
    replaces: str = ""
    share: float = 0.0

    def shares_with(self, request: object) -> bool:
        """Whether the request may share a pass with others."""
        return self.shares_pass and not (self.alone_with and attrgetter(self.alone_with)(request))


@dataclass(frozen=True)
class Recipe:
    """The stages in order, each after its inputs."""

    name: str
    stages: tuple[StageSpec, ...]

    def __post_init__(self) -> None:
        known: set[str] = set()
        for position, stage in enumerate(self.stages):
            assert stage.name not in known, f"{self.name}: two stages are named {stage.name}"
            assert known.issuperset(stage.inputs), f"{self.name}: {stage.name} reads what no earlier stage makes"
            assert stage.runs_on == "device" or position, f"{self.name}: a host stage needs a worker before it"
            assert stage.runs_on == "device" or not stage.components, f"{self.name}: {stage.name} has no device"
            known.add(stage.name)

    def __iter__(self) -> Iterator[StageSpec]:
        return iter(self.stages)

    def __getitem__(self, name: str) -> StageSpec:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    @cached_property
    def on_device(self) -> tuple[str, ...]:
        """Names of the stages that need a device: those that requests queue for."""
        return tuple(stage.name for stage in self.stages if stage.runs_on == "device")

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The device stages, grouped by shared components; groups are in the order of their first stages."""
        groups: list[list[str]] = []
        for name in self.on_device:
            of = set(self[name].components)
            shares = (group for group in groups if any(of.intersection(self[other].components) for other in group))
            if (group := next(shares, None)) is None:
                groups.append([name])
            else:
                group.append(name)
        return tuple(map(tuple, groups))

    @cached_property
    def main(self) -> tuple[str, ...]:
        """The stages that usually take most of a clip's time, and those that run on the same components."""
        return max(self.groups, key=lambda group: max(self[name].share for name in group))

    @cached_property
    def always(self) -> Recipe:
        """The recipe of only those stages that every request runs, without inputs from the others."""
        kept = [stage for stage in self.stages if not stage.only_with]
        names = {stage.name for stage in kept}
        pruned = [replace(s, inputs=tuple(name for name in s.inputs if name in names)) for s in kept]
        return Recipe(f"{self.name} from text", tuple(pruned))

    def of(self, request: object) -> tuple[str, ...]:
        """The stages that this request runs, in order."""
        return tuple(s.name for s in self.stages if not s.only_with or attrgetter(s.only_with)(request))

    def feeding(self, name: str) -> tuple[str, ...]:
        """The device stages that may directly precede this one: back to, and including, the last that every request
        runs."""
        found: list[str] = []
        for earlier in reversed(self.on_device[: self.on_device.index(name)]):
            found.append(earlier)
            if not self[earlier].only_with:
                break
        return tuple(found)

    def hands_on(self, name: str) -> bool:
        """Whether the stage's output may leave its worker; a device stage with host stages after it hands it to those
        only."""
        return self[name].runs_on == "host" or not self.host_stages_after(name)

    def host_stages_after(self, name: str) -> tuple[str, ...]:
        """The host stages that follow a device stage directly: they run on the worker that ran it."""
        after = self.stages[self.position(name) + 1 :]
        return tuple(stage.name for stage in takewhile(lambda stage: stage.runs_on == "host", after))

    def position(self, name: str) -> int:
        return self._positions[name]

    def ordered(self, names: Collection[str]) -> tuple[str, ...]:
        """These stages in the order of the chain."""
        return tuple(name for name in self.names if name in names)

    def needed(self, wanted: Sequence[str], made: Collection[str]) -> tuple[str, ...]:
        """The stages among `wanted` that are left to run, in order, given the outputs of the stages `made`.

        The last stage is always wanted; an earlier one only while a stage that is to run reads its output.
        """
        left: list[str] = []
        read: set[str] = {wanted[-1]}
        for name in reversed(wanted):
            if name in read and name not in made:
                left.append(name)
                read |= self.reads(name, wanted)
        return tuple(reversed(left))

    def reads(self, name: str, wanted: Collection[str]) -> set[str]:
        """The stages among `wanted`, those of one request, whose outputs this one reads."""
        inputs = [self[given] for given in self[name].inputs if given in wanted]
        return {given.name for given in inputs} - {given.replaces for given in inputs}

    @cached_property
    def _by_name(self) -> dict[str, StageSpec]:
        return {stage.name: stage for stage in self.stages}

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}
