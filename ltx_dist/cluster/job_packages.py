"""`submit --pip`: packages that Ray installs for a job on every node, and the wheels that are sent with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ltx_dist.cluster.packing import content_of
from ltx_dist.inputs.prompt_sources import label_of, read_bytes
from ltx_dist.messages import Mistakes, first_line
from ltx_dist.strict_files import decode_text

WHEELS = "wheels"
"""The folder for wheels inside the job's folder."""

JOB_FOLDER = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""The job's folder on the node where pip runs, which replaces such variables by their values."""

MAX_FILE_BYTES = 1 << 20

OPTIONS = (
    "-i", "--index-url", "--extra-index-url", "--no-index", "--trusted-host", "--pre", "--prefer-binary",
    "--only-binary", "--no-binary", "--require-hashes",
)  # fmt: skip
"""Options of requirements files that mean the same on every machine."""

OPTIONS_OF_URLS = ("-f", "--find-links", "-c", "--constraint")
"""Options that are accepted only with a URL as their value."""

NAMED_URL = re.compile(r"[\w.-]+\s*(\[[^\]]*\])?\s*@\s*[\w.+-]+://")
"""The beginning of a requirement with a name and a URL. Spaces around the `@` are optional."""


@dataclass(frozen=True, slots=True)
class JobPackages:
    """lines: of the requirements file that pip reads on each node. files: wheels, by their path in the job's folder."""

    lines: tuple[str, ...]
    files: dict[str, bytes]


def read_packages(given: Sequence[str]) -> JobPackages:
    """The packages that these values of `--pip` stand for: requirements, requirements files (.txt) and wheels (.whl).

    An absolute path or URL of a wheel is where the cluster finds it; a relative path is relative to the working
    directory, as for pip, and that wheel is sent. Raises ValueError with every mistake.
    """
    lines: list[str] = []
    wheels: dict[str, bytes] = {}
    mistakes: list[str] = []
    for label, line in (pair for one in given for pair in _lines(one)):
        try:
            lines.append(_checked(line, wheels))
        except ValueError as error:
            mistakes.append(f"{label}: {error}")
    if mistakes:
        raise Mistakes(mistakes)
    return JobPackages(tuple(lines), wheels)


def _lines(given: str) -> Iterator[tuple[str, str]]:
    """Each requirement or option, with a label for messages: its file and line. Raises ValueError as `read_bytes`."""
    if given.startswith("-") or not given.lower().endswith(".txt"):
        yield "--pip", given.strip()
        return
    label = label_of(given)
    text = decode_text(read_bytes(given), label, MAX_FILE_BYTES)
    begun, number, is_empty = "", 0, True
    for at, line in enumerate([*text.splitlines(), ""], 1):
        number = number if begun else at
        is_comment = line.lstrip().startswith("#")  # for pip, no comment continues on the next line
        begun += "" if is_comment else line.removesuffix("\\")
        if is_comment or not line.endswith("\\"):
            begun, whole = "", re.sub(r"(^|\s)#.*", "", begun).strip()
            if whole:
                is_empty = False
                yield f"{label}:{number}", whole
    if is_empty:
        raise ValueError(f"{label}: no requirements in it; write at least one")


def _checked(line: str, wheels: dict[str, bytes]) -> str:
    """The line as the cluster is to read it. A wheel that travels is added to `wheels`."""
    if line.startswith("-"):
        _check_options(line)
        return line
    requirement = re.split(r"\s+--", line, maxsplit=1)[0]  # without its options, such as --hash
    is_named = " @ " in requirement or NAMED_URL.match(requirement) is not None
    if requirement.lower().endswith(".whl") and not is_named:
        return _wheel(requirement, wheels) + line.removeprefix(requirement)
    if "://" not in requirement or is_named:
        _check_requirement(requirement)
    else:
        _refuse_ray(_name_in_url(requirement), requirement)
    return line


def _check_options(line: str) -> None:
    for part in re.split(r"\s+(?=-)", line):
        found = re.fullmatch(r"(--[^\s=]*|-.?)[\s=]*(.*)", part)
        assert found is not None, part
        option, value = found.groups()
        if option in OPTIONS or (option in OPTIONS_OF_URLS and "://" in value):
            continue
        if option in ("-e", "--editable"):
            raise ValueError(f"{line}: a folder is not sent; build a wheel of it, and give the path of the .whl file")
        if option in (*OPTIONS_OF_URLS, "-r", "--requirement"):
            raise ValueError(
                f"{line}: refers to files that are not sent; give a URL to -c and -f, and the lines themselves for -r"
            )
        known = ", ".join((*OPTIONS, *OPTIONS_OF_URLS))
        raise ValueError(f"{line}: {option} is not among the options that a job can have: {known}")


def _name_in_url(url: str) -> str:
    """The package's name, where the URL tells it: `egg=NAME`, or the last part of the path, without `.git@REVISION`."""
    address, _, fragment = url.partition("#")
    if egg := re.search(r"egg=([\w.-]+)", fragment):
        return egg[1]
    path = address.partition("://")[2].partition("/")[2].partition("@")[0]
    return path.rstrip("/").rpartition("/")[2].removesuffix(".git")


def _wheel(place: str, wheels: dict[str, bytes]) -> str:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    name = place.replace("\\", "/").rpartition("/")[2]
    try:
        package = parse_wheel_filename(name)[0]
    except InvalidWheelFilename as error:
        raise ValueError(f"{place}: no wheel has such a name: {first_line(error)}") from None
    _refuse_ray(package, place)
    if "://" in place or PurePosixPath(place).is_absolute():
        return place
    content = content_of(place, sum(map(len, wheels.values())))
    # Ray reuses what it installed for equal lines, so another content must be another line.
    path = f"{WHEELS}/{hashlib.sha256(content).hexdigest()[:12]}/{name}"
    wheels[path] = content
    return f"{JOB_FOLDER}/{path}"


def _check_requirement(text: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(
            f"{text}: not a requirement ({first_line(error)}); write one such as s3fs>=2025.3, a URL, or the path of a "
            ".whl or .txt file"
        ) from None
    _refuse_ray(requirement.name, text)


def _refuse_ray(name: str, text: str) -> None:
    if name.lower() == "ray":
        raise ValueError(f"{text}: a job runs with the cluster's own Ray; leave it out")
