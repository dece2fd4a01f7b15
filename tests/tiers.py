"""The tier of each test: what it needs to run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Tier = Literal["fast", "model", "system", "chaos"]

TIERS: dict[Tier, str] = {
    "fast": "needs neither torch nor Ray",
    "model": "needs torch and diffusers: tiny real checkpoints on a CPU",
    "system": "starts Ray, commands as processes, a browser or a terminal",
    "chaos": "kills processes and fills disks in long random runs",
}

HEAVY = ("torch", "ray", "diffusers", "transformers", "accelerate", "peft")
"""Packages that no test of the tier `fast` can import."""

LONGEST = (
    "cluster/test_cluster.py", "test_benchmarks_gpu.py", "cluster/test_ray_executor.py", "cluster/test_ray_job.py",
    "run/test_decode.py", "run/test_recovery.py", "run/test_embedding_reuse.py", "run/test_another_recipe.py",
    "test_signals.py", "test_streams.py", "test_cli.py", "test_recipes.py", "doctor/test_doctor.py",
)  # fmt: skip
"""The files that take longest. They run first, so that no process waits for one of them in the end."""

examples_share = 1.0
"""The share of the examples of long property tests that is drawn; the tier `fast` draws fewer."""


def examples(count: int) -> int:
    """The number of examples for a property test that draws `count` of them in a run of all tests."""
    return round(count * examples_share)


TIER_OF: dict[str, Tier] = {
    "scheduling": "fast",
    "engine": "fast",
    "pipeline": "fast",
    "planning": "fast",
    "placement": "fast",
    "placement/test_host_plan.py": "model",
    "estimates": "fast",
    "estimates/test_flops.py": "model",
    "estimates/test_memory.py": "model",
    "inputs": "fast",
    "inputs/test_cut_off.py": "model",
    "inputs/test_images_folder.py": "model",
    "inputs/test_media.py": "model",
    "inputs/test_odd_files.py": "model",
    "inputs/test_windows.py": "model",
    "media": "fast",
    "media/test_sound.py::test_the_seal_and_a_sidecar_tell_of_the_sound": "model",
    "media/test_preprocess.py": "model",
    "commands": "fast",
    "checkpoints": "fast",
    "checkpoints/test_checkpoint.py::test_ratios_are_those_of_the_real_vae": "model",
    "checkpoints/test_checkpoint.py::test_the_packaged_model_opens_and_agrees_with_diffusers": "model",
    "checkpoints/test_checkpoint.py::test_of_a_single_file_and_an_index_those_the_library_loads_are_named": "model",
    "checkpoints/test_hub.py": "system",
    "checkpoints/test_hub_headers.py": "system",
    "checkpoints/test_lora_files.py": "model",
    "checkpoints/test_published_forms.py": "model",
    "checkpoints/test_tokenizer_folder.py": "model",
    "models": "model",
    "models/test_clip_tags.py": "fast",
    "models/ltx2/test_ltx2_killed.py": "system",
    "weights": "model",
    "worker": "model",
    "store": "fast",
    "store/test_disk_space.py": "model",
    "store/test_artifacts.py": "model",
    "store/test_fail_points.py": "model",
    "store/test_foreign_files.py": "system",
    "store/test_links.py": "model",
    "store/test_object_store.py": "system",
    "store/test_publisher.py": "model",
    "store/test_publishing.py": "model",
    "report": "fast",
    "report/test_live_in_tmux.py": "system",
    "report/export": "model",
    "report/test_metadata_file.py": "model",
    "report/test_page.py": "system",
    "report/test_report.py": "model",
    "report/test_verify.py": "model",
    "run": "system",
    "run/test_batching.py": "model",
    "run/test_cost_store.py": "fast",
    "run/test_plan_work.py": "fast",
    "cluster": "system",
    "cluster/test_job_packages.py": "fast",
    "cluster/test_lost_cluster.py": "chaos",
    "cluster/test_submission.py": "fast",
    "doctor": "system",
    "test_architecture.py": "fast",
    "test_architecture.py::test_scripts_import_what_there_is": "model",
    "test_tiers.py": "fast",
    "test_reference.py": "fast",
    "test_docs.py": "fast",
    "test_dependencies.py": "fast",
    "test_settings_commands.py": "fast",
    "test_settings_commands.py::test_messages_name_the_requirements_of_the_extras": "model",
    "test_chaos.py": "chaos",
    "test_chaos_ray.py": "chaos",
    "": "system",
}
"""By path below tests/. The most specific entry counts: a test before its file, and a file before its folders."""


def tier_of(path: Path, test: str = "") -> Tier:
    """The tier of a test file, given relative to tests/, or of a test function in it."""
    if (tier := TIER_OF.get(f"{path.as_posix()}::{test}")) is not None:
        return tier
    for place in (path, *path.parents):
        name = "" if place == Path() else place.as_posix()
        if name in TIER_OF:
            return TIER_OF[name]
    raise AssertionError(f"{path} is not below tests/")
