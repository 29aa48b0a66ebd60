"""Pickling for another process: the C pickler where that is right, cloudpickle where it is not.

The C pickler writes classes and functions by their names. That is wrong for what another process
cannot import: what stands in ``__main__``, in a function, or in a module made by hand. So a hook of
the pickler looks at classes and functions, and at nothing else. What cannot be imported goes by its
number in the function table, into which cloudpickle has put it once; what has no number (a closure,
or the table is full) makes the whole value go through cloudpickle, which is about 30 times slower.

Protocol 5 (PEP 574): buffers do not go into the stream, so an array is copied once or not at all.
"""
import sys
from _pickle import Pickler
from _pickle import loads as _loads
from types import FunctionType, ModuleType

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport Py_TPFLAGS_HEAPTYPE, PyObject, PyTypeObject
from cpython.type cimport PyType_IsSubtype

from microkernel.encoded cimport Encoded
from microkernel.function cimport Function
from microkernel.ids cimport id_from_bytes, id_to_bytes, name_hash
from microkernel.task cimport DONE, FAILED, Ref

from microkernel.errors import KernelError, NotOverridden, NotRebuilt, NotSendable

cdef extern from *:
    """
    /* What the unpickling that goes on in this thread takes numbers for. */
    static __thread PyObject *srds_numbering = NULL;
    """
    PyObject *srds_numbering

cdef enum:
    KEPT = 65536        # a pickler that has written more keeps too large a memory of it

cdef dict _reducers = {}            # type -> how others wish it to be pickled
cdef dict _modules = {}             # name -> (module, whether another process can import it)
cdef object _Cloud = None
cdef object _DEFER = object()


def register_reducer(type kind, reduce):
    """Pickle instances of exactly ``kind`` by ``reduce(value)``, which returns what ``__reduce__``
    does, when they are sent to another process."""
    _reducers[kind] = reduce


class UnfinishedReferences(Exception):
    """Values to be sent hold references that are not done: ``references`` lists them."""

    def __init__(self, references):
        super().__init__(f"{len(references)} references are not done")
        self.references = references


class TooLarge(Exception):
    """A buffer is longer than ``limit``."""


class _ByValue(Exception):
    """The value holds something that only cloudpickle can write."""


class _Plain(Pickler):
    """The C pickler, with room for the hook."""

    __slots__ = ("reducer_override",)


cdef class Numbering:
    """Classes and functions that the processes of a kernel know by number."""

    cdef unsigned int number_of(self, object value) except? 0xffffffff:
        return 0

    cdef object value_of(self, unsigned int number):
        raise NotOverridden


