"""Prompt files and configs made to do harm: each soon ends in a clear ValueError, or in harmless requests."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from pathlib import Path

import pytest
from test_prompts import CHECKPOINT, DEFAULTS, PRESET

from ltx_dist.inputs.config_file import load_config
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.pipeline.request import RenderRequest

PARTS = [
    "..", ".", "~", "/", "\\", "a/b", "a\\b", "../a", "..\\a", "/etc/passwd", "C:\\a", "\\\\host\\share", "a/../../b",
    "%2e%2e%2fa", "..%2f", "%00", "a\0b", "a\nb", "a\rb", "a\tb", "a b", " a", "a ", "-rf", "--help", "$HOME", "`id`",
    "$(id)", "a;b", "a|b", "a&b", "a>b", "a<b", "a*", "a?", "[a]", "{a}", "'a'", '"a"', "a:b", "a::$DATA", "#a", "!a",
    ".hidden", ".ltx-dist", ".ltx-dist/tmp/a", "run", "RUN", "run.json", "index", "index.html", "trace", "Trace.json",
    "CON", "con.mp4", "PRN", "AUX", "NUL", "COM1", "LPT9", "nul.tar", "a.", "a..", "a.mp4", "a.JSON", "",
    "\u2024\u2024/a", "\uff0e\uff0e\uff0fa", "\u2215a", "a\u2044b", "\u0430dmin", "e\u0301", "\u200ba", "a\u202eb",
    "\ufeffa", "\U0001f600", "\ud800", "a" * 101, "a" * 300, "\u00e9" * 60, "x/" * 50 + "y",
]  # fmt: skip
"""Names that lead elsewhere on some system: separators, devices, encodings, shells, look-alikes, lengths."""

FORMS = ["{}", "../{}", "{}/../../x"]


def corpus() -> list[str]:
    return list(dict.fromkeys(form.format(part) for form in FORMS for part in PARTS))


def read(path: Path, content: str | bytes) -> list[RenderRequest]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(str(path), DEFAULTS, PRESET, CHECKPOINT)


def error(path: Path, content: str | bytes, seconds: float = 1.0) -> str:
    started = time.process_time()
    with pytest.raises(ValueError) as caught:
        read(path, content)
    assert time.process_time() - started < seconds
    return str(caught.value)


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    """Over 200 names: each that is accepted is a separate file in the folder, or in a folder inside it."""
    names = corpus()
    assert len(names) >= 200
    taken = []
    for name in names:
        try:
            (request,) = read(tmp_path / "p.jsonl", json.dumps({"prompt": "p", "name": name}))
        except ValueError as refused:
            assert str(refused).startswith(f"{tmp_path / 'p.jsonl'}:1: name: ")
            assert all(letter.isprintable() for line in str(refused).splitlines() for letter in line)
        else:
            taken.append(name)
            path = tmp_path / f"{request.request_id}.mp4"
            assert request.request_id == unicodedata.normalize("NFC", name)
            assert path.resolve().is_relative_to(tmp_path.resolve()) and ".." not in path.parts
    plain = [unicodedata.normalize("NFC", name) for name in taken]
    assert all(re.fullmatch(r"(a/b|\w+|(x/)+y)", name) for name in plain), "letters and digits, of any script"


@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl", "yaml"])
def test_a_prompt_names_no_file(tmp_path: Path, ending: str) -> None:
    """Default names are made from prompts."""
    prompts = [part for part in PARTS if part.isprintable() and part.strip() and not part.strip().startswith("#")]
    plain = [prompt for prompt in prompts if not prompt.startswith("--")]  # a flag: refused in plain text
    rows = {
        "txt": "\n".join(plain),
        "csv": "prompt\n" + "\n".join('"' + prompt.replace('"', '""') + '"' for prompt in prompts),
        "jsonl": "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts),
        "yaml": json.dumps(prompts),
    }
    requests = read(tmp_path / f"p.{ending}", rows[ending])
    assert len(requests) == len(plain if ending == "txt" else prompts)
    for request in requests:
        assert (tmp_path / f"{request.request_id}.mp4").resolve().parent == tmp_path.resolve()
        assert request.request_id.isascii() and request.request_id[0].isdigit()


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    "content",
    [LAUGHS, "- &a [*a]", "- <<: &a {x: 1}\n- *a", "- !!python/object/apply:os.system [id]", "- !!binary |\n  A"],
    ids=["billion laughs", "itself", "merge", "python object", "binary"],
)
def test_yaml_bombs_end_at_once(tmp_path: Path, content: str) -> None:
    assert "not valid YAML" in error(tmp_path / "p.yaml", content) or "is neither" in error(
        tmp_path / "p.yaml", content
    )
    (tmp_path / "c.yaml").write_text(content)
    started = time.process_time()
    with pytest.raises(ValueError, match=r"c\.yaml"):
        load_config(tmp_path / "c.yaml")
    assert time.process_time() - started < 1


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    for name, content in (("p.jsonl", "[" * 100_000), ("p.yaml", "[" * 100_000), ("q.yaml", "- " * 100_000 + "a")):
        assert error(tmp_path / name, content, seconds=5)


def test_files_and_rows_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    assert "at most 100000 are allowed" in error(tmp_path / "p.txt", "a\n" * 100_001, seconds=5)
    for ending in ("txt", "csv", "jsonl", "yaml"):
        path = tmp_path / f"huge.{ending}"
        with path.open("wb") as file:
            file.truncate(10 << 30)  # sparse: it takes no disk space, but reading it whole would take 10 GiB
        started = time.process_time()
        with pytest.raises(ValueError, match="larger than 64 MiB"):
            read_prompts(str(path), DEFAULTS, PRESET, CHECKPOINT)
        assert time.process_time() - started < 1
    (tmp_path / "c.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        load_config(tmp_path / "c.yaml")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        read_prompts(str(tmp_path / "folder.txt"), DEFAULTS, PRESET, CHECKPOINT)
    (tmp_path / "link.txt").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="larger than 64 MiB"):
        read_prompts(str(tmp_path / "link.txt"), DEFAULTS, PRESET, CHECKPOINT)


@pytest.mark.parametrize("code", [0, 7, 8, 27, 127, 133, 155, 159])
def test_no_control_character_gets_through_or_is_echoed(tmp_path: Path, code: int) -> None:
    for row in ({"prompt": f"a{chr(code)}b"}, {"prompt": "a", f"k{chr(code)}": 1}, {"prompt": "a", "name": chr(code)}):
        assert chr(code) not in error(tmp_path / "p.jsonl", json.dumps(row))
    assert chr(code) not in error(tmp_path / "p.csv", f"prompt,k{chr(code)}\na,b\n")
