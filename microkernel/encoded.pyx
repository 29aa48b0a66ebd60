"""A result that stays as it was sent until it is used, and can be sent on without being rebuilt.

That saves a chain of tasks the unpickling and pickling between them. Where the value lies in the
object arena it is forgotten again when nobody has it any more: then no process looks at the object,
and it can be spilled to disk while room is short. So a reference to an array costs no memory that
others need.
"""
from weakref import ref as weak_reference

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE


@cython.final
cdef class Encoded:
    """A result as it was sent."""

    cdef object decode(self):
        if self.decoded:
            if not self.held:
                return self.value
            value = self.value()
            if value is not None:
                return value
        value = self.rebuild(self.reader, <const unsigned char *>PyBytes_AS_STRING(self.data),
                             PyBytes_GET_SIZE(self.data))
        if not self.held:
            if self.decoded:        # by another thread, whose value is out already
                return self.value
            self.value = value
        else:
            try:
                self.value = weak_reference(value)
            except TypeError:
                return value        # a list or a dictionary: made anew each time
        self.decoded = True
        return value

    @property
    def is_decoded(self):
        """Whether the value has been rebuilt."""
        return self.decoded

    def get(self):
        """The value; raises ``NotRebuilt``."""
        return self.decode()


cdef Encoded encoded(object reader, Decode rebuild, bytes data, list held):
    cdef Encoded result = Encoded.__new__(Encoded)
    result.reader = reader
    result.rebuild = rebuild
    result.data = data
    result.held = held
    return result
