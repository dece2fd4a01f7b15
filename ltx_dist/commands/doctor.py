"""`doctor`: what this machine has, what will fail, and the remedies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ltx_dist.commands.shared import Config, Model, Profile, Set, load
from ltx_dist.messages import count, tell

if TYPE_CHECKING:
    from ltx_dist.doctor.finding import Check, Finding
    from ltx_dist.inputs.config import RenderConfig

EXIT_FAILURES = 3

MARKS = {"ok": "ok     ", "warning": "WARNING", "failure": "FAILURE"}


def doctor(
    model: Model = None,
    profile: Profile = None,
    config: Config = None,
    set_: Set = None,
    output: Annotated[str, typer.Option("-o", "--output", help="The output folder to check.")] = "out",
    address: Annotated[
        str | None,
        typer.Option(help="A cluster to check: HOST:PORT of its head, or http://HOST:PORT of its job server."),
    ] = None,
) -> None:
    """Check this machine, the config's checkpoint, the output folder and a cluster. Exits with 3 if a check fails."""
    from ltx_dist.doctor.finding import Status, examine

    counts = dict.fromkeys(Status, 0)
    for finding in examine(_checks(_Settings(config, set_, profile, model), output, address)):
        counts[finding.status] += 1
        tell(_line(finding))
    tell(f"{count(counts[Status.FAILURE], 'failure')}, {count(counts[Status.WARNING], 'warning')}")
    sys.exit(EXIT_FAILURES if counts[Status.FAILURE] else 0)


def _line(finding: Finding) -> str:
    remedy = f"\n{'':24}-> {finding.remedy}" if finding.remedy else ""
    return f"{MARKS[finding.status.value]}  {finding.subject:<13}  {finding.text}{remedy}"


def _checks(settings: _Settings, output: str, address: str | None) -> Iterator[Check]:
    """Yield the checks one by one, so that a module that cannot be imported fails only its own check."""
    from ltx_dist.cluster.given_address import given_address
    from ltx_dist.doctor import cluster, machine, packages, storage
    from ltx_dist.doctor.finding import Check

    yield Check("python", packages.check_python)
    yield Check("packages", packages.check_packages)
    yield Check("config", settings.check)
    wants_gpu = settings.config is not None and settings.config.placement.device == "cuda"
    yield Check("gpu", lambda: machine.check_gpus(wants_gpu))
    yield Check("torch", lambda: packages.check_torch(machine.count_gpus(), wants_gpu))
    yield Check("paging", lambda: machine.check_paging(machine.count_gpus()))
    yield Check("codecs", packages.check_codecs)
    yield Check("ray", packages.check_ray)
    yield Check("shared memory", machine.check_shared_memory)
    joined, source = given_address(address)
    if joined:
        yield Check("cluster", lambda: cluster.check_cluster(joined, source))
    if settings.config is not None:
        model = settings.config.model
        asked = model.checkpoint, model.text_encoder, model.version, model.upscaler
        yield Check("checkpoint", lambda: storage.check_checkpoint(*asked))
    yield Check("output", lambda: storage.check_output(output))


class _Settings:
    """Holds the config once its own check has read it; None if it has errors."""

    def __init__(self, path: Path | None, overrides: list[str] | None, profile: str | None, model: str | None) -> None:
        self._path, self._overrides, self._profile, self._model = path, overrides, profile, model
        self.config: RenderConfig | None = None

    def check(self) -> Iterator[Finding]:
        from ltx_dist.doctor.finding import failure, ok

        try:
            self.config = load(self._path, self._overrides, self._profile, self._model)
        except ValueError as error:
            for mistake in str(error).splitlines():
                what, _, remedy = mistake.partition("; ")
                yield failure("config", what, remedy or "correct it; `ltx-dist config` prints every key")
        else:
            yield ok("config", ", ".join(map(str, filter(None, (self._profile, self._path)))) or "defaults")
