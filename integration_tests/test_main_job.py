"""The main job end to end: each thing that it reports is computed again from what it left behind.

The run is shared. The tests read its journal, its catalogue and its models as a stranger would,
and compare with the report.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microkernel.values import encode
from srds.store import Store
from timemachine.journal import verify
from timemachine.replay import DecisionRecord, Records

PROTECTED = {"black", "hispan", "white", "male", "married", "old"}
OUTCOME = {"approve", "reject", "action", "typur", "inson"}
DECIDE = "srds.apps.mortgage:decide"


@pytest.fixture(scope="module")
def store(main_job: Any) -> Store:
    return Store.open(main_job.store)


@pytest.fixture(scope="module")
def records(store: Store) -> list[DecisionRecord]:
    return list(Records(store.reader()))


@pytest.fixture(scope="module")
def opened(main_job: Any) -> Iterator[Any]:
    """The app over the finished store, for replays: nothing is written."""
    from srds.apps import mortgage

    with mortgage.app.open(main_job.store, recording=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def explained(main_job: Any, records: list[DecisionRecord]) -> DecisionRecord:
    [found] = [one for one in records if one.id == main_job.report.explained]
    return found


def answer_of(record: DecisionRecord) -> str:
    assert record.outcome is not None
    assert record.outcome.ok
    label: str = record.outcome.value["answer"]
    return label


def read_by(record: DecisionRecord) -> dict[str, Any]:
    return {one.key[-1]: one.value for one in record.inputs if one.kind == "read"}


def predicted_by(
    opened: Any,
    version: Any,
    applications: list[dict[str, Any]],
    protected: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """What an ensemble says, by the models in the store and without app, kernel and batches."""
    from frameworks.serving import Model, load_replica
    from frameworks.serving.ensemble import Ensemble
    from srds.apps.mortgage_models import features

    seen = protected or [None] * len(applications)
    rows = np.array([features(*both) for both in zip(applications, seen, strict=True)])
    columns = {
        name: load_replica(
            opened.store.artefacts(), Model.from_dict(description), opened.store.trusted()
        ).predict(rows)[:, -1]
        for name, description in version.content["models"].items()
    }
    ensemble = Ensemble.restore(version.content["ensemble"])
    answers = [
        ensemble.answer({name: float(column[row]) for name, column in columns.items()})
        for row in range(len(rows))
    ]
    return [{"answer": one.label, "score": one.score} for one in answers]


# The decisions


def test_every_held_out_application_was_decided_once(
    main_job: Any, records: list[DecisionRecord]
) -> None:
    from srds.apps.mortgage_models import load_applications

    report = main_job.report
    held_out = load_applications(report.seed).held_out.tolist()
    assert (report.rows, report.training, report.held_out) == (1989, 1491, 498)
    assert sorted(one.args[0] for one in records) == held_out
    assert {one.name for one in records} == {DECIDE}
    assert all(one.subject == one.args[0] and one.policy for one in records)
    assert all(one.versions == (report.ensemble["version"],) for one in records)


def test_the_answers_reported_are_those_in_the_journal(
    main_job: Any, records: list[DecisionRecord], table: Any
) -> None:
    report = main_job.report
    answers = Counter(map(answer_of, records))
    assert answers == report.answers
    assert set(answers) == {"approve", "reject", "I don't know"}
    approved = table["approve"].to_numpy()
    outcome = {one.id: "approve" if approved[one.args[0]] == 1 else "reject" for one in records}
    answered = [one for one in records if answer_of(one) != "I don't know"]
    assert len(answered) == report.answered
    assert sum(answer_of(one) == outcome[one.id] for one in answered) == report.agreed


def test_what_the_decisions_read_is_what_stands_in_the_table(
    records: list[DecisionRecord], table: Any
) -> None:
    codes = {"liq": 1e6, "lines": 999999.375, "term": 999999.375}
    for record in records:
        (row,) = record.args
        for name, value in read_by(record).items():
            published = round(float(table[name].iloc[row]), 4)
            missing = math.isnan(published) or codes.get(name) == published
            assert value is None if missing else value == published, (row, name)


def test_the_answers_follow_from_the_recorded_inputs_and_the_registered_models(
    opened: Any, records: list[DecisionRecord]
) -> None:
    version = opened.ground.version_by_hash(records[0].versions[0])
    computed = predicted_by(opened, version, [read_by(one) for one in records])
    assert [one["answer"] for one in computed] == [answer_of(one) for one in records]
    scores = [one.outcome.value["score"] for one in records if one.outcome]
    assert [one["score"] for one in computed] == pytest.approx(scores, abs=1e-12)


def test_no_decision_read_a_protected_column_or_the_outcome(
    main_job: Any, store: Store, records: list[DecisionRecord]
) -> None:
    reads = Counter(name for record in records for name in read_by(record))
    assert not (PROTECTED | OUTCOME) & set(reads)
    assert {*reads.values()} == {len(records)}
    assert tuple(sorted(reads)) == main_job.report.audit.read
    assert main_job.report.audit.protected_read == ()
    # And by the bytes: no event of a decision as much as names one of them as an input's key.
    events = b"".join(event.payload for event in store.reader().events() if event.decision)
    assert encode("obrat") in events
    for name in PROTECTED | {"typur", "inson"}:
        assert encode(name) not in events, name


# Replay


REPLAY = """
import json, sys
from srds.apps import mortgage
from timemachine.replay import Records