cdef class Pickling:
    """One value's way into bytes: ``dump``, then ``pieces`` and ``buffers``, then ``clear``."""

    def __cinit__(self):
        self.pieces = []
        self.buffers = []
        self.unfinished = []

    cdef size_t dump(self, object value) except? 0xffffffffffffffff:
        """Pickle ``value``; returns the length of the stream. Raises NotSendable."""
        cdef size_t length = 0
        if not self.dump_plainly(value):
            self.dump_by_value(value)
        for piece in self.pieces:
            length += len(piece)
        if length > KEPT:
            self.plain = None
        return length

    cdef bint dump_plainly(self, object value) except -1:
        """False if it takes more than the C pickler."""
        if self.plain is None:
            self.plain = _Plain(self, 5, buffer_callback=self.keep_buffer)
            self.plain.reducer_override = self.reduce
        try:
            self.plain.dump(value)
        except (NotSendable, TooLarge):
            raise
        except Exception:
            return False
        return True

    cdef int clear(self) except -1:
        self.pieces.clear()
        self.buffers.clear()
        if self.unfinished:
            self.unfinished = []
        self.root = None
        if self.plain is not None:
            self.plain.clear_memo()
        return 0

    def write(self, piece):
        # The pickler hands large bytes over as they are: copied, as they may change later.
        self.pieces.append(piece if type(piece) is bytes else bytes(piece))

    def keep_buffer(self, buffer):
        if self.in_band:
            if self.limit and memoryview(buffer).nbytes > self.limit:
                raise TooLarge
            return True
        self.buffers.append(buffer)
        return False

    def dump_by_value(self, value):
        self.pieces.clear()
        self.buffers.clear()
        self.unfinished.clear()
        self.plain = None
        self.by_value = True
        self.registered = []
        try:
            cloud_pickler()(self).dump(value)
        except (NotSendable, TooLarge):
            raise
        except Exception as error:
            self.pieces.clear()
            if self.probing:
                raise
            from microkernel.processes.not_sendable import explain

            raise explain(value, error) from error
        finally:
            self.by_value = False
            for module in self.registered:
                unregister(module)
            self.registered = None

    def reduce(self, value):
        """The pickler's hook: how ``value`` is pickled, if not in its own way."""
        cdef type kind = type(value)
        cdef PyObject *found
        if kind is FunctionType or PyType_IsSubtype(kind, type):
            return self.reduce_global(value)
        if kind is Ref:
            return reduce_reference(self, <Ref>value)
        found = PyDict_GetItem(_reducers, kind)
        if found != NULL:
            return (<object>found)(value)
        return _DEFER if self.by_value else NotImplemented

    cdef object reduce_global(self, object value):
        cdef unsigned int number
        if type(value) is type and not (<PyTypeObject *>value).tp_flags & Py_TPFLAGS_HEAPTYPE:
            return _DEFER if self.by_value else NotImplemented
        if importable(value):
            return NotImplemented
        # Functions that cloudpickle writes together share their globals on the other side.
        if (value is not self.root and self.numbering is not None
                and (type(value) is not FunctionType or (lasts(value) and not self.by_value))):
            number = self.numbering.number_of(value)
            if number:
                return numbered, (number,)
        if not self.by_value:
            raise _ByValue
        self.register_module(value)
        return _DEFER

    cdef int register_module(self, value) except -1:
        """cloudpickle takes every module that it finds in ``sys.modules`` for importable."""
        import cloudpickle

        module = sys.modules.get(getattr(value, "__module__", None))
        if (isinstance(module, ModuleType) and module.__name__ != "__main__"
                and module.__name__ not in cloudpickle.list_registry_pickle_by_value()):
            cloudpickle.register_pickle_by_value(module)
            self.registered.append(module)
        return 0


cdef unregister(module):
    import cloudpickle

    try:
        cloudpickle.unregister_pickle_by_value(module)
    except ValueError:
        pass        # another thread was faster


cdef object cloud_pickler():
    global _Cloud
    if _Cloud is None:
        import cloudpickle

        class Cloud(cloudpickle.Pickler):
            """cloudpickle's pickler with our hook in front of its own."""

            def __init__(self, Pickling pickling):
                super().__init__(pickling, 5, pickling.keep_buffer)
                self.pickling = pickling

            def reducer_override(self, value):
                reduced = self.pickling.reduce(value)
                return super().reducer_override(value) if reduced is _DEFER else reduced

        _Cloud = Cloud
    return _Cloud


cdef bint lasts(object function):
    """Whether a number is worth it: the function is made once."""
    return "<" not in function.__qualname__ and function.__closure__ is None


cdef bint importable(object value) except -1:
    """Whether another process finds the class or function under its module and name."""
    name = getattr(value, "__module__", None)
    path = getattr(value, "__qualname__", None)
    if type(name) is not str or type(path) is not str or name == "__main__":
        return False
    module = sys.modules.get(name)
    if module is None:
        return False
    found = module
    try:
        if "." in path:
            for step in path.split("."):
                found = getattr(found, step)
        else:
            found = getattr(found, path)
    except AttributeError:
        return False
    return found is value and module_importable(name, module)


cdef bint module_importable(str name, object module) except -1:
    known = _modules.get(name)
    if known is not None and known[0] is module:
        return known[1]
    try:
        result = is_found(name, module)
    except Exception:
        result = False      # a finder's own trouble is a finding: it will not do better elsewhere
    _modules[name] = (module, result)
    return result


def is_found(str name, module):
    """Whether an import of ``name`` in a fresh process leads to the same file."""
    parent, _, last = name.rpartition(".")
    path = None
    if name == "__mp_main__" or name == "__main__":
        return False
    if parent:
        package = sys.modules.get(parent)
        if package is None or not module_importable(parent, package):
            return False
        path = getattr(package, "__path__", None)
    # importlib.util.find_spec believes sys.modules, of which a fresh process knows nothing.
    for finder in sys.meta_path:
        if path is None and parent:
            break
        spec = finder.find_spec(name, path, None) if hasattr(finder, "find_spec") else None
        if spec is not None:
            file = getattr(module, "__file__", None)
            return not (spec.has_location and file) or same_file(spec.origin, file)
    # Some packages make submodules when they are imported.
    return bool(parent) and getattr(package, last, None) is module


