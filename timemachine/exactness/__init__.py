"""The self-test that measures how exactly a model's answers can be reproduced."""

from timemachine.exactness.classes import Evidence, ExactnessClass, ExactnessReport, Factor
from timemachine.exactness.plan import ExactnessSettings
from timemachine.exactness.self_test import aligned, classify

__all__ = [
    "Evidence",
    "ExactnessClass",
    "ExactnessReport",
    "ExactnessSettings",
    "Factor",
    "aligned",
    "classify",
]