with mortgage.app.open(sys.argv[1], recording=False) as opened:
    found = []
    records = list(Records(opened.store.reader()))
    with opened.resting_on(records[0].versions), opened.replayer() as replayer:
        replays = replayer.exact_all(records[::2]) + [replayer.exact(one) for one in records[1::2]]
    for replay in replays:
        bits = [replay.recorded.value["score"].hex(), replay.replayed.value["score"].hex()]
        found.append([replay.decision, replay.exact, replay.same_bits, replay.first_difference,
                      replay.recorded.value, replay.replayed.value, bits])
    content = opened.ground.version_by_hash(records[0].versions[0]).content
print(json.dumps([found, {n: m["exactness"] for n, m in content["models"].items()}]))
"""


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        # What SQLite keeps beside a database for its readers.
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def test_every_decision_replays_in_a_fresh_process_that_writes_nothing(
    main_job: Any, records: list[DecisionRecord], fresh_process: Callable[..., Any]
) -> None:
    """Half of them side by side, the other half one by one: the company must not matter."""
    before = contents(main_job.store)
    replays, exactness = fresh_process(REPLAY, main_job.store).answer
    assert contents(main_job.store) == before
    print("exactness classes:", exactness)
    assert exactness == main_job.report.exactness
    assert {one[0] for one in replays} == {one.id for one in records}
    assert len(replays) == len(records)
    recorded = {one.id: one.outcome.value for one in records if one.outcome}
    for identity, exact, same_bits, difference, was, now, bits in replays:
        assert was == recorded[identity]
        if "unstable" not in exactness.values():
            assert exact, difference
            assert same_bits
            assert bits[0] == bits[1]
        # An unstable model promises no bits; its answer must still be the same one.
        assert now["answer"] == was["answer"]
        assert now["score"] == pytest.approx(was["score"], abs=1e-9)
    assert main_job.report.replayed == len(records)
    assert main_job.report.same_bits == sum(exact for _, exact, *_ in replays)


# Explanation


def test_the_smallest_change_turns_the_answer_and_no_smaller_one_does(
    main_job: Any, opened: Any, explained: DecisionRecord
) -> None:
    from srds.apps.mortgage_models import actionable

    recorded = read_by(explained)
    grids = actionable(recorded)
    singles = [
        (name, value, abs(value - recorded[name]) / grid.step)
        for name, grid in grids.items()
        for value in grid.values
        if value != recorded[name]
    ]
    pairs = [pair for pair in combinations(singles, 2) if pair[0][0] != pair[1][0]]
    candidates = [*((one,) for one in singles), *pairs]
    overrides = [
        {("loanapp", (explained.args[0], name)): value for name, value, _ in one}
        for one in candidates
    ]
    with opened.resting_on(explained.versions), opened.replayer() as replayer:
        replays = replayer.perturbed(explained, overrides)
    answers = [replay.replayed.value["answer"] for replay in replays]
    assert all(replay.mode == "perturbed" and replay.replayed.ok for replay in replays)

    # The models, asked without any replay, agree with every one of the perturbed replays.
    version = opened.ground.version_by_hash(explained.versions[0])
    changed = [{**recorded, **{name: value for name, value, _ in one}} for one in candidates]
    assert [one["answer"] for one in predicted_by(opened, version, changed)] == answers

    assert answer_of(explained) == "reject"
    turning = {
        (len(one), round(sum(distance for *_, distance in one), 9)): {
            name: value for name, value, _ in one
        }
        for one, answer in reversed(list(zip(candidates, answers, strict=True)))
        if answer == "approve"
    }
    search = main_job.report.explanation.change
    if search.found is None:
        assert not turning
        assert search.certificate.tried == 1 + len(candidates)
        return
    reported = {change.name: change.value for change in search.found.changes}
    size = (len(search.found.changes), round(search.found.distance, 9))
    assert size == min(turning)
    assert reported in [
        {name: value for name, value, _ in one}
        for one, answer in zip(candidates, answers, strict=True)
        if answer == "approve"
    ]
    assert search.found.answer.label == "approve"
    assert search.certificate.candidates[1] == len(singles)
    smaller = [
        one
        for one in candidates
        if (len(one), round(sum(distance for *_, distance in one), 9)) < size
    ]
    assert search.certificate.smaller_tried >= 1 + len(smaller)


def test_effects_are_what_the_models_say_without_that_input(
    main_job: Any, opened: Any, explained: DecisionRecord
) -> None:
    version = opened.ground.version_by_hash(explained.versions[0])
    recorded = read_by(explained)
    effects = main_job.report.explanation.effects
    assert {effect.name for effect in effects} <= set(recorded)
    sizes = [abs(effect.ablation) for effect in effects]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0
    changed = [{**recorded, effect.name: effect.baseline} for effect in effects]
    was = main_job.report.explained_answer["score"]
    for effect, one in zip(effects, predicted_by(opened, version, changed), strict=True):
        assert effect.ablation == pytest.approx(was - one["score"], abs=1e-9), effect.name


# Lineage and catalogue


def test_the_lineage_reaches_the_table_that_was_decided_on(
    main_job: Any, opened: Any, explained: DecisionRecord, table: Any
) -> None:
    from srds.apps.mortgage_models import load_applications
    from srds.lineage import lineage_of

    lineage = lineage_of(opened.ground, explained)
    assert not lineage.missing
    assert tuple(lineage.lines()) == main_job.report.lineage
    by_item = {str(node.item): node for node in lineage.lineage.nodes}
    data = opened.ground.version_by_hash(by_item["dataset/loanapp"].hash)
    assert data.content == {"sha256": load_applications(9, table).digest, "rows": 1989}
    assert data.content["sha256"] == main_job.report.data_sha256
    kinds = {name.partition("/")[0] for name in by_item}
    assert {"ensemble", "model", "metrics", "features", "code", "dataset"} <= kinds
    # From the models to the data there is a way of edges, link by link.
    links = {(edge.target, edge.source) for edge in lineage.lineage.edges}
    model, split = by_item["model/mortgage/trees"], by_item["dataset/loanapp/split"]
    assert {(model.hash, split.hash), (split.hash, data.hash)} <= links
    # The code is the one that runs here.
    code = opened.ground.version_by_hash(by_item["code/srds.apps.mortgage"].hash)
    for name, digest in code.content["sha256"].items():
        source = Path(load_applications.__code__.co_filename).with_name(name)
        assert hashlib.sha256(source.read_bytes()).hexdigest() == digest


def test_the_models_and_metrics_reported_are_those_in_the_catalogue(
    main_job: Any, opened: Any
) -> None:
    report = main_job.report
    for name, metrics in report.models.items():
        [version] = opened.ground.find("metrics", f"mortgage/{name}").entries
        assert version.content == metrics
    current = opened.ground.resolve("ensemble/mortgage@production")
    assert current.hash == report.ensemble["version"]
    assert current.content["ensemble"]["threshold"] == report.ensemble["threshold"]
    assert sum(report.ensemble["weights"].values()) == pytest.approx(1)
    for description in current.content["models"].values():
        digest = description["digest"]
        artefact = main_job.store / "objects" / digest[:2] / digest[2:]
        assert hashlib.sha256(artefact.read_bytes()).hexdigest() == digest


def hashes(ground: Any) -> dict[str, list[str]]:
    return {
        str(item): [version.hash for version in ground.find(item.kind, item.name).entries]
        for item in ground.items().entries
    }


def test_a_catalogue_rebuilt_from_the_journal_has_the_same_versions(
    main_job: Any, opened: Any, tmp_path: Path
) -> None:
    from enclave.authority import Principal
    from ground import Ground

    before = hashes(opened.ground)
    assert len(before) > 10
    moves = moves_of(opened.ground)
    assert [move.new for move in moves] == [main_job.report.ensemble["version"]]
    copy = tmp_path / "store"
    shutil.copytree(main_job.store, copy)
    for path in copy.glob("ground.db*"):
        path.unlink()
    events = Store.open(copy).reader().events(kinds=("ground.change",))
    assert Ground.rebuild(copy / "ground.db", (event.payload for event in events)) > 0
    principal = Principal(opened.ground.origin(main_job.report.ensemble["version"]).principal)
    with Ground.open(copy / "ground.db", append=None, principal=principal) as ground:
        assert hashes(ground) == before
        assert moves_of(ground) == moves
        assert (
            ground.resolve("ensemble/mortgage@production").hash
            == main_job.report.ensemble["version"]
        )


def moves_of(ground: Any) -> list[Any]:
    return list(ground.history("ensemble/mortgage@production").entries)


# Another version, and the audit


def test_the_second_version_decides_as_reported(
    main_job: Any, opened: Any, records: list[DecisionRecord]
) -> None:
    current = opened.ground.resolve("ensemble/mortgage@production")
    [second] = [
        version
        for version in opened.ground.find("ensemble", "mortgage").entries
        if current.hash in version.parents
    ]
    assert set(second.content["models"]) == {"logistic", "trees"}
    computed = predicted_by(opened, second, [read_by(one) for one in records])
    moves = Counter(
        (answer_of(record), one["answer"]) for record, one in zip(records, computed, strict=True)
    )
    reported = main_job.report.second_version
    assert {(before, after): count for before, after, count in reported.moves} == moves
    assert reported.decisions == len(records)
    assert reported.moved == sum(n for (before, after), n in moves.items() if before != after)


def test_the_rates_by_group_are_those_of_the_recorded_answers(
    main_job: Any, records: list[DecisionRecord], table: Any
) -> None:
    audit = main_job.report.audit
    assert set(audit.groups) == PROTECTED
    approved = table["approve"].to_numpy()
    for column in PROTECTED:
        values = table[column].to_numpy()
        for rates in audit.groups[column]:
            wanted = {"yes": 1.0, "no": 0.0}.get(rates.group or "")
            members = [
                one
                for one in records
                if (math.isnan(values[one.args[0]]) if wanted is None
                    else values[one.args[0]] == wanted)
            ]  # fmt: skip
            answers = [answer_of(one) for one in members]
            wrong = [
                answer != ("approve" if approved[one.args[0]] == 1 else "reject")
                for one, answer in zip(members, answers, strict=True)
                if answer != "I don't know"
            ]
            assert (rates.positive.count, rates.positive.total) == (
                answers.count("approve"),
                len(members),
            )
            assert rates.abstention.count == answers.count("I don't know")
            assert (rates.error.count, rates.error.total) == (sum(wrong), len(wrong))
            assert 0 <= rates.positive.low <= rates.positive.value <= rates.positive.high <= 1
        assert sum(rates.positive.total for rates in audit.groups[column]) == len(records)


def test_the_answers_that_move_with_a_protected_column_are_counted_right(
    main_job: Any, opened: Any, records: list[DecisionRecord], table: Any
) -> None:
    audit = main_job.report.audit
    [seeing] = opened.ground.find("ensemble", "mortgage-seeing-protected").entries
    assert set(audit.moved_when_flipped) == PROTECTED
    assert sum(moved for moved, _ in audit.moved_when_flipped.values()) > 0
    inputs = [read_by(one) for one in records]
    groups = [
        {
            name: None if math.isnan(value) else float(value)
            for name, value in table.loc[one.args[0], sorted(PROTECTED)].items()
        }
        for one in records
    ]
    before = [one["answer"] for one in predicted_by(opened, seeing, inputs, groups)]
    for column, reported in audit.moved_when_flipped.items():
        flipped = [
            {**group, column: None if group[column] is None else 1 - group[column]}
            for group in groups
        ]
        after = [one["answer"] for one in predicted_by(opened, seeing, inputs, flipped)]
        known = sum(group[column] is not None for group in groups)
        moved = sum(was != now for was, now in zip(before, after, strict=True))
        assert tuple(reported) == (moved, known), column


def test_only_the_models_of_the_audit_were_given_the_protected_columns(
    main_job: Any, opened: Any
) -> None:
    [seeing] = opened.ground.find("ensemble", "mortgage-seeing-protected").entries
    current = opened.ground.resolve("ensemble/mortgage@production")
    for description in seeing.content["models"].values():
        assert set(description["features"]) >= PROTECTED
    for description in current.content["models"].values():
        assert not (PROTECTED | OUTCOME) & set(description["features"])


# The journal


def frames_of(path: Path) -> Iterator[tuple[int, int, int, bytes]]:
    """Begin, end, seq and decision of each frame, by docs/journal.md and nothing else."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<8sII", data)
    assert (magic, version) == (b"SRDSJRN1", 1)
    at = 24 + length
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        (seq,) = struct.unpack_from("<Q", data, at + 8)
        end = (at + 8 + length + 7) // 8 * 8
        yield at, end, seq, data[at + 32 : at + 48]
        at = end


