"""The operators of a flow, as the stage that runs them sees them: a batch in, a batch out.

Each call of an operator's function is a task of the flow, with an id of its own that follows from
the operator and the item's position; one ``Record`` stands for them in turn.
"""
from cpython.list cimport PyList_GET_ITEM, PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject_IsTrue
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdint cimport uint64_t

from microkernel.flows.record cimport new_record
from microkernel.function cimport Function
from microkernel.ids cimport mix, name_hash
from microkernel.scheduler cimport Scheduler
from microkernel.task cimport DONE, RUNNING, Ref

from microkernel.errors import GraphError
from microkernel.flows.graph import BATCH

cdef extern from "Python.h":
    object PyObject_CallOneArg(object call, object argument)
    object PyObject_CallNoArgs(object call)
    PyObject *PyIter_Next(object iterator) except? NULL
    void drop "Py_DECREF"(PyObject *)


cdef class Step:
    """An operator without code, which hands on what it is given: a source, merge or feedback."""

    cdef int begin(self, list batch) except -1:
        """Make this thread run the operator, until ``record.give_thread``."""
        self.first = self.items_in
        self.items_in += len(batch)
        return self.record.take_thread()

    cdef int call_for(self, Py_ssize_t i) except -1:
        """From here on the record stands for the call for item ``i`` of the batch."""
        self.at = i
        self.record.stand_for(mix(self.id, self.first + i, self.function.hash), self.function)
        return self.record.begin() if self.recorded else 0

    cdef list run(self, list batch, int port):
        """What follows from ``batch``; None as a batch asks for more of the last one."""
        self.items_in += len(batch)
        return batch

    cdef list finish(self):
        """What follows from the end of all inputs."""
        return None

    cdef int open(self, object context) except -1:
        return 0

    cdef int release(self) except -1:
        """The flow is over, whichever way."""
        return 0


cdef class Map(Step):
    cdef list run(self, list batch, int port):
        cdef Py_ssize_t count = len(batch), i
        cdef list results = PyList_New(count)
        cdef object call = self.call
        self.begin(batch)
        try:
            for i in range(count):
                if self.flow.state != RUNNING:
                    return None     # given up meanwhile
                self.call_for(i)
                result = PyObject_CallOneArg(call, <object>PyList_GET_ITEM(batch, i))
                Py_INCREF(result)
                PyList_SET_ITEM(results, i, result)
                if self.recorded:
                    self.record.end(DONE, None)
        finally:
            self.record.give_thread()
        return results


cdef class Filter(Step):
    cdef list run(self, list batch, int port):
        cdef Py_ssize_t count = len(batch), i
        cdef list kept = []
        cdef object call = self.call
        self.begin(batch)
        try:
            for i in range(count):
                if self.flow.state != RUNNING:
                    return None
                self.call_for(i)
                item = <object>PyList_GET_ITEM(batch, i)
                if PyObject_IsTrue(PyObject_CallOneArg(call, item)):
                    kept.append(item)
                if self.recorded:
                    self.record.end(DONE, None)
        finally:
            self.record.give_thread()
        return kept


cdef class Sink(Step):
    cdef list run(self, list batch, int port):
        cdef Py_ssize_t count = len(batch), i
        cdef object call = self.call
        self.begin(batch)
        try:
            for i in range(count):
                if self.flow.state != RUNNING:
                    return None
                self.call_for(i)
                PyObject_CallOneArg(call, <object>PyList_GET_ITEM(batch, i))
                if self.recorded:
                    self.record.end(DONE, None)
        finally:
            self.record.give_thread()
        return None


cdef class FlatMap(Step):
    """Takes at most a batch from what the calls return and comes back for the rest, so that an
    endless generator is read no faster than its items go on."""

    cdef list rest              # the batch at hand
    cdef object iterator        # over what the call at hand returned
    cdef Py_ssize_t batch

    cdef list run(self, list batch, int port):
        cdef list results = []
        cdef PyObject *item
        if batch is not None:
            self.begin(batch)
            self.rest = batch
            self.at = 0
        else:
            self.record.take_thread()
        self.more = True
        try:
            while len(results) < self.batch:
                if self.flow.state != RUNNING:
                    return None
                if self.iterator is None:
                    if self.at == len(self.rest):
                        self.rest = None
                        self.more = False
                        break
                    self.call_for(self.at)
                    self.iterator = iter(self.results())
                item = PyIter_Next(self.iterator)
                if item != NULL:
                    results.append(<object>item)
                    drop(item)
                    continue
                self.iterator = None
                if self.recorded:
                    self.record.end(DONE, None)
                self.at += 1
        finally:
            self.record.give_thread()
        return results

    cdef object results(self):
        if self.kind == "generator":
            return PyObject_CallNoArgs(self.call)
        return PyObject_CallOneArg(self.call, <object>PyList_GET_ITEM(self.rest, self.at))

    cdef int release(self) except -1:
        self.rest = None
        self.iterator = None
        return 0


