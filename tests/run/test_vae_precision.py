"""What `model.vae_precision: auto` stands for."""

from __future__ import annotations

from pathlib import Path

from ltx_dist.inputs.config_file import load_config
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
