"""Execution templates: a subgraph of tasks that is recorded once and then submitted as one.

After O. Mashayekhi et al., "Execution Templates: Caching Control Plane Decisions for Strong Scaling
of Data Analytics" (USENIX ATC'17): control flow that repeats is decided once. An instance is a
single task, with one ``Ref`` and, for a worker process, one message. Inside it the calls run one
after another as a compiled list; each has the id, the random streams and the entry in the trace
that it would have if a function had submitted them in the order in which they were recorded.
"""
from collections import deque
from hashlib import blake2b

from cpython.ref cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.stdlib cimport calloc, free, malloc

from microkernel.engine cimport Engine
from microkernel.flows.record cimport Record, new_record
from microkernel.flows.step cimport named
from microkernel.function cimport Function
from microkernel.ids cimport mix
from microkernel.scheduler cimport Scheduler, cancelled_error
from microkernel.task cimport DONE, FAILED, Ref, current

from microkernel.errors import GraphError, KernelError
from microkernel.function import code_digest

cdef extern from "Python.h":
    PyObject *PyObject_Vectorcall(PyObject *call, PyObject *const *arguments, size_t count,
                                  PyObject *names) except NULL
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    void Py_INCREF(PyObject *)
    void Py_DECREF(PyObject *)

cdef enum:
    WINDOW = 1024               # instances that map submits ahead of what it has returned

cdef object _REQUIRED = object()


cdef class Program:
    """The calls of a template, ready to run: a function of its parameters, by position.

    ``calls`` are (function, arguments, names): each argument is the number of a value (parameters,
    then the results of the calls), or ``-1 - n`` for constant ``n``; the last ones have names.
    """

    def __init__(self, str name not None, tuple calls not None, tuple constants not None,
                 int parameters, result, bint parallel):
        self.name = name
        self.calls = calls
        self.constants = constants
        self.parameters = parameters
        self.result = result
        self.parallel = parallel
        self.values = parameters + len(calls)
        self.lay_out()

    def __dealloc__(self):
        free(self.layout)

    def __reduce__(self):
        return Program, (self.name, self.calls, self.constants, self.parameters, self.result,
                         self.parallel)

    def __call__(self, *arguments):
        return self.carry_out(arguments)

    def __repr__(self):
        return f"<Program {self.name} of {len(self.calls)} calls>"

    @property
    def __qualname__(self):
        return self.name

    cdef int lay_out(self) except -1:
        """Note the calls as numbers, and after which of them a value is needed no more."""
        cdef list flat = []
        cdef dict last = {}
        kept = self.result if isinstance(self.result, tuple) else (self.result,)
        for i, (_, arguments, _) in enumerate(self.calls):
            last[self.parameters + i] = i
            for value in arguments:
                if value >= 0:
                    last[value] = i
        for i, (_, arguments, _) in enumerate(self.calls):
            dropped = [value for value, at in last.items() if at == i and value not in kept]
            flat += [len(arguments), *arguments, len(dropped), *dropped]
            self.widest = max(self.widest, len(arguments))
        self.layout = <int *>malloc(max(1, len(flat)) * sizeof(int))
        if self.layout == NULL:
            raise MemoryError()
        for i, number in enumerate(flat):
            self.layout[i] = number
        return 0

    cdef int know(self, Scheduler kernel) except -1:
        self.functions = [kernel.functions.of(function) for function, _, _ in self.calls]
        self.known_by = kernel
        return 0

    cdef object carry_out(self, tuple arguments):
        """Run the calls in the task that this thread is in."""
        cdef Ref here = current()
        cdef PyObject **values
        cdef int i
        if len(arguments) != self.parameters:
            raise KernelError(f"{len(arguments)} arguments for template {self.name}",
                              what=self.name, expected=f"{self.parameters}",
                              remedy="give one for each parameter")
        if here is None or here.kernel is None:
            raise KernelError(f"the program of template {self.name} is called outside of any task",
                              what=self.name, expected="a task, from which its ids derive",
                              remedy="submit the template")
        if self.parallel:
            return self.one_by_one(here, arguments)
        if self.known_by is not here.kernel:
            self.know(<Scheduler>here.kernel)
        values = <PyObject **>calloc(self.values + self.widest + 1, sizeof(PyObject *))
        if values == NULL:
            raise MemoryError()
        try:
            for i in range(self.parameters):
                values[i] = <PyObject *>PyTuple_GET_ITEM(arguments, i)
                Py_INCREF(values[i])
            self.call_all(here, values)
            return self.result_of(values)
        finally:
            for i in range(self.values):
                if values[i] != NULL:
                    Py_DECREF(values[i])
            free(values)

    cdef int call_all(self, Ref here, PyObject **values) except -1:
        """The calls, one after another; ``values`` has room for all results and one call."""
        cdef Scheduler kernel = <Scheduler>here.kernel
        cdef Record record = new_record(kernel, here.id, here.scope)
        cdef PyObject **room = values + self.values + 1     # the callee may use the place before
        cdef PyObject *names
        cdef list functions = self.functions
        cdef Function function = None
        cdef int *layout = self.layout
        cdef int i, j, value, count
        record.take_thread()
        try:
            for i in range(len(self.calls)):
                if here.interrupted:
                    raise cancelled_error(here)
                function = <Function>functions[i]
                call = <tuple>PyTuple_GET_ITEM(self.calls, i)
                count = layout[0]
                for j in range(count):
                    value = layout[1 + j]
                    room[j] = (values[value] if value >= 0 else
                               <PyObject *>PyTuple_GET_ITEM(self.constants, -1 - value))
                layout += 1 + count
                names = <PyObject *>PyTuple_GET_ITEM(<tuple>call, 2)
                if names == <PyObject *>None:
                    names = NULL
                else:
                    count -= <int>len(<tuple>names)
                record.stand_for(mix(here.id, here.next_child(), function.hash), function)
                record.begin()
                values[self.parameters + i] = PyObject_Vectorcall(
                    <PyObject *>function.call, room,
                    <size_t>count | PY_VECTORCALL_ARGUMENTS_OFFSET, names)
                record.end(DONE, <object>values[self.parameters + i])
                for j in range(layout[0]):
                    value = layout[1 + j]
                    drop = values[value]
                    values[value] = NULL
                    Py_DECREF(drop)
                layout += 1 + layout[0]
        except BaseException as error:
            if function is not None and not here.interrupted:
                try:
                    error.add_note(f"in call {i} of template {self.name}: {function.name}")
                except Exception:
                    pass        # an exception that cannot be annotated is raised as it is
                record.end(FAILED, (error, error.__traceback__))
            raise
        finally:
            record.give_thread()
        return 0

    cdef object one_by_one(self, Ref here, tuple arguments):
        """Submit the calls as tasks of their own, which may run at the same time."""
        cdef list values = list(arguments)
        for function, which, names in self.calls:
            given = [values[value] if value >= 0 else self.constants[-1 - value]
                     for value in which]
            count = len(given) - (0 if names is None else len(names))
            values.append(here.kernel.submit(function, *given[:count],
                                             **dict(zip(names or (), given[count:]))))
        if isinstance(self.result, tuple):
            return tuple([finished(here.kernel, values[value]) for value in self.result])
        return finished(here.kernel, values[self.result])

    cdef object result_of(self, PyObject **values):
        if isinstance(self.result, tuple):
            return tuple([<object>values[value] for value in self.result])
        return <object>values[<int>self.result]