cdef bint same_file(str one, str other):
    import os.path

    return one == other or os.path.realpath(one) == os.path.realpath(other)


cdef object load(Numbering numbering, object stream, list buffers):
    """The value of a stream. Raises NotRebuilt, with what was raised as its cause."""
    global srds_numbering
    cdef PyObject *outer = srds_numbering
    srds_numbering = <PyObject *>numbering
    try:
        return _loads(stream, buffers=buffers) if buffers else _loads(stream)
    except NotRebuilt:
        raise
    except Exception as error:
        raise NotRebuilt(
            f"a value from another process could not be rebuilt: {type(error).__name__}: {error}",
            what=type(error).__name__, expected="a value whose parts can be imported here",
            remedy="see the error that caused this one; all processes must find the same modules"
        ) from error
    finally:
        srds_numbering = outer


cdef bytes dump_in_band(Numbering numbering, object value, object root, size_t limit):
    """The stream of ``value``, arrays and all; ``root`` is the part that gets no number.

    Raises TooLarge where a buffer is longer than ``limit``, if that is not 0.
    """
    cdef Pickling pickling = Pickling()
    pickling.numbering = numbering
    pickling.in_band = True
    pickling.root = root
    pickling.limit = limit
    pickling.dump(value)
    if pickling.unfinished:
        raise NotSendable(
            "a reference to an unfinished task is part of a function or an error",
            what=repr(pickling.unfinished[0]), expected="values, or references that are done",
            remedy="give the reference as an argument")
    return b"".join(pickling.pieces)


def sendable(value):
    """Whether ``value`` can be pickled for another process."""
    cdef Pickling pickling = Pickling()
    pickling.probing = True
    try:
        pickling.dump(value)
    except Exception:
        return False
    return True


cdef object dismantled(Numbering numbering, object error):
    """An exception in plain parts that another process can read, whatever it is."""
    from microkernel.processes.remote_error import dismantle

    return dismantle(error, lambda value: dump_in_band(numbering, value, None, 0))


cdef object assembled(Numbering numbering, object parts):
    """The exception of such parts."""
    from microkernel.processes.remote_error import assemble

    return assemble(parts, lambda stream: load(numbering, stream, None))


def numbered(unsigned int number):
    """The class or function of a number; in pickles only."""
    if srds_numbering == NULL:
        raise NotRebuilt("a class or function is known by its number, and there is no kernel",
                         what=str(number), expected="to be read by a process of the kernel",
                         remedy="do not store what is sent between processes")
    return (<Numbering>srds_numbering).value_of(number)


cdef object reduce_reference(Pickling self, Ref ref):
    if ref.state < DONE:
        self.unfinished.append(ref)
        return tuple, ()
    what = (id_to_bytes(ref.id), id_to_bytes(ref.parent), ref.function.name, ref.function.code)
    if ref.state == FAILED:
        return failed_reference, (*what, dismantled(self.numbering, ref.result[0]))
    value = ref.result
    return done_reference, (*what, (<Encoded>value).decode() if type(value) is Encoded else value)


def done_reference(id, parent, name, code, value):
    """A reference to a task that is done; in pickles only."""
    cdef Ref ref = new_reference(id, parent, name, code)
    ref.result = value
    ref.state = DONE
    return ref


def failed_reference(id, parent, name, code, parts):
    """A reference to a task that has failed; in pickles only."""
    cdef Ref ref = new_reference(id, parent, name, code)
    error = assembled(<Numbering>srds_numbering if srds_numbering != NULL else None, parts)
    ref.result = (error, error.__traceback__)
    ref.state = FAILED
    return ref


cdef Ref new_reference(bytes id, bytes parent, str name, bytes code):
    import microkernel

    cdef Ref ref = Ref.__new__(Ref)
    cdef Function function = Function.__new__(Function)
    function.name = name
    function.code = code
    function.hash = name_hash(name)
    ref.function = function
    ref.id = id_from_bytes(id)
    ref.parent = id_from_bytes(parent)
    try:
        ref.kernel = microkernel.current_kernel()
    except KernelError:
        pass        # it is done, and can be read without one
    return ref