cdef class Batches(Step):
    """An operator with a state: see ``microkernel.flows.graph.Operator``."""

    cdef object operator
    cdef object process
    cdef int ports
    cdef int outputs

    cdef int open(self, object context) except -1:
        self.operator = self.call
        if not hasattr(self.call, "process") or isinstance(self.call, type):
            self.operator = self.call()
            if not hasattr(self.operator, "process"):
                raise GraphError(f"{self.name} made no operator", what=repr(self.operator)[:80],
                                 expected="an object with the method process",
                                 remedy="return one from the function that makes it")
        self.process = self.operator.process
        if hasattr(self.operator, "open"):
            self.operator.open(context)
        return 0

    cdef list run(self, list batch, int port):
        self.begin(batch)
        try:
            self.call_for(0)
            # A copy: the batch may be on its way to others, and the operator may keep it.
            if self.ports == 1:
                result = self.process(list(batch))
            else:
                result = self.process(list(batch), port)
            results = self.taken(result)
            if self.recorded:
                self.record.end(DONE, None)
        finally:
            self.record.give_thread()
        return results

    cdef list taken(self, result):
        if result is None:
            return None
        if not self.several:
            return list(result)
        results = [[] if items is None else list(items) for items in result]
        if len(results) != self.outputs:
            raise GraphError(f"{self.name} returned {len(results)} lists", what=self.name,
                             expected=f"one for each of its {self.outputs} outputs", remedy="")
        return results

    cdef list finish(self):
        operator = self.operator
        self.operator = None
        if operator is None or not hasattr(operator, "close"):
            return None
        self.begin([])
        try:
            self.call_for(0)
            return self.taken(operator.close())
        finally:
            self.record.give_thread()

    cdef int release(self) except -1:
        operator = self.operator
        self.operator = self.process = None
        if operator is not None and hasattr(operator, "close"):
            operator.close()
        return 0


cdef Function named(str name):
    """What ids and records know of an operator without code."""
    cdef Function function = Function.__new__(Function)
    function.name = name
    function.hash = name_hash(name)
    function.code = b""
    return function


cdef Step make_step(Scheduler kernel, Ref flow, object node, int instance):
    """The operator of a node of the graph, in its place among ``instances``."""
    cdef Step step
    cdef str kind = node.kind
    if kind == "map":
        step = Map.__new__(Map)
    elif kind == "filter":
        step = Filter.__new__(Filter)
    elif kind == "sink":
        step = Sink.__new__(Sink)
    elif kind in ("flat_map", "generator"):
        step = FlatMap.__new__(FlatMap)
        (<FlatMap>step).batch = node.batch or BATCH
    elif kind == "operator":
        step = Batches.__new__(Batches)
        (<Batches>step).ports = len(node.inputs)
        (<Batches>step).outputs = len(node.outputs)
        step.several = len(node.outputs) > 1
    else:
        step = Step.__new__(Step)
    step.kind = kind
    step.name = node.name
    step.node = node.index
    step.instance = instance
    step.instances = node.instances
    step.call = node.call
    step.flow = flow
    if node.call is None:
        step.function = named(f"{kind}:{node.name}")
    else:
        # An operator that is given ready-made is known by its class.
        step.function = kernel.functions.of(node.call if callable(node.call)
                                            else type(node.call))
    step.id = mix(flow.id, <uint64_t>node.index << 32 | <uint64_t>instance, step.function.hash)
    step.record = new_record(kernel, step.id, flow.scope)
    step.recorded = flow.scope is not None and flow.scope.recorded
    step.targets = [[] for _ in node.outputs]
    return step
