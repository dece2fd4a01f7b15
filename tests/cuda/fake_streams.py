"""CUDA streams and events on a CPU: vector clocks find accesses to memory that nothing orders.

Code that moves weights runs on CPU tensors under `Watch`, with its streams and events replaced. Each operator is one
access of the current stream to the storages that it reads and writes. Two accesses are ordered if an event, a wait or
the host orders them. A write that is not ordered with a read or a write of the same memory is a hazard, and so is
memory that is freed while a stream other than its own may still use it. (L. Lamport, Time, Clocks, and the Ordering of
Events, 1978.)
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Clock = dict[str, int]

VIEWS = {
    "_has_compatible_shallow_copy_type", "set_data", "view_as", "_reshape_alias", "select", "permute", "as_strided",
    "squeeze", "split", "unbind", "record_stream", "view", "slice", "detach", "t", "_unsafe_view", "transpose",
    "unsqueeze", "expand", "alias",
}  # fmt: skip
"""Operators that touch no memory."""


class World:
    """What has happened on every stream, and the hazards found so far."""

    def __init__(self) -> None:
        self.clocks: dict[str, Clock] = {}
        self.current = "main"
        self.host: Clock = {}
        self.memory: dict[int, Memory] = {}
        self.hazards: list[str] = []

    def tick(self, stream: str) -> int:
        """The time of a new operation, which begins after all that the host has waited for."""
        clock = self.clocks.setdefault(stream, {})
        merge(clock, self.host)
        clock[stream] = clock.get(stream, 0) + 1
        return clock[stream]

    def is_before(self, access: tuple[str, int], stream: str) -> bool:
        """Whether the access ends before whatever comes next on the stream."""
        name, time = access
        return name == stream or self.clocks.get(stream, {}).get(name, 0) >= time or self.host.get(name, 0) >= time


@dataclass
class Memory:
    """A storage. owner: the stream it was allocated on; None for the host's, which torch's allocator guards itself."""

    size: int
    owner: str | None
    written: tuple[str, int] | None = None
    read: list[tuple[str, int]] = field(default_factory=list)
    uses: Clock = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)
    ended: Any = None


def merge(clock: Clock, other: Clock) -> None:
    for name, time in other.items():
        clock[name] = max(clock.get(name, 0), time)


def fake_streams(monkeypatch: pytest.MonkeyPatch) -> World:
    """Replaces torch's streams, events and `record_stream` until the test ends."""
    world = World()

    class Stream:
        number = 0

        def __init__(self, device: object = None, name: str | None = None) -> None:
            Stream.number += 1
            self.name = name or f"side {Stream.number}"

        def wait_event(self, event: Event) -> None:
            merge(world.clocks.setdefault(self.name, {}), event.at)

        def wait_stream(self, other: Stream) -> None:
            event = Event()
            event.record(other)
            self.wait_event(event)

    class Event:
        def __init__(self, *_: object, **__: object) -> None:
            self.at: Clock = {}

        def record(self, stream: Stream | None = None) -> None:
            name = stream.name if stream else world.current
            world.tick(name)
            self.at = dict(world.clocks[name])

        def synchronize(self) -> None:
            merge(world.host, self.at)

    main = Stream(name="main")

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        before, world.current = world.current, stream.name
        try:
            yield
        finally:
            world.current = before

    def record_stream(tensor: torch.Tensor, stream: Stream) -> None:
        if (known := world.memory.get(id(tensor.untyped_storage()))) is not None:
            known.recorded.add(stream.name)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: main)
    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    return world


class Watch(TorchDispatchMode):
    """Notes every access of the operators inside it. Storages made outside are the host's."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = {id(tensor.untyped_storage()) for tensor in inputs}
        made = func(*args, **kwargs)
        memories = {id(tensor.untyped_storage()): self._memory(tensor, None) for tensor in inputs}
        if func._schema.name.split("::")[1] in VIEWS:
            return made
        stream = self._world.current
        time = self._world.tick(stream)
        changed = {
            id(value.untyped_storage())
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info and argument.alias_info.is_write and isinstance(value, torch.Tensor)
        }
        for key, memory in memories.items():
            self._access(memory, stream, time, func, is_write=key in changed)
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and id(leaf.untyped_storage()) not in known:
                self._access(self._memory(leaf, stream), stream, time, func, is_write=True)
        return made

    def _access(self, memory: Memory, stream: str, time: int, func: Any, is_write: bool) -> None:
        world = self._world
        if memory.written and not world.is_before(memory.written, stream):
            verb = "writes" if is_write else "reads"
            world.hazards.append(f"{stream} {verb} ({func}) what {memory.written[0]} may still write")
        if is_write:
            for reader in memory.read:
                if not world.is_before(reader, stream):
                    world.hazards.append(f"{stream} writes ({func}) what {reader[0]} may still read")
            memory.written, memory.read = (stream, time), []
        else:
            memory.read.append((stream, time))
        memory.uses[stream] = time

    def _memory(self, tensor: torch.Tensor, owner: str | None) -> Memory:
        storage = tensor.untyped_storage()
        key, memories, world = id(storage), self._world.memory, self._world
        if key in memories:
            return memories[key]
        memory = memories[key] = Memory(storage.nbytes(), owner)

        def freed(_: Any) -> None:
            memories.pop(key, None)
            for stream, time in memory.uses.items() if memory.owner else ():
                guarded = stream in memory.recorded or world.is_before((stream, time), memory.owner or "")
                if not guarded:
                    size = memory.size
                    world.hazards.append(f"{size} bytes of {memory.owner} are freed while {stream} may still use them")

        memory.ended = weakref.ref(storage, freed)
        return memory
