"""What `auto` stands for in `model.precision` and `model.vae_precision`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx_dist.inputs.config_file import load_config
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.run.batch import open_batch


def test_a_vae_beside_float16_is_in_float32_unless_it_is_asked_for(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\n")

    def vae(*settings: str) -> str:
        batch = open_batch(str(prompts), load_config(None, ["model.checkpoint=demo", *settings]))
        return batch.storage(batch.config.model.precision).vae_precision(batch.config.model.precision)

    assert vae("model.precision=float16") == "float32"
    assert vae("model.precision=float16", "model.vae_precision=float16") == "float16"
    assert vae("model.precision=bfloat16") == "bfloat16"


TURING = DeviceInfo("NVIDIA T4", 16 * 10**9, compute_capability=(7, 5))
ADA = DeviceInfo("NVIDIA L4", 24 * 10**9, compute_capability=(8, 9))
UNKNOWN = DeviceInfo("NVIDIA X", 24 * 10**9)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ((), "float32"),
        ((ADA,), "bfloat16"),
        ((UNKNOWN,), "bfloat16"),
        ((TURING, TURING), "float32"),
        ((TURING, ADA), "bfloat16"),
    ],
)
def test_weights_are_in_bfloat16_unless_every_gpu_lacks_it(
    tmp_path: Path, gpus: tuple[DeviceInfo, ...], expected: str
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\n")
    batch = open_batch(str(prompts), load_config(None, ["model.checkpoint=demo"]))
    inventory = Inventory(gpus, 4)
    assert batch.precision(inventory) == expected
    if gpus == (TURING, ADA):
        with pytest.raises(ValueError, match=r"NVIDIA T4 \(compute capability 7\.5\) has no efficient kernels"):
            batch.placement(inventory)
    elif gpus:
        assert {worker.device_name for worker in batch.placement(inventory).workers} <= {gpu.name for gpu in gpus}