def frame_at(path: Path, offset: int) -> tuple[int, bytes]:
    [found] = [(seq, who) for begin, end, seq, who in frames_of(path) if begin <= offset < end]
    return found


def test_the_journal_verifies_and_holds_what_was_reported(main_job: Any, store: Store) -> None:
    report = main_job.report
    assert report.findings == 0
    verified = verify(store.journal, list(store.trusted()))
    assert verified.ok, verified.findings
    assert verified.findings == ()
    assert verified.frames == len(list(store.reader().events()))
    # After the report only checkpoints were added.
    kinds = [event.kind for event in store.reader().events()]
    assert set(kinds[report.frames :]) <= {"journal.checkpoint"}
    assert [log.signed_frames for log in verified.logs] == [verified.frames]


def test_the_tampering_named_the_frame_whose_byte_was_flipped(main_job: Any, store: Store) -> None:
    tampering = main_job.report.tampering
    [segment] = store.journal.glob(f"*/{tampering.segment}")
    seq, decision = frame_at(segment, tampering.offset)
    assert tampering.frame == seq
    assert tampering.decision == (decision.hex() if any(decision) else None)
    assert f"frame {seq}" in tampering.finding


def test_any_flipped_byte_of_a_frame_is_named(store: Store, tmp_path: Path) -> None:
    """In each part of a frame: prologue, header, commitment, salt, payload and what fills it up."""
    [segment] = store.journal.glob("*/*.seg")
    generator = random.Random(2)
    begin, end, *_ = generator.choice(
        [frame for frame in frames_of(segment) if frame[1] - frame[0] > 200]
    )
    padded = next(
        frame
        for frame in frames_of(segment)
        if (struct.unpack_from("<I", segment.read_bytes()[frame[0] : frame[0] + 4])[0] % 8)
    )
    offsets = [begin, begin + 5, begin + 9, begin + 40, begin + 70, begin + 100, end - 8]
    offsets.append(padded[1] - 1)
    for number, offset in enumerate(offsets):
        copy = tmp_path / str(number)
        shutil.copytree(store.journal, copy)
        [changed] = copy.glob("*/*.seg")
        with changed.open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1 << generator.randrange(8)]))
        report = verify(copy, list(store.trusted()))
        assert not report.ok
        named = next(one for one in report.findings if one.severity == "damage")
        assert named.seq == frame_at(segment, offset)[0], (offset - begin, str(named))


