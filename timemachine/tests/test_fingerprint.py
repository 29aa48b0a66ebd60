"""The environment fingerprint."""

import json
import os
import subprocess
import sys

import pytest

from timemachine.fingerprint import differences, fingerprint


def fingerprint_in_a_new_process(imports="", **variables):
    program = (
        f"import sys, json\n{imports}\nfrom timemachine.fingerprint import fingerprint\n"
        "found = fingerprint()\n"
        "print(json.dumps([found, sorted({m.partition('.')[0] for m in sys.modules})]))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return json.loads(finished.stdout)


def test_it_is_flat_text_and_the_same_at_each_call():
    found = fingerprint()
    assert found == json.loads(json.dumps(found))
    assert all(isinstance(value, str) for value in found.values())
    assert list(found) == sorted(found)
    assert fingerprint() == found


def test_it_names_what_decides_bits():
    found = fingerprint()
    assert found["python.version"] == sys.version.split()[0]
    assert found["version.numpy"]
    assert found["cpu.model"]
    assert int(found["threads.available"]) >= 1


def test_it_imports_no_numeric_library():
    _, modules = fingerprint_in_a_new_process()
    assert not {"numpy", "torch", "sklearn", "onnxruntime"} & set(modules)


def test_a_changed_variable_is_the_only_difference_between_two_processes():
    one, _ = fingerprint_in_a_new_process(MKL_CBWR="AVX2", PYTHONHASHSEED="1")
    two, _ = fingerprint_in_a_new_process(MKL_CBWR="COMPATIBLE", PYTHONHASHSEED="1")
    (found,) = differences(one, two)
    assert (found.key, found.recorded, found.present) == ("env.MKL_CBWR", "AVX2", "COMPATIBLE")
    assert str(found) == "env.MKL_CBWR: was AVX2, is COMPATIBLE"


def test_a_library_that_is_not_loaded_yet_is_no_difference():
    before, _ = fingerprint_in_a_new_process()
    after, _ = fingerprint_in_a_new_process("import numpy")
    assert any(key.startswith("loaded.") for key in after)
    assert not any(key.startswith("loaded.") for key in before)
    assert differences(before, after) == ()


def test_another_thread_count_of_a_loaded_library_is_a_difference():
    one, _ = fingerprint_in_a_new_process("import numpy", OPENBLAS_NUM_THREADS="1")
    if not any("threads=1" in value for key, value in one.items() if key.startswith("loaded.")):
        pytest.skip("this NumPy has no thread pool that takes the variable")
    other = {key: value.replace("threads=1", "threads=7") for key, value in one.items()}
    assert [found.key.partition(" ")[0] for found in differences(one, other)] == [
        key.partition(" ")[0] for key, value in one.items() if "threads=1" in value
    ]


def test_a_removed_entry_is_reported_as_absent():
    found = fingerprint()
    older = {**found, "version.lightgbm": "1.0"}
    (difference,) = [d for d in differences(older, found) if d.key == "version.lightgbm"]
    assert difference.recorded == "1.0"
    assert difference.present != "1.0"
