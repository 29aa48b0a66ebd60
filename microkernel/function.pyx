"""What the kernel knows of a callable: its name, the digest of its code, how it is called.

The name is an ingredient of task ids, the digest a field of records: patched code keeps its ids and
is still told apart. Both are those of the function that the author wrote, also behind a decorator,
``functools.partial`` or a bound method.
"""
import functools
import inspect
from hashlib import blake2b
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType

from microkernel.ids cimport name_hash

from microkernel.errors import KernelError
from microkernel.values import encode

cdef enum:
    REMEMBERED = 4096


cdef class Function:
    """A callable with its name and digest."""

    def __init__(self, call):
        inner = innermost(call)
        described = inner if hasattr(inner, "__qualname__") else type(inner)
        module = getattr(described, "__module__", None) or "builtins"
        self.call = call
        self.name = f"{module}:{described.__qualname__}"
        self.hash = name_hash(self.name)
        self.code = code_digest(call)
        self.is_async = (inspect.iscoroutinefunction(call)
                         or inspect.iscoroutinefunction(getattr(type(call), "__call__", None)))
        # The head of an array of seven: a decision.opened payload begins so for this function.
        self.opening = b"\x97" + encode(self.name) + encode(self.code)


cdef Function like(Function template, object call):
    cdef Function function = Function.__new__(Function)
    function.call = call
    function.name = template.name
    function.hash = template.hash
    function.code = template.code
    function.is_async = template.is_async
    function.opening = template.opening
    return function


cdef class Functions:
    """The functions that a kernel has met.

    Functions that hold data (closures, defaults, bound methods) are not remembered, for they would
    keep that data alive; what is remembered of them is what follows from their code.
    """

    def __cinit__(self):
        self.known = {}
        self.templates = {}

    cdef Function of(self, object call):
        cdef Function function
        if self.last is not None and self.last.call is call:
            return self.last
        try:
            found = self.known.get(call)
        except TypeError:
            found = None        # a callable that has no hash
        if found is not None and (<Function>found).call is call:
            self.last = <Function>found
            return <Function>found
        written = call.__func__ if type(call) is MethodType else call
        plain = (type(written) is FunctionType and not written.__dict__
                 and written.__defaults__ is None and written.__kwdefaults__ is None)
        if plain:
            code = written.__code__
            function = self.templates.get(id(code))
            if (function is not None and function.described is code
                    and function.qualname == (written.__module__, written.__qualname__)):
                return like(function, call)
        if not callable(call):
            raise KernelError(f"{call!r} cannot be called", what=repr(call),
                              expected="a function", remedy="submit(function, *arguments)")
        function = Function(call)
        if holds_no_data(call):
            forget_when_full(self.known)
            self.known[call] = function
        elif plain:
            forget_when_full(self.templates)
            template = like(function, None)
            template.described = code
            template.qualname = (written.__module__, written.__qualname__)
            self.templates[id(code)] = template
        return function


cdef forget_when_full(dict remembered):
    if len(remembered) >= REMEMBERED:
        remembered.clear()


cdef bint holds_no_data(object call):
    """Whether remembering the callable keeps nothing else alive than itself."""
    if type(call) is BuiltinFunctionType:
        return call.__self__ is None or inspect.ismodule(call.__self__)
    if type(call) is FunctionType:
        return "<" not in call.__qualname__ or (
            call.__closure__ is None and call.__defaults__ is None
            and call.__kwdefaults__ is None)
    return isinstance(call, type)


cdef object innermost(object call):
    """The function that the author wrote, behind decorators, partial applications and methods."""
    for _ in range(100):
        if isinstance(call, functools.partial):
            call = call.func
        elif type(call) is MethodType:
            call = call.__func__
        elif hasattr(call, "__wrapped__") and not isinstance(call, type):
            call = call.__wrapped__
        else:
            break
    return call


def code_digest(function):
    """16 bytes that change when the code of ``function`` does (its own code, not what it calls).

    They also change with the Python version, because byte code does. A callable without byte code
    has the digest of its name. Default and partially applied arguments are part of what a function
    does, as far as they are numbers, text or bytes.
    """
    digest = blake2b(digest_size=16)
    while isinstance(function, functools.partial):
        add_values(digest, (*function.args, *function.keywords.values()))
        function = function.func
    function = innermost(function)
    if not hasattr(function, "__code__") and not hasattr(function, "__qualname__"):
        function = getattr(type(function), "__call__", function)
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        add_code(digest, code)
        add_values(digest, getattr(function, "__defaults__", None) or ())
        add_values(digest, (getattr(function, "__kwdefaults__", None) or {}).values())
    else:
        digest.update(repr(getattr(function, "__qualname__", type(function))).encode())
    return digest.digest()


cdef add_values(digest, values):
    # Others have no text that is the same in every process.
    for value in values:
        if isinstance(value, (int, float, str, bytes, type(None))):
            digest.update(repr(value).encode())


cdef add_code(digest, code):
    digest.update(code.co_code)
    digest.update(code.co_exceptiontable)
    digest.update(repr((code.co_argcount, code.co_kwonlyargcount, code.co_flags)).encode())
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            add_code(digest, constant)
        elif isinstance(constant, frozenset):
            digest.update(repr(sorted(map(repr, constant))).encode())
        else:
            digest.update(repr(constant).encode())