def test_a_forger_who_fixes_the_checksum_is_still_named(store: Store, tmp_path: Path) -> None:
    [segment] = store.journal.glob("*/*.seg")
    data = bytearray(segment.read_bytes())
    begin, _end, seq, decision = next(
        frame for frame in frames_of(segment) if encode("reject") in data[frame[0] : frame[1]]
    )
    (length,) = struct.unpack_from("<I", data, begin)
    at = data.index(encode("reject"), begin)
    data[at + 1] ^= 32  # "reject" becomes "Reject"
    salt, payload = data[begin + 96 : begin + 112], data[begin + 112 : begin + 8 + length]
    assert not data[begin + 50]
    data[begin + 64 : begin + 96] = hmac.digest(bytes(salt), bytes(payload), "sha256")
    struct.pack_into("<I", data, begin + 4, crc32c(data[begin + 8 : begin + 8 + length]))
    copy = tmp_path / "journal"
    shutil.copytree(store.journal, copy)
    [changed] = copy.glob("*/*.seg")
    changed.write_bytes(data)
    named = [one for one in verify(copy, list(store.trusted())).findings if one.seq == seq]
    assert named
    assert named[0].severity == "damage"
    assert named[0].decision == (decision if any(decision) else None)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# The run itself


def test_the_progress_comes_to_the_end_of_each_step(main_job: Any) -> None:
    last = {step: (done, total) for step, done, total in main_job.steps}
    assert list(last) == [
        "train", "register", "decide", "replay", "explain", "compare", "audit", "verify",
    ]  # fmt: skip
    assert all(done == total > 0 for done, total in last.values()), last
    assert last["decide"] == (498, 498)


def test_the_report_is_a_json_document(main_job: Any) -> None:
    document = json.loads(json.dumps(main_job.report.to_json(), allow_nan=False))
    assert document["answers"] == main_job.report.answers
    assert document["explanation"]["decision"] == main_job.report.explained
    assert document["tampering"]["frame"] == main_job.report.tampering.frame


def test_the_store_is_its_owners_alone(main_job: Any) -> None:
    assert os.stat(main_job.store).st_mode & 0o077 == 0
    for path in [*main_job.store.glob("journal/**/*"), *main_job.store.glob("keys/*")]:
        assert path.stat().st_mode & 0o077 == 0, path
