"""Flows: graphs of operators linked by bounded channels, and templates of tasks."""

from microkernel.flows.counters import OperatorCounters
from microkernel.flows.flow import Flow, Results
from microkernel.flows.graph import Graph, Operator, OperatorContext, Stream
from microkernel.flows.keys import instance_of
from microkernel.flows.template import Call, Parameter, Program, Template

__all__ = [
    "Call",
    "Flow",
    "Graph",
    "Operator",
    "OperatorContext",
    "OperatorCounters",
    "Parameter",
    "Program",
    "Results",
    "Stream",
    "Template",
    "instance_of",
]
