"""RemoteFolder: which of a store's files count as files of the folder."""

from __future__ import annotations

from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ltx_dist.store.remote_folder import RemoteFolder


def test_names_that_lead_out_of_the_folder_are_left_out(monkeypatch: pytest.MonkeyPatch):
    names = ["a.json", "sub/b.mp4", "../escaped.json", "sub/../../escaped.mp4", ".hidden", "c..d.mp4"]

    def find(store: MemoryFileSystem, root: str, detail: bool) -> dict[str, Any]:
        return {f"{root}/{name}": {"size": 1} for name in names}

    monkeypatch.setattr(MemoryFileSystem, "find", find)
    assert sorted(RemoteFolder("memory://bucket/out").entries()) == ["a.json", "c..d.mp4", "sub/b.mp4"]
