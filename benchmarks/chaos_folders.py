"""Renames output folders during runs, and fills others with foreign files: no clip is misplaced, no command hangs.

    python benchmarks/chaos_folders.py [renamed hostile]

`renamed`: a run's folder is renamed at a random moment, and a second run with other seeds begins under the old name.
`hostile`: files and folders of a finished batch are replaced by FIFOs, links to devices and to files outside, huge
sparse files, sockets, folders and crafted records, or files with escape codes in their names are added. Then every
command that takes a folder runs on it, and may touch nothing outside. The environment variable FOLDERS sets the number
of folders (default: 30).
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from foreign_files import make_device_link, make_fifo, make_giant, make_loop, make_socket  # noqa: E402
from forked import digests, exit_code, import_everything, render_command, save_checkpoint, start
from proofs import run_proofs

from ltx_dist.messages import clean_lines
from ltx_dist.report.export.formats import FORMATS

NUM_CLIPS = 12
PATIENCE = 120.0
"""Seconds after which a command counts as hung; each takes about one second on an idle machine."""

MOST_MEMORY = 4 << 30


class Bench:
    def __init__(self, root: Path) -> None:
        self.root, self.checkpoint = root, save_checkpoint(root / "checkpoint")
        self.log = root / "log"

    def run(self, words: list[str]) -> int:
        """The command's exit code. Raises if it hangs, or takes more memory than any of these commands needs."""
        child = start(words, self.log)
        deadline = time.monotonic() + PATIENCE
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise AssertionError(f"hung: {words}\n{self.log.read_text()}")
            time.sleep(0.005)
        _, status, usage = os.wait4(child, 0)
        assert usage.ru_maxrss * 1024 < MOST_MEMORY, (words, usage.ru_maxrss)
        return os.waitstatus_to_exitcode(status)

    def said(self) -> str:
        return self.log.read_text("utf-8", "surrogateescape")


def renamed(bench: Bench, num_rounds: int = 12) -> str:
    """Rename a run's folder: the run ends with 74 at its next write, and each folder holds only its own run's clips."""
    prompts = {name: seeded_prompts(bench.root / f"{name}.jsonl", first) for name, first in (("a", 0), ("b", 100))}
    commands = {name: render_command(path, bench.root / "out", bench.checkpoint) for name, path in prompts.items()}
    expected = {name: rendered_alone(bench, name, path) for name, path in prompts.items()}
    assert not set(expected["a"].values()) & set(expected["b"].values())
    out, away, rng, ends = bench.root / "out", bench.root / "away", random.Random(13), Counter[int]()
    for _ in range(num_rounds):
        first, done_before = start(commands["a"], bench.root / "log-a"), rng.randrange(NUM_CLIPS)
        while len(list(out.glob("*.mp4"))) < done_before or not (out / ".ltx-dist" / "lock").exists():
            time.sleep(0.001)
        time.sleep(rng.random() / 20)
        out.rename(away)
        assert bench.run(commands["b"]) == 0, bench.said()
        code = exit_code(first)
        ends[code] += 1
        assert code in (0, 74), (bench.root / "log-a").read_text()
        said = (bench.root / "log-a").read_text()
        assert code == 0 or "not the folder that this run began in" in said or "No such file" in said, said
        assert digests(out) == expected["b"], "the second run's folder must hold only its own clips"
        left = {path.stem: sha256(path.read_bytes()).hexdigest() for path in away.glob("*.mp4")}
        of_a = {name: mp4 for name, (_, mp4) in expected["a"].items()}
        assert left.items() <= of_a.items(), "the first run's folder must hold only its own clips"
        shutil.rmtree(out)
        away.rename(out)
        assert bench.run(commands["a"]) == 0 and digests(out) == expected["a"], bench.said()
        shutil.rmtree(out)
    assert ends[74], "no rename happened during a run"
    return (
        f"{num_rounds} renames during a run: {ends[74]} ended with 74, {ends[0]} were already done; 0 of "
        f"{2 * num_rounds * NUM_CLIPS} clips in the wrong folder; all first runs resumed with equal hashes"
    )


