"""Which packages `submit --pip` lets Ray install, and which are refused before anything is sent. No Ray is started."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ltx_dist.cluster import packing
from ltx_dist.cluster.job_packages import JobPackages, read_packages

WHEEL = "my_nodes-1.0-py3-none-any.whl"


def test_requirements_and_places_on_the_cluster_stay_as_they_are():
    given = (
        "s3fs>=2025.3", "torchao[dev] ; python_version >= '3.11'", "nodes @ https://example.com/nodes.zip",
        "git+https://example.com/ray/nodes.git@v1", "-f https://x.org/a -ihttps://x.org/b --pre", f"/shared/{WHEEL}", f"https://example.com/{WHEEL}",
    )  # fmt: skip
    assert read_packages(given) == JobPackages(given, {})
    assert read_packages(()) == JobPackages((), {})


def test_a_requirements_file_is_its_lines(tmp_path: Path):
    path = tmp_path / "requirements.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# for the bucket \\\r\n--extra-index-url https://example.com/simple\r\n\r\n"
        b"s3fs>=2025.3  # newer fails\r\n-c https://example.com/constraints.txt\r\n"
        b"gcsfs==2025.3 \\\r\n    --hash=sha256:0123 \\\r\n    --hash=sha256:4567\r\n"
        b"nodes @ https://example.com/nodes.zip#sha256=89ab\r\npillow \\\r\n"
    )
    assert read_packages([str(path)]).lines == (
        "--extra-index-url https://example.com/simple",
        "s3fs>=2025.3",
        "-c https://example.com/constraints.txt",
        "gcsfs==2025.3     --hash=sha256:0123     --hash=sha256:4567",
        "nodes @ https://example.com/nodes.zip#sha256=89ab",
        "pillow",
    )
    path.write_text("s3fs \\\n# why \\\ngcsfs\n")
    assert read_packages([str(path)]).lines == ("s3fs", "gcsfs")


def test_a_wheel_is_sent_under_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ray would reuse what it installed before for the same line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dist").mkdir()
    found: list[str] = []
    for content in (b"one", b"two"):
        (tmp_path / "dist" / WHEEL).write_bytes(content)
        packages = read_packages([f"dist/{WHEEL}"])
        path = f"wheels/{hashlib.sha256(content).hexdigest()[:12]}/{WHEEL}"
        assert packages == JobPackages(("${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/" + path,), {path: content})
        found += packages.lines
    assert len(set(found)) == 2
    (line,) = read_packages([f"dist/{WHEEL} --hash=sha256:0123"]).lines
    assert line == f"{found[-1]} --hash=sha256:0123"


NOT_SENT = "refers to files that are not sent; give a URL to -c and -f, and the lines themselves for -r"


@pytest.mark.parametrize(
    ("given", "beginning", "end"),
    [
        ("s3fs 2025", "--pip: s3fs 2025: not a requirement (", "a URL, or the path of a .whl or .txt file"),
        ("./folder", "--pip: ./folder: not a requirement (", ".whl or .txt file"),
        ("ray==2.59", "--pip: ray==2.59: ", "a job runs with the cluster's own Ray; leave it out"),
        ("Ray[default]", "--pip: Ray[default]: ", "leave it out"),
        ("-r more.txt", "--pip: -r more.txt: ", NOT_SENT),
        ("-r https://example.com/r.txt", "--pip: -r https://example.com/r.txt: ", NOT_SENT),
        ("-c constraints.txt", "--pip: -c constraints.txt: ", NOT_SENT),
        ("-f ./wheels -i https://x.org", "--pip: -f ./wheels -i https://x.org: ", NOT_SENT),
        ("-e .", "--pip: -e .: a folder is not sent; build a wheel", "give the path of the .whl file"),
        ("--target /x", "--pip: --target /x: --target is not among the options", "--constraint"),
        ("ray@https://x.org/a.zip", "--pip: ray@https://x.org/a.zip: ", "leave it out"),
        ("ray@https://x.org/a-1-py3-none-any.whl", "--pip: ray@https://x.org/a-1", "leave it out"),
        ("git+https://me@x.org/a/ray.git@v1/b", "--pip: git+https://me@x.org/a/ray.git@v1/b: ", "leave it out"),
        ("git+https://x.org/a#egg=ray", "--pip: git+https://x.org/a#egg=ray: ", "leave it out"),
        ("nodes.whl", "--pip: nodes.whl: no wheel has such a name: ", ""),
        (WHEEL, f"--pip: {WHEEL}: ", "cannot be read: No such file or directory"),
        ("missing.txt", "missing.txt: ", "cannot be read: No such file or directory; check the path"),
        ("empty.txt", "empty.txt: ", "no requirements in it; write at least one"),
    ],
)  # fmt: skip
def test_what_the_cluster_could_not_install_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, beginning: str, end: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    with pytest.raises(ValueError) as caught:
        read_packages([given])
    assert str(caught.value).startswith(beginning) and str(caught.value).endswith(end), caught.value


def test_all_mistakes_are_reported_with_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("r.txt").write_text("good\n\nfirst \\\n  one\n-r more.txt\n")
    with pytest.raises(ValueError, match=r"^r.txt:3: first +one: .*\nr.txt:5: -r more.txt: .*\n--pip: ray: ") as caught:
        read_packages(["r.txt", "ray"])
    assert len(str(caught.value).splitlines()) == 3


def test_wheels_too_large_to_send_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packing, "MAX_BYTES", 5)
    for number in (1, 2):
        Path(f"nodes-{number}-py3-none-any.whl").write_bytes(b"abc")
    assert read_packages(["nodes-1-py3-none-any.whl"]).files
    with pytest.raises(ValueError, match=r"nodes-2-py3-none-any\.whl: the batch's .* which Ray does not send"):
        read_packages(["nodes-1-py3-none-any.whl", "nodes-2-py3-none-any.whl"])
