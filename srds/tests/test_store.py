"""The store: one directory, made once, refused when it is something else."""

import json
import multiprocessing
import os
import stat

import pytest

from srds import Store, StoreError


def test_a_store_is_made_once_and_found_again(tmp_path):
    made = Store.make(tmp_path / "store")
    assert Store.make(tmp_path / "store") == made == Store.open(tmp_path / "store")
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def make(path):
    return Store.make(path).id


def test_two_processes_that_make_a_store_make_one(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        ids = pool.map(make, [tmp_path / "store"] * 2, chunksize=1)
    assert len(set(ids)) == 1
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["store.json"]


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("", "does not describe a store"),
        ("[]", "does not describe a store"),
        ('{"format": 1}', "does not describe a store"),
        ('{"format": "1", "id": 3}', "does not describe a store"),
        ('{"format": 2, "id": "00"}', "has format 2; this program knows up to 1"),
    ],
)
def test_a_mark_that_is_damaged_or_too_new_is_refused_by_name(tmp_path, mark, message):
    (tmp_path / "store.json").write_text(mark)
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(tmp_path)
    assert caught.value.remedy


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty, and no store"):
        Store.make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_missing_store_is_said_to_be_missing(tmp_path):
    with pytest.raises(StoreError, match="there is no store at"):
        Store.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_path_that_cannot_be_a_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="no store can be made at"):
        Store.make(tmp_path / "file" / "store")


def test_the_store_is_named_by_the_environment(tmp_path, monkeypatch):
    made = Store.make(tmp_path / "here")
    monkeypatch.setenv("SRDS_STORE", os.fspath(tmp_path / "here"))
    assert Store.open().id == made.id
    assert json.loads((tmp_path / "here" / "store.json").read_text())["format"] == 1
