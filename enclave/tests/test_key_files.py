"""Key files: who may read them, who makes them, and what an altered one does."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import enclave
from enclave.errors import (
    KeyFileDamaged,
    KeyFileError,
    KeyFileUnsafe,
    KeyInvalid,
    KeyNotFound,
)
from enclave.keys import KeyDirectory, KeyRing, SigningKey, VerifyKey

ROOT = os.geteuid() == 0
SECOND_USER = 65534
NAME = "example.org/log"

only_root = pytest.mark.skipif(not ROOT, reason="needs root, to act as a second user")


@pytest.fixture
def keys(tmp_path: Path) -> KeyDirectory:
    return KeyDirectory(tmp_path / "store" / "keys")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that a second user can enter, which pytest's own temporary folders are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def secret_of(keys: KeyDirectory, label: str = "signing") -> str:
    return (keys.path / f"{label}.key").read_text().strip().rpartition("+")[2]


def as_second_user(action: Callable[[], object]) -> str:
    """Run ``action`` in a child that gave up root; its outcome as ``type: text``."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(SECOND_USER)
            os.setuid(SECOND_USER)
            try:
                result = action()
                outcome = f"{type(result).__name__}: {result}"
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            os.write(writing, outcome.encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        outcome = pipe.read()
    os.waitpid(child, 0)
    return outcome


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_keys_are_made_for_their_owner_only_under_any_umask(keys: KeyDirectory, umask: int) -> None:
    before = os.umask(umask)
    try:
        keys.load_or_create("signing", NAME)
        keys.trust(SigningKey.generate("example.net/other").public)
    finally:
        os.umask(before)
    assert mode_of(keys.path) == 0o700
    assert mode_of(keys.path / "signing.key") == 0o600
    assert mode_of(keys.trusted_folder) == 0o700
    assert sorted(path.name for path in keys.path.iterdir()) == ["signing.key", "trusted"]


def test_a_key_that_was_made_is_the_key_that_is_loaded(keys: KeyDirectory) -> None:
    made = keys.create("signing", NAME)
    loaded = KeyDirectory(keys.path).load("signing")
    assert loaded.public == made.public
    assert (loaded.name, loaded.key_id) == (NAME, made.public.key_id)
    assert made.public.verifies(loaded.sign(b"message"), b"message")
    assert keys.load_or_create("signing", "example.org/renamed").name == NAME


def test_an_existing_key_is_never_replaced(keys: KeyDirectory) -> None:
    made = keys.create("signing", NAME)
    with pytest.raises(KeyFileError, match="already"):
        keys.create("signing", NAME)
    assert keys.load("signing").public == made.public


def test_reading_makes_nothing(keys: KeyDirectory) -> None:
    for read in (lambda: keys.load("signing"), keys.ring):
        with pytest.raises(KeyNotFound, match="no key directory"):
            read()
    assert not keys.path.exists()
    keys.create("signing", NAME)
    with pytest.raises(KeyNotFound, match=r"other\.key"):
        keys.load("other")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o644, 0o777, 0o601])
def test_a_key_file_that_others_could_use_is_refused(keys: KeyDirectory, mode: int) -> None:
    keys.create("signing", NAME)
    (keys.path / "signing.key").chmod(mode)
    for use in (lambda: keys.load("signing"), lambda: keys.load_or_create("signing", NAME)):
        with pytest.raises(KeyFileUnsafe, match=rf"signing\.key has mode {mode:03o}") as caught:
            use()
        assert "chmod 600" in caught.value.remedy
    with pytest.raises(KeyFileUnsafe):
        keys.ring()
    (keys.path / "signing.key").chmod(0o400)
    assert keys.load("signing").name == NAME


@pytest.mark.parametrize("mode", [0o750, 0o770, 0o705, 0o777, 0o710])
def test_a_key_directory_that_others_could_enter_is_refused(keys: KeyDirectory, mode: int) -> None:
    keys.create("signing", NAME)
    keys.path.chmod(mode)
    uses: list[Callable[[], object]] = [
        lambda: keys.load("signing"),
        lambda: keys.create("other", NAME),
        lambda: keys.trust(SigningKey.generate(NAME).public),
        keys.ring,
    ]
    for use in uses:
        with pytest.raises(KeyFileUnsafe, match=f"has mode {mode:03o}"):
            use()
    assert [path.name for path in keys.path.iterdir()] == ["signing.key"]


def test_what_another_user_owns_is_refused(keys: KeyDirectory) -> None:
    if ROOT:
        keys.create("signing", NAME)
        os.chown(keys.path / "signing.key", SECOND_USER, SECOND_USER)
        with pytest.raises(KeyFileUnsafe, match=f"belongs to user {SECOND_USER}"):
            keys.load("signing")
        os.chown(keys.path, SECOND_USER, SECOND_USER)
        foreign = keys.path
    else:
        foreign = Path("/")
    for use in (lambda: KeyDirectory(foreign).load("signing"), KeyDirectory(foreign).ring):
        with pytest.raises(KeyFileUnsafe, match=r"belongs to user \d+, and this process runs as"):
            use()


