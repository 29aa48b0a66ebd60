"""What no file of the repository may hold: this machine's paths, secrets, and unfinished work.

Looked at is what is or could be committed: all that git tracks, and all that it does not ignore.
This file is left out, because it names what it looks for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

REPOSITORY = Path(__file__).parents[1]

# The key pair that the documentation of Go's sumdb/note publishes as an example.
PUBLISHED_KEY = re.escape("PeterNeumann+c74f20a3+")

FORBIDDEN = {
    "the path of one machine": re.compile(
        r"(?<![\w.~>}*-])/(?:work|root|workspace|home/\w+|Users/\w+)/|(?<![\w.~-])[A-Z]:\\Users\\"
    ),
    "a private key": re.compile(
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PRIVATE\+KEY\+(?!"
        + PUBLISHED_KEY
        + r")[^+\s{]+\+[0-9a-f]{8}\+"
    ),
    "a password in an address": re.compile(r"\w+://[^\s/:@\"'{}<>]+:[^\s/:@\"'{}<>]+@[\w.-]+\.\w"),
    "a private host": re.compile(
        r"\bhttps?://(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.[\d.]+"
        r"|\bhttps?://[\w.-]+\.(?:internal|intranet|corp|lan)\b"
        r"|\bhttps?://[\w.-]*(?:artifactory|nexus|devpi)[\w.-]*"
    ),
    "unfinished work": re.compile(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b"),
}

PUBLIC_HOSTS = {"pypi.org", "files.pythonhosted.org", "download.pytorch.org", "test.pypi.org"}


def files_of_the_repository() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        capture_output=True,
        check=False,
        cwd=REPOSITORY,
        timeout=60,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: the repository's text was not looked at")
    paths = (REPOSITORY / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file() and path != Path(__file__)]


def package_sources_of_this_machine() -> set[str]:
    """Where pip is told to look on this machine, if not at the public places: hosts and folders."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    lines = listed.stdout.splitlines() + [f"{key}={value}" for key, value in os.environ.items()]
    values = [
        word
        for key, _, value in (line.partition("=") for line in lines)
        if re.search(r"index.?url|find.?links|trusted.?host", key, re.IGNORECASE)
        for word in value.strip("'\"").split()
    ]
    places = {urlsplit(value).hostname or urlsplit(value).path for value in values}
    return {place for place in places if len(place) > 3} - PUBLIC_HOSTS - {"localhost"}


def findings(text: str, places: set[str]) -> Iterator[str]:
    """What stands in ``text`` that must not, as ``line: what``."""
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in FORBIDDEN.items():
            match = pattern.search(line)
            if match:
                yield f"{number}: {what}: {match[0]}"
        for place in places:
            if place in line:
                yield f"{number}: a package index of one machine: {place}"


def test_no_file_holds_a_machine_s_path_a_secret_or_unfinished_work() -> None:
    places = package_sources_of_this_machine()
    found = []
    for path in files_of_the_repository():
        data = path.read_bytes()
        if b"\0" not in data:
            name = path.relative_to(REPOSITORY)
            found += [
                f"{name}:{finding}" for finding in findings(data.decode(errors="replace"), places)
            ]
    assert not found, "\n".join(found)


def test_no_file_name_or_link_leads_out_of_the_repository() -> None:
    for path in files_of_the_repository():
        if path.is_symlink():
            assert path.resolve().is_relative_to(REPOSITORY.resolve()), path


@pytest.mark.parametrize(
    "line",
    [
        "see /work/main/notes.md",
        'open("/root/.cache/x")',
        "path=/home/alice/project",
        "PYTHONPATH=/workspace/src",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----",
        "PRIVATE+KEY+example.org/log+0a1b2c3d+AYEKFALVFGyN",
        "postgresql://srds:hunter2@db.example.org/srds",
        "--index-url http://10.1.2.3:8080/simple",
        "--index-url https://nexus.example.org/simple",
        "https://packages.example.internal/simple",
        "# TODO: later",
        "x = 1  # FIXME",
        "# XXX what is this",
        "# HACK",
        "raise NotImplementedError",
        "pip install --index-url https://mirror.example.org/simple",
    ],
)
def test_what_must_not_stand_in_a_file_is_found(line: str) -> None:
    [finding] = findings(f"first line\n{line}\n", {"mirror.example.org"})
    assert finding.startswith("2: ")


@pytest.mark.parametrize(
    "line",
    [
        "the framework/work/flow of https://example.org/work/item",
        "see ./work/ and ~/work/ and docs/root/index.md",
        "hackathon, methods, XXXL, NotImplemented, todolist",
        "https://pypi.org/simple and http://127.0.0.1:8080/ and http://localhost/",
        "postgresql://{user}:{password}@{host}/srds",
        "-----BEGIN PUBLIC KEY-----",
        "PRIVATE+KEY+name+hex id+base64",
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyN",
    ],
)
def test_what_may_stand_in_a_file_is_not_found(line: str) -> None:
    assert list(findings(line, {"mirror.example.org"})) == []
