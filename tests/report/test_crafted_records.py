"""Run records that were edited or made up: every view shows or refuses them, and none crashes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_run_record import COMPLETIONS, PLACEMENT
from tiers import examples
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.report.run_record import Counts, build_run_record, read_run_record

RECORD: dict[str, Any] = json.loads(
    json.dumps(build_run_record(Counts(5, 2, 1, 2, skipped=1), PLACEMENT, COMPLETIONS, 75))
)

ODD = st.sampled_from(
    [None, True, -1, 0, 1e308, 10**400, float("inf"), float("nan"), "", "x", "\udc80", [], [None], {}, {"x": None}]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to each part of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, part in items for found in ((*path, key), *places(part, (*path, key)))]


def changed(path: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    record = copy.deepcopy(RECORD)
    part: Any = record
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = odd
    return record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".ltx-dist").mkdir()
    return tmp_path


@pytest.mark.fault(12)
@pytest.mark.parametrize("command", ["timeline", "report", "trace", "verify"])
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(places(RECORD)), odd=ODD)
def test_no_view_of_a_crafted_record_crashes(folder: Path, command: str, path: tuple[Any, ...], odd: Any) -> None:
    (folder / "run.json").write_text(json.dumps(changed(path, odd)))
    result = CliRunner().invoke(app, [command, str(folder)])
    assert result.exception is None or isinstance(result.exception, SystemExit), (path, odd, result.exception)
    assert result.exit_code in (0, 2, 3), result.output


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        (("events", 0, "started"), float("inf")),
        (("events", 0, "worker_id"), "gpu-9"),
        (("events", 0, "stage"), "paint"),
        (("makespan_seconds",), True),
        (("workers", 0, "device"), None),
        (("exit_code",), "0"),
        (("stages", 0, "name"), None),
        (("stages", 0, "runs_on"), "moon"),
    ],
)
def test_a_record_with_one_part_wrong_is_not_ours(folder: Path, path: tuple[Any, ...], odd: Any) -> None:
    (folder / "run.json").write_text(json.dumps(RECORD))
    assert read_run_record(folder) == RECORD
    (folder / "run.json").write_text(json.dumps(changed(path, odd)))
    with pytest.raises(ValueError, match="not a run record of ltx-dist"):
        read_run_record(folder)