@only_root
def test_a_second_user_cannot_load_a_key(open_folder: Path) -> None:
    keys = KeyDirectory(open_folder / "keys")
    keys.create("signing", NAME)
    outcome = as_second_user(lambda: keys.load("signing"))
    assert outcome.startswith("KeyFileUnsafe:")
    assert "belongs to user 0" in outcome
    assert as_second_user((keys.path / "signing.key").read_text).startswith("PermissionError")
    keys.path.chmod(0o755)
    assert as_second_user((keys.path / "signing.key").read_text).startswith("PermissionError")


@only_root
def test_a_user_without_privileges_makes_and_loads_keys(open_folder: Path) -> None:
    SigningKey.generate(NAME)  # imports what the child may not be able to read
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, SECOND_USER, SECOND_USER)
    keys = KeyDirectory(home / "store" / "keys")

    def make_and_load() -> object:
        keys.create("signing", NAME)
        return keys.load("signing").public == KeyDirectory(keys.path).load("signing").public

    assert as_second_user(make_and_load) == "bool: True"
    with pytest.raises(KeyFileUnsafe, match=f"belongs to user {SECOND_USER}"):
        keys.load("signing")
    refused = as_second_user(lambda: KeyDirectory(open_folder / "keys").create("signing", NAME))
    assert refused.startswith("KeyFileError:")
    assert "Permission denied" in refused
    assert not (open_folder / "keys").exists()


def test_a_link_a_pipe_or_a_folder_in_the_place_of_a_key_is_refused(keys: KeyDirectory) -> None:
    keys.create("signing", NAME)
    real = keys.path / "signing.key"
    (keys.path / "linked.key").symlink_to(real)
    os.mkfifo(keys.path / "piped.key", 0o600)
    (keys.path / "folder.key").mkdir(0o700)
    with pytest.raises(KeyFileError, match=r"linked\.key cannot be used"):
        keys.load("linked")
    for label in ("piped", "folder"):
        with pytest.raises(KeyFileUnsafe, match="is not a regular file"):
            keys.load(label)


def test_a_link_or_a_file_in_the_place_of_the_directory_is_refused(
    keys: KeyDirectory, tmp_path: Path
) -> None:
    keys.create("signing", NAME)
    (tmp_path / "link").symlink_to(keys.path)
    (tmp_path / "file").write_text("")
    for place in ("link", "file"):
        for use in ("load", "load_or_create"):
            with pytest.raises(KeyFileUnsafe, match="is not a directory"):
                getattr(KeyDirectory(tmp_path / place), use)(
                    *("signing", NAME)[: 1 + (use != "load")]
                )
    with pytest.raises(KeyFileError, match="Not a directory"):
        KeyDirectory(tmp_path / "file" / "keys").create("signing", NAME)


def test_no_altered_bit_of_a_key_file_is_accepted(keys: KeyDirectory) -> None:
    keys.create("signing", NAME)
    path = keys.path / "signing.key"
    genuine = path.read_bytes()
    for bit in range(8 * len(genuine)):
        altered = bytearray(genuine)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        with pytest.raises(KeyFileDamaged):
            keys.load("signing")


def test_no_truncated_or_extended_key_file_is_accepted(keys: KeyDirectory) -> None:
    keys.create("signing", NAME)
    path = keys.path / "signing.key"
    genuine = path.read_bytes()
    wrong = [genuine[:length] for length in range(len(genuine))]
    wrong += [genuine + b"\n", genuine + genuine, b"\n" + genuine, bytes(2_000_000)]
    for data in wrong:
        path.write_bytes(data)
        with pytest.raises(KeyFileDamaged, match=r"signing\.key"):
            keys.load("signing")
        with pytest.raises(KeyFileDamaged):
            keys.load_or_create("signing", NAME)
        assert path.read_bytes() == data, "a damaged key file is left for its owner to judge"


def test_a_secret_is_in_no_text_that_the_program_makes_of_a_key(keys: KeyDirectory) -> None:
    key = keys.create("signing", NAME)
    secret = secret_of(keys)
    texts = [repr(key), str(key), f"{key}", repr(keys), repr(vars(keys)), repr(keys.ring())]
    assert all(secret not in text for text in texts)
    assert f"{key.key_id:08x}" in repr(key)
    (keys.path / "signing.key").write_text(f"PRIVATE+KEY+{NAME}+00000000+{secret}\n")
    with pytest.raises(KeyFileDamaged) as caught:
        keys.load("signing")
    assert caught.value.__cause__ is None
    assert secret not in str(caught.value) + str(vars(caught.value))


def test_a_private_key_is_neither_pickled_nor_copied_nor_listed_by_vars() -> None:
    key = SigningKey.generate(NAME)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(KeyInvalid, match="not to be copied or pickled"):
            attempt(key)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize(
    "label", ["", ".", "..", "../signing", "a/b", "A", "-a", ".hidden", "a\n", "a b", "x" * 65]
)
def test_a_label_cannot_lead_out_of_the_directory(keys: KeyDirectory, label: str) -> None:
    for use in (keys.load, lambda bad: keys.create(bad, NAME)):
        with pytest.raises(KeyInvalid, match="label"):
            use(label)
    assert not keys.path.exists()


