"""The Secure Real-time Decision Stack: decisions that can be replayed, explained and proved.

``import srds`` is the face: an ``App``, its decisions, and ``read`` for what they read.
"""

from microkernel.boundary import aread, read
from srds.app import App, OpenApp, Resource
from srds.decision_function import DecisionFunction
from srds.errors import AppError, SrdsError, StoreError
from srds.store import Store

__all__ = [
    "App",
    "AppError",
    "DecisionFunction",
    "OpenApp",
    "Resource",
    "SrdsError",
    "Store",
    "StoreError",
    "aread",
    "read",
]
