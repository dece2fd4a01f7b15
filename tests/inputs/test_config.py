"""load_config: every config that ships loads; every error is one line that names its key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.config_file import cut_off_texts, load_config
from ltx_dist.inputs.profile import profile_path, profiles

REPOSITORY = Path(__file__).parents[2]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def errors(path: Path | None, *overrides: str) -> list[str]:
    with pytest.raises(ValueError) as caught:
        load_config(path, overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", profiles().values(), ids=lambda path: path.name)
def test_every_shipped_config_loads(path: Path) -> None:
    assert load_config(path) != RenderConfig()


def test_the_demo_config_pins_three_cpu_workers() -> None:
    placement = load_config(profile_path("demo")).placement
    assert (placement.layout, placement.device, placement.devices, placement.threads) == ("pinned", "cpu", 3, 1)


def test_without_file_and_overrides_everything_is_default() -> None:
    assert load_config(None) == RenderConfig()


def test_an_empty_file_and_empty_sections_are_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "a.yaml", "# nothing\n")) == RenderConfig()
    assert load_config(write(tmp_path / "b.yaml", "placement:\n  # devices: 3\n")) == RenderConfig()


def test_overrides_win_over_the_file_and_the_last_one_over_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "placement: {layout: pinned, devices: 3}\n")
    config = load_config(path, ["placement.layout=shared", "placement.layout=replicated", "placement.devices="])
    assert (config.placement.layout, config.placement.devices) == ("replicated", None)


def test_an_int_is_accepted_where_a_float_is_asked(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "a.yaml", "defaults: {frame_rate: 25}\n"), ["defaults.guidance_scale=1e-1"])
    assert (config.defaults.frame_rate, config.defaults.guidance_scale) == (25.0, 0.1)


def test_all_errors_of_file_and_overrides_come_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", "placement: {layuot: pinned, layout: pined}\noutput:\n  crf: 99\nmodle: {}\n")
    assert errors(path, "placement.devices=zero", "placement.layuot=shared") == [
        f"{path}:1: placement.layout: 'pined' is not one of 'auto', 'pinned', 'shared', 'replicated' or 'elastic'",
        f"{path}:1: placement.layuot: unknown key; did you mean placement.layout?",
        f"{path}:3: output.crf: 99 is too large; it must be at least 0 and at most 51",
        f"{path}:4: modle: unknown key; did you mean model?",
        "--set placement.devices=zero: 'zero' is not a whole number; it must be at least 1 and at most 4096",
        "--set placement.layuot=shared: unknown key; did you mean placement.layout?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("placement: 3", ":1: placement: 3 is not a mapping of settings"),
        ("layout: pinned", ":1: layout: unknown key; did you mean placement.layout?"),
        ("defaults: {height: true}", ":1: defaults.height: true is not a whole number"),
        ("defaults: {height: 12.5}", ":1: defaults.height: 12.5 is not a whole number"),
        ("defaults: {negative_prompt: no}", ":1: defaults.negative_prompt: false is not text; put it in quotes"),
        (
            "- a",
            ": not a mapping; write sections: model, placement, defaults, prompts, denoise, decode, output, recovery, "
            "cache",
        ),
        ("model:\n  version: [", ":2: not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: &a 1\nb: *a", ":2: not valid YAML: aliases (*name) are not allowed; write the value out"),
        ("output:\n  crf: 1\n  crf: 2", ":3: not valid YAML: 'crf' is given twice"),
        ("a: 1\nb: !!bool x", ":2: not valid YAML: 'x' is not a valid value; put it in quotes"),
        ("[" * 5000, ": nested too deeply"),
        ("\0", ":1: not valid YAML: special characters are not allowed"),
        ("# " + "x" * (1 << 20), ": larger than 1 MiB; split the file"),
    ],
)
def test_an_error_of_the_file_says_where_and_what(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "x.yaml", text)
    assert errors(path) == [f"{path}{message}"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("placement.layout", "no value; write section.key=value"),
        ("output.crf=[", "not valid YAML: expected the node content, but found '<stream end>'"),
        ("model.checkpoint=", "empty; give a value, or leave it out"),
        ("model.text_encoder=", "empty; give a value, or leave it out"),
        (
            "zzz.y=1",
            "unknown key; known are model, placement, defaults, prompts, denoise, decode, output, recovery, cache",
        ),
        ("output=1", "unknown key; did you mean output.name?"),
    ],
)
def test_an_error_of_an_override_says_what(override: str, message: str) -> None:
    assert errors(None, override) == [f"--set {override}: {message}"]


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    "text",
    [
        "/m/ltx #2", "/a: b", "#1", "- a", "[x", "{x", "*a", "&a", "!t", "%", "@", "`", "'a", '"a"', "a\tb",
        "1e3", "007", "true", "no", "~", "2024-01-01", "a 'b' \"c\"", "caf\xe9 \u65e5\u672c", "C:\\models", "a=b",
        " a ", "Null", "0.9",
    ],
)  # fmt: skip
def test_an_override_takes_a_text_as_it_is(text: str) -> None:
    config = load_config(
        None,
        [f"model.checkpoint={text}", f"model.text_encoder={text}", f"defaults.negative_prompt={text}",
         f"model.version={text}", f"cache.embeddings={text}"],
    )  # fmt: skip
    assert (config.model.checkpoint, config.model.text_encoder, config.model.version) == (text, text, text)
    assert (config.defaults.negative_prompt, config.cache.embeddings) == (text, text)


def test_null_is_no_text_where_there_may_be_none() -> None:
    config = load_config(None, ["cache.embeddings=null", "model.checkpoint=null", "defaults.negative_prompt="])
    assert config.cache.embeddings is None and config.model.checkpoint == "null"
    assert config.defaults.negative_prompt == "", "an empty negative prompt is one"


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("checkpoint: /m/ltx #2", True),
        ("text_encoder: /m/t5   #2", True),
        ("checkpoint: '/m/ltx #2'", False),
        ('checkpoint: "/m/ltx #2"', False),
        ("checkpoint: /m/ltx  # ours", False),
        ("checkpoint: /m/ltx ## ours", False),
        ("checkpoint: /m/ltx#2", False),
        ("precision: auto #2", False),
    ],
)
def test_a_text_of_a_file_that_a_hash_may_have_cut_off_is_warned_of(tmp_path: Path, line: str, cut: bool) -> None:
    path = write(tmp_path / "x.yaml", f"# a file\nmodel:\n  {line}\n")
    load_config(path)
    found = cut_off_texts(path)
    assert len(found) == cut
    if cut:
        key = line.partition(":")[0]
        assert found[0].startswith(f"{path}:3: model.{key}: ") and "ends before `#2`" in found[0]
        assert "put the whole text in quotes" in found[0]


def test_a_command_prints_the_warning_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a\n")
    path = write(tmp_path / "x.yaml", "model: {checkpoint: demo}\ndefaults:\n  negative_prompt: blurry #1\n")
    command = [sys.executable, "-m", "ltx_dist.cli", "plan", str(tmp_path / "prompts.txt"), "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"ltx-dist: warning: {path}:3: defaults.negative_prompt: 'blurry' ends before `#1`")


def test_shared_passes_and_exact_clips_contradict_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", "recovery:\n  exact: true\n")
    assert errors(path, "denoise.batch_size=4") == [
        f"--set denoise.batch_size=4: denoise.batch_size: 4 changes the low bits of clips, which recovery.exact "
        f"({path}:2) does not allow; use 1, or leave exact out"
    ]
    assert load_config(path, ["denoise.batch_size=1"]).recovery.exact


def test_a_missing_and_an_undecodable_file(tmp_path: Path) -> None:
    assert errors(tmp_path / "no.yaml") == [
        f"{tmp_path / 'no.yaml'}: cannot be read: No such file or directory; check the path"
    ]
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"# fine\n# caf\xe9\n")
    assert errors(path) == [f"{path}:2: not UTF-8 at byte 12; save the file as UTF-8"]


def test_what_the_command_line_reads_first_imports_nothing_heavy() -> None:
    program = (
        "import sys, ltx_dist.inputs.config, ltx_dist.models.ltx_video.presets\n"
        "import ltx_dist.inputs.prompts, ltx_dist.pipeline.keys\n"
        "from ltx_dist.checkpoints.checkpoint import open_checkpoint\n"
        "open_checkpoint('demo')\n"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