@pytest.mark.parametrize(
    "name", ["", "two words", "a+b", "new\nline", "no\u00a0space", "\x07", "\ud800"]
)
def test_a_name_that_could_not_stand_in_a_note_makes_no_key(keys: KeyDirectory, name: str) -> None:
    with pytest.raises(KeyInvalid, match="cannot name a key"):
        keys.load_or_create("signing", name)
    assert not (keys.path / "signing.key").exists()


CREATE_ON_EACH_LINE = """
import sys
from pathlib import Path
from enclave.keys import KeyDirectory, SigningKey
SigningKey.generate("warm.example")
print("ready", flush=True)
for label in sys.stdin:
    keys = KeyDirectory(Path(sys.argv[1]) / label.strip())
    print(keys.load_or_create("signing", "example.org/log").public, flush=True)
"""


def test_eight_processes_that_create_a_key_at_once_all_get_the_same(tmp_path: Path) -> None:
    rounds = 20
    command = [sys.executable, "-c", CREATE_ON_EACH_LINE, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(enclave.__file__).parents[1])}
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(8)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for number in range(rounds):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"round{number}\n")
                process.stdin.flush()
            got = {process.stdout.readline().strip() for process in processes if process.stdout}
            folder = tmp_path / f"round{number}"
            assert got == {str(KeyDirectory(folder).load("signing").public)}
            assert [path.name for path in folder.iterdir()] == ["signing.key"]
    finally:
        for process in processes:
            process.communicate(timeout=30)
    assert [process.returncode for process in processes] == [0] * 8


def test_a_draft_that_a_killed_process_left_is_no_key(keys: KeyDirectory) -> None:
    keys.create("signing", NAME)
    (keys.path / ".signing.key.0123456789abcdef").write_text("PRIVATE+KEY+half")
    assert keys.load("signing").name == NAME
    assert len(keys.ring()) == 1


def test_the_ring_has_one_s_own_keys_and_those_one_trusts(keys: KeyDirectory) -> None:
    own = [keys.create(label, NAME).public for label in ("old", "signing")]
    assert list(keys.ring()) == own
    other = SigningKey.generate("example.net/other").public
    keys.trust(other)
    keys.trust(other)
    assert list(keys.ring()) == [*own, other]
    assert other in keys.ring()
    assert keys.ring().find(other.name, other.key_id) == other
    assert keys.ring().find(other.name, other.key_id ^ 1) is None
    assert SigningKey.generate(NAME).public not in keys.ring()
    assert "other" not in keys.ring()


def test_a_ring_is_read_from_lines_with_comments(tmp_path: Path) -> None:
    first, second = (SigningKey.generate(f"example.org/{name}").public for name in "ab")
    (tmp_path / "auditors.vkey").write_text(f"# two auditors\n\n{first}\n  {second}  \n{first}\n")
    (tmp_path / "note.txt").write_text("not read")
    assert list(KeyRing.load(tmp_path)) == [first, second]


@pytest.mark.parametrize(
    "content", [b"not a key\n", b"\xff\n", b"x+00000000+AAAA\n", bytes(1_000_001)]
)
def test_a_damaged_file_of_trusted_keys_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "auditors.vkey").write_bytes(content)
    with pytest.raises(KeyFileDamaged, match=r"auditors\.vkey"):
        KeyRing.load(tmp_path)


def test_trusted_keys_may_be_read_by_others_but_not_written(tmp_path: Path) -> None:
    key = SigningKey.generate(NAME).public
    folder = tmp_path / "trusted"
    folder.mkdir(0o755)
    file = folder / "auditors.vkey"
    file.write_text(f"{key}\n")
    for loose in (0o664, 0o646):
        file.chmod(loose)
        with pytest.raises(KeyFileUnsafe, match=rf"auditors\.vkey has mode {loose:03o}.*change"):
            KeyRing.load(folder)
    file.chmod(0o644)
    folder.chmod(0o775)
    with pytest.raises(KeyFileUnsafe, match=r"trusted has mode 775"):
        KeyRing.load(folder)
    folder.chmod(0o755)
    assert list(KeyRing.load(folder)) == [key]


def test_a_missing_folder_of_trusted_keys_is_an_error_and_no_empty_ring(tmp_path: Path) -> None:
    with pytest.raises(KeyNotFound):
        KeyRing.load(tmp_path / "trusted")


def test_two_keys_of_one_name_and_id_are_not_trusted_together() -> None:
    # 32 bits collide by birthday after some 80,000 keys.
    seen: dict[int, VerifyKey] = {}
    for number in range(2_000_000):
        key = VerifyKey(NAME, number.to_bytes(32, "big"))
        twin = seen.setdefault(key.key_id, key)
        if twin != key:
            break
    else:
        pytest.fail("no collision")
    with pytest.raises(KeyInvalid, match=rf"two different keys are both {NAME}\+{key.key_id:08x}"):
        KeyRing([key, twin])
