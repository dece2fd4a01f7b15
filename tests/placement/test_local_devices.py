"""The GPUs of a machine as a stand-in for nvidia-smi lists them; and drivers that do not answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ltx_dist.placement import local_devices
from ltx_dist.placement.local_devices import MIG_SLICE, local_inventory, visible_devices

TWO = """0, GPU-aaaa, 24564, [N/A], 8.9, NVIDIA GeForce RTX 4090
1, GPU-bbbb, 81559, Disabled, 9.0, NVIDIA H100 80GB HBM3"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in, to be written by the test."""
    tool = tmp_path / "nvidia-smi"
    tool.touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tool


def lists(driver: Path, text: str) -> None:
    driver.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")


def found() -> list[tuple[str, int | None, int]]:
    return [(gpu.name, gpu.memory_bytes, gpu.index) for gpu in local_inventory().gpus]


def test_every_gpu_has_its_name_and_memory(driver: Path) -> None:
    lists(driver, TWO)
    assert found() == [
        ("NVIDIA GeForce RTX 4090", 24564 * 2**20, 0),
        ("NVIDIA H100 80GB HBM3", 81559 * 2**20, 1),
    ]


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1", ["NVIDIA H100 80GB HBM3"]),
        ("1,0", ["NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090"]),
        ("GPU-bb", ["NVIDIA H100 80GB HBM3"]),
        ("0,7,1", ["NVIDIA GeForce RTX 4090"]),
        ("MIG-cccc", [MIG_SLICE]),
        ("", []),
    ],
)
def test_those_that_are_visible_count(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str, names: list[str]
) -> None:
    lists(driver, TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.name for gpu in local_inventory().gpus] == names


@pytest.mark.parametrize("given", [None, "1,0", "GPU-bb, GPU-aa"])
def test_some_of_those_that_are_visible_can_be_hidden(
    driver: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    lists(driver, TWO)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    gpus = local_inventory().gpus
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible_devices(gpus[1:]))
    assert [gpu.name for gpu in local_inventory().gpus] == [gpu.name for gpu in gpus[1:]] != []


def test_of_a_gpu_that_is_cut_into_slices_the_memory_is_unknown(driver: Path) -> None:
    lists(driver, "0, GPU-aaaa, 81559, Enabled, 9.0, NVIDIA H100 80GB HBM3")
    assert found() == [(MIG_SLICE, None, 0)], "80 GB would be planned, and torch gets a slice of 10"


def test_a_board_that_does_not_tell_its_memory(driver: Path) -> None:
    lists(driver, "0, GPU-aaaa, [N/A], [N/A], 12.1, NVIDIA GB10")
    assert found() == [("NVIDIA GB10", None, 0)]


def test_every_gpu_has_its_compute_capability(driver: Path) -> None:
    lists(driver, TWO + "\n2, GPU-cccc, 6144, [N/A], [N/A], NVIDIA GeForce RTX 2060")
    assert [gpu.compute_capability for gpu in local_inventory().gpus] == [(8, 9), (9, 0), None]


def test_a_driver_that_does_not_know_compute_capabilities_still_lists_its_gpus(driver: Path) -> None:
    refused = 'Field "compute_cap" is not a valid field to query.'
    answer = "0, GPU-aaaa, 24564, [N/A], NVIDIA GeForce RTX 4090"
    script = f"case \"$1\" in *compute_cap*) echo '{refused}'; exit 2;; esac\necho '{answer}'"
    driver.write_text(f"#!/bin/sh\n{script}\n")
    assert found() == [("NVIDIA GeForce RTX 4090", 24564 * 2**20, 0)]
    assert local_inventory().gpus[0].compute_capability is None


def test_a_name_may_contain_commas(driver: Path) -> None:
    lists(
        driver, f"{TWO}\n2, GPU-cccc, 49140, [N/A], 8.9, NVIDIA L40S, 48Q, shared\n3, GPU-dddd, 16384, [N/A], 8.9, L4"
    )
    assert found()[2:] == [("NVIDIA L40S, 48Q, shared", 49140 * 2**20, 2), ("L4", 16384 * 2**20, 3)]


@pytest.mark.parametrize("row", ["0, [Unknown Error]", "0: GPU is lost"])
def test_a_gpu_that_is_listed_without_all_fields_is_an_error(driver: Path, row: str) -> None:
    lists(driver, f"{row}\n{TWO}")
    message = f"^nvidia-smi listed a GPU as '{re.escape(row)}', without all fields; update the driver, or set CUDA_"
    with pytest.raises(ValueError, match=message):
        local_inventory()


def test_gpus_that_are_listed_beside_a_warning_are_used(driver: Path) -> None:
    driver.write_text(f"#!/bin/sh\necho 'WARNING: infoROM is corrupted at gpu 0000:01:00.0'\necho '{TWO}'\nexit 14\n")
    assert [gpu.index for gpu in local_inventory().gpus] == [0, 1]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (18, "Failed to initialize NVML: Driver/library version mismatch"),
        (
            15,
            "Unable to determine the device handle for GPU 0000:3D:00.0: GPU is lost. Reboot the system to recover it",
        ),
    ],
)
def test_a_driver_that_fails_is_an_error_and_not_a_machine_without_gpus(driver: Path, code: int, said: str) -> None:
    driver.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    with pytest.raises(ValueError, match=f"^nvidia-smi failed: {said}; reload or reinstall the driver, or set CUDA_"):
        local_inventory()


def test_without_a_driver_there_are_no_gpus(driver: Path) -> None:
    driver.unlink()
    assert found() == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (9, "NVIDIA-SMI has failed because it could not communicate"),
        (6, "No devices were found"),
        (0, "No devices were found"),
    ],
)
def test_a_driver_without_a_card_has_none(driver: Path, code: int, said: str) -> None:
    driver.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    assert found() == []


def test_a_driver_that_hangs_is_an_error_and_not_a_machine_without_gpus(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_devices, "ANSWER_SECONDS", 0.5)
    driver.write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(ValueError, match="^nvidia-smi did not answer within 0 s: restart the driver, or set CUDA_VIS"):
        local_inventory()
    assert local_inventory("cpu").gpus == ()
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert found() == []