def seeded_prompts(path: Path, first_seed: int) -> Path:
    """A prompt file with the same names for any seeds, so that a clip in the wrong folder would replace another."""
    rows = [{"prompt": "a clip", "name": f"clip-{n:03}", "seed": first_seed + n} for n in range(NUM_CLIPS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rendered_alone(bench: Bench, name: str, prompts: Path) -> dict[str, tuple[str, str]]:
    out = bench.root / f"expected-{name}"
    assert bench.run(render_command(prompts, out, bench.checkpoint)) == 0, bench.said()
    return digests(out)


ESCAPES = "a\x1b]0;owned\x07\x1b[2J\u202e"
ODD: list[Any] = [None, True, -1, 0, 1e308, 10**400, float("inf"), "", "x", ESCAPES, "../../x", "/etc/passwd", [], {}]
ODD += [[None], {"x": None}, [[[[[]]]]], "\ud800"]


def a_link_to_a_file_outside(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "precious.mp4")


def a_link_to_a_folder_outside(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def a_folder(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(b"the user's own")


def a_dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nothing-yet")


def alone(make: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    """A kind of entry that `make` makes, and that does not lead out of the folder."""

    @wraps(make)
    def kind(path: Path, outside: Path) -> None:
        make(path)

    return kind


KINDS: list[Callable[[Path, Path], None]] = [
    a_link_to_a_file_outside, a_link_to_a_folder_outside, a_folder, a_dangling_link,
    *map(alone, (make_fifo, make_device_link, make_giant, make_socket, make_loop)),
]  # fmt: skip


def hostile(bench: Bench) -> str:
    num_folders, rng = int(os.environ.get("FOLDERS", "30")), random.Random(29)
    base, prompts = finished_batch(bench)
    outside = bench.root / "outside"
    (outside / "spool").mkdir(parents=True)
    for name in ("precious.mp4", "clip-000.mp4", "clip-000.json", "clip-000.safetensors", "spool/clip-000.safetensors"):
        (outside / name).write_bytes(b"precious")
    before, codes, kinds = content(outside), Counter[int](), Counter[str]()
    for number in range(num_folders):
        out = bench.root / f"out-{number}"
        shutil.copytree(base, out, symlinks=True)
        done = [spoil(out, outside, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        kinds.update(kind for kind, _ in done)
        for words in shuffled(commands(out, prompts, bench, number), rng):
            code = bench.run(words)
            said = bench.said()
            codes[code] += 1
            told = f"{' '.join(words)}\nwith {done}: exit code {code}\n{said}"
            assert code in (0, 2, 3, 74), told
            assert "Traceback" not in said and (code == 0 or said.strip()), told
            assert clean_lines(said) == said, told
            assert content(outside) == before, f"{told}\ntouched something outside"
        shutil.rmtree(out)
        shutil.rmtree(bench.root / "exports", ignore_errors=True)
    return (
        f"{sum(codes.values())} commands on {num_folders} folders with {sum(kinds.values())} hostile entries of "
        f"{len(kinds)} kinds: exit codes {dict(sorted(codes.items()))}; none hung, none with a traceback, nothing "
        "outside touched"
    )


def finished_batch(bench: Bench) -> tuple[Path, Path]:
    """A folder with three finished clips and their latents (one clip is in a subfolder), and their prompt file."""
    base, prompts = bench.root / "base", bench.root / "few.jsonl"
    rows = [{"prompt": "a clip", "name": name, "seed": 1} for name in ("clip-000", "clip-001", "group/clip-002")]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = bench.run(render_command(prompts, base, bench.checkpoint, "--keep-latents"))
    assert code == 0, bench.said()
    return base, prompts


def commands(out: Path, prompts: Path, bench: Bench, number: int) -> list[list[str]]:
    """Every command that takes an output folder; `doctor`, which examines the whole machine, for every tenth folder."""
    exports = bench.root / "exports"
    exports.mkdir(exist_ok=True)
    settings = render_command(prompts, out, bench.checkpoint)
    looks = [[name, str(out)] for name in ("timeline", "report", "verify")]
    looks += [["export", name, str(out), "-o", str(exports / f"{name}{one.endings[0] if one.endings else ''}")]
              for name, one in FORMATS.items()]  # fmt: skip
    makes = [settings, [*settings, "--keep-latents"], ["plan", *settings[1:]], ["decode", str(out)]]
    return [*looks, *makes, *([["doctor", "-o", str(out)]] if number % 10 == 0 else [])]


def shuffled(words: list[list[str]], rng: random.Random) -> list[list[str]]:
    return rng.sample(words, len(words))


def spoil(out: Path, outside: Path, rng: random.Random) -> tuple[str, str]:
    """Put one hostile entry into the folder. Returns its kind and its path."""
    places = sorted(path for path in out.rglob("*") if not path.is_symlink())
    records = [path for path in places if path.suffix in (".json", ".jsonl") and path.is_file()]
    choice = rng.randrange(10)
    if choice == 0 or not records:
        name = f"{ESCAPES}{rng.randrange(10)}"
        (out / f"{name}{rng.choice(('.mp4', '.json'))}").write_bytes(b'{"status": "failed"}')
        return "a name of escape codes", name
    if choice <= 4:
        path = rng.choice(records)
        path.write_bytes(crafted(path.read_bytes(), rng))
        return "a crafted record", str(path)
    path, kind = rng.choice(places), rng.choice(KINDS)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    kind(path, outside)
    return kind.__name__, str(path)


def crafted(record: bytes, rng: random.Random) -> bytes:
    """The record with one value replaced by something odd, or cut short; or endless brackets, or random bytes."""
    how = rng.randrange(8)
    if how == 0:
        return record[: rng.randrange(len(record) + 1)]
    if how == 1:
        return b"[" * 100_000
    if how == 2:
        return rng.randbytes(200)
    try:
        parsed = json.loads(record.splitlines()[0] if record.count(b"\n{") else record)
    except ValueError:
        return b"null"
    if not isinstance(parsed, dict) or not parsed:
        return b"null"
    part: Any = parsed
    while True:
        key = rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
        if isinstance(part[key], (dict, list)) and part[key] and rng.random() < 0.8:
            part = part[key]
            continue
        part[key] = rng.choice(ODD)
        return json.dumps(parsed).encode("utf-8", "surrogatepass")


def content(folder: Path) -> dict[str, bytes | None]:
    """All entries of the folder by relative path, with the contents of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="ltx-folders-") as folder:
        os.environ["LTX_DIST_CACHE"] = str(Path(folder) / "cache")
        import_everything()
        run_proofs({"renamed": renamed, "hostile": hostile}, Bench(Path(folder)))


if __name__ == "__main__":
    main()