cdef object finished(kernel, value):
    return kernel.get(value) if type(value) is Ref else value


class Parameter:
    """A place in a template that each instance fills."""

    def __init__(self, template, name, number):
        self.template = template
        self.name = name
        self.number = number

    def __repr__(self):
        return f"<Parameter {self.name} of {self.template.name}>"


class Call:
    """A call in a template; it stands for its result."""

    def __init__(self, template, name, number):
        self.template = template
        self.name = name
        self.number = number

    def __repr__(self):
        return f"<Call {self.number} of {self.template.name}: {self.name}>"


cdef class Template:
    """Records calls, and submits them as one task; made by ``Kernel.template``.

    >>> from microkernel import Kernel
    >>> with Kernel() as kernel:
    ...     with kernel.template() as double_plus:
    ...         x = double_plus.parameter("x")
    ...         doubled = double_plus.submit(lambda n: 2 * n, x)
    ...         double_plus.result(double_plus.submit(lambda n, m: n + m, doubled, 1))
    ...     kernel.get(double_plus(x=20))
    41
    """

    cdef readonly str name
    cdef readonly Program program   # None until the recording has ended
    cdef Engine kernel
    cdef Function function
    cdef object options
    cdef bint parallel
    cdef dict parameters            # name: default, or _REQUIRED
    cdef list calls
    cdef list constants
    cdef object results

    def __init__(self, Engine kernel not None, str name not None, options, bint parallel):
        self.kernel = kernel
        self.name = name
        self.options = options
        self.parallel = parallel
        self.parameters = {}
        self.calls = []
        self.constants = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self.finish()

    def __repr__(self):
        return f"<Template {self.name} of {len(self.calls)} calls>"

    # Recording

    def parameter(self, str name not None, default=_REQUIRED):
        """A value that each instance is given, by this name or by position."""
        self.check_recording()
        if self.calls:
            raise GraphError(f"parameter {name!r} after the first call", what=name,
                             expected="all parameters in front of the calls",
                             remedy="ask for it earlier")
        if name in self.parameters:
            raise GraphError(f"two parameters are named {name!r}", what=name,
                             expected="one name for each", remedy="keep the first one")
        self.parameters[name] = default
        return Parameter(self, name, len(self.parameters) - 1)

    def submit(self, function, /, *args, **kwargs):
        """Record ``function(*args, **kwargs)``; parameters and recorded calls among the arguments
        stand for their values. Once the recording has ended, submits an instance: see ``__call__``.
        """
        cdef Function known
        if self.program is not None:
            raise GraphError(f"the recording of template {self.name} has ended", what=self.name,
                             expected="calls within the with block",
                             remedy="call the template for an instance of it")
        known = self.kernel.functions.of(function)
        if known.is_async:
            raise GraphError(f"{known.name} is a coroutine function", what=known.name,
                             expected="a function", remedy="await it outside of the template")
        numbers = tuple([self.number(value) for value in (*args, *kwargs.values())])
        self.calls.append((function, numbers, tuple(kwargs) or None))
        return Call(self, known.name, len(self.parameters) + len(self.calls) - 1)

    cdef int number(self, value) except? -1:
        if isinstance(value, (Parameter, Call)):
            if value.template is not self:
                raise GraphError(f"{value!r} belongs to another template", what=repr(value),
                                 expected=f"a value of template {self.name}", remedy="")
            return value.number
        self.constants.append(value)
        return -len(self.constants)

    def result(self, *values):
        """What an instance returns: this value, or a tuple of them. Default: the last call's."""
        self.check_recording()
        if not values:
            raise GraphError("no result", what="result", expected="one value or more", remedy="")
        numbers = tuple([self.number(value) for value in values])
        if min(numbers) < 0:
            raise GraphError("a result that is a constant", what="result",
                             expected="a parameter or a recorded call", remedy="")
        self.results = numbers if len(numbers) > 1 else numbers[0]

    cdef int check_recording(self) except -1:
        if self.program is not None:
            raise GraphError(f"the recording of template {self.name} has ended", what=self.name,
                             expected="calls within the with block",
                             remedy="record another template")
        return 0

    def finish(self):
        """End the recording; the end of the ``with`` block does it."""
        self.check_recording()
        if not self.calls:
            raise GraphError(f"template {self.name} has no calls", what=self.name,
                             expected="one call or more", remedy="template.submit(function, ...)")
        if self.results is None:
            self.results = len(self.parameters) + len(self.calls) - 1
        self.program = Program(self.name, tuple(self.calls), tuple(self.constants),
                               len(self.parameters), self.results, self.parallel)
        self.function = named(f"template:{self.name}")
        self.function.call = self.program
        self.function.code = digest(self.program)

    # Submitting

    def __call__(self, *args, **kwargs):
        """Submit an instance: the ``Ref`` of its result. Parameters are given by position or name;
        those that are references of tasks are waited for."""
        return self.instance(args, kwargs)

    cdef Ref instance(self, tuple args, dict kwargs):
        if self.program is None:
            raise GraphError(f"template {self.name} is still being recorded", what=self.name,
                             expected="an instance after the with block", remedy="")
        self.kernel.check_open()
        if kwargs or len(args) != self.program.parameters:
            args = self.filled(args, kwargs)
        return self.kernel.submit_function(self.function, args, None, self.options)

    cdef tuple filled(self, tuple args, dict kwargs):
        cdef list values = list(args)
        names = list(self.parameters)
        for name in names[len(args):]:
            value = kwargs.pop(name, self.parameters[name])
            if value is _REQUIRED:
                raise KernelError(f"template {self.name} lacks its parameter {name}", what=name,
                                  expected="a value", remedy=f"{name}=...")
            values.append(value)
        if kwargs or len(values) > len(names):
            raise KernelError(f"template {self.name} has no such parameter",
                              what=", ".join(kwargs) or str(len(values)),
                              expected=", ".join(names), remedy="")
        return tuple(values)

    def map(self, *iterables):
        """Yield the result of an instance for each element, in order, as ``Kernel.map`` does."""
        return self._mapped(zip(*iterables))

    def _mapped(self, rows):
        window = deque()
        for row in rows:
            window.append(self.instance(row, {}))
            if len(window) >= WINDOW:
                yield self.kernel.get(window.popleft())
        while window:
            yield self.kernel.get(window.popleft())


cdef bytes digest(Program program):
    """A digest of the code of all calls."""
    joined = blake2b(digest_size=16)
    for function, numbers, names in program.calls:
        joined.update(code_digest(function))
        joined.update(repr((numbers, names)).encode())
    return joined.digest()
