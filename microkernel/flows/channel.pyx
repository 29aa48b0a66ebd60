"""A bounded queue of items between two stages of a flow.

What is free in it is the sender's credit: who finds none keeps the rest of its batch and is called
again when there is room, so that a slow consumer is felt up to the source. A receiver takes what is
waiting, up to its batch: batches are small where it is quick and grow where it is not.

All methods run under the GIL from end to end and call no code of others, which is all the locking
there is.
"""
from cpython.list cimport PyList_GET_ITEM, PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdlib cimport free, malloc

cdef extern from "Python.h":
    void Py_DECREF "Py_DECREF"(PyObject *)

cdef enum:
    SMALLEST = 16

cdef size_t UNLIMITED = <size_t>1 << 62


cdef class Channel:
    """First in, first out; at most ``capacity`` items."""

    def __cinit__(self, size_t capacity, size_t batch):
        self.capacity = capacity
        self.batch = batch
        self.stalled = []

    def __dealloc__(self):
        cdef size_t i
        if self.slots != NULL:
            for i in range(self.length):
                Py_DECREF(self.slots[(self.head + i) & (self.size - 1)])
            free(self.slots)

    cdef size_t room(self) noexcept:
        """How many more items may be pushed."""
        if self.capacity == 0:
            return UNLIMITED
        return self.capacity - self.length

    cdef int grow(self, size_t wanted) except -1:
        cdef size_t size = max(self.size, SMALLEST), i
        cdef PyObject **slots
        while size < wanted:
            size *= 2
        slots = <PyObject **>malloc(size * sizeof(PyObject *))
        if slots == NULL:
            raise MemoryError()
        for i in range(self.length):
            slots[i] = self.slots[(self.head + i) & (self.size - 1)]
        free(self.slots)
        self.slots = slots
        self.size = size
        self.head = 0
        return 0

    cdef size_t push(self, list batch, size_t first) except? 0xffffffffffffffff:
        """Add the items of ``batch`` from ``first`` on as far as there is room; how many."""
        cdef size_t count = min(<size_t>len(batch) - first, self.room()), i, tail
        if self.length + count > self.size:
            self.grow(self.length + count)
        tail = self.head + self.length
        for i in range(count):
            item = <PyObject *>PyList_GET_ITEM(batch, first + i)
            Py_INCREF(<object>item)
            self.slots[(tail + i) & (self.size - 1)] = <PyObject *>item
        self.length += count
        self.passed += count
        if self.length > self.most:
            self.most = self.length
        return count

    cdef int push_one(self, object item) except -1:
        """Add an item, for which there must be room."""
        if self.length == self.size:
            self.grow(self.length + 1)
        Py_INCREF(item)
        self.slots[(self.head + self.length) & (self.size - 1)] = <PyObject *>item
        self.length += 1
        self.passed += 1
        if self.length > self.most:
            self.most = self.length
        return 0

    cdef list pop(self, size_t most):
        """The next items, at most ``most``."""
        cdef size_t count = min(self.length, most), i
        cdef list batch = PyList_New(count)
        for i in range(count):
            # The channel's reference becomes the list's.
            item = self.slots[(self.head + i) & (self.size - 1)]
            PyList_SET_ITEM(batch, i, <object>item)
        self.head = (self.head + count) & (self.size - 1)
        self.length -= count
        return batch

    cdef object pop_one(self):
        """The next item, of one or more."""
        cdef PyObject *item = self.slots[self.head]
        taken = <object>item
        Py_DECREF(item)
        self.head = (self.head + 1) & (self.size - 1)
        self.length -= 1
        return taken

    cdef bint ended(self) noexcept:
        """Whether it is empty and stays so."""
        return self.length == 0 and self.producers == 0

    cdef int end(self) except -1:
        """One of those who send is done."""
        self.producers -= 1
        return 0

    cdef int pay(self) except -1:
        """What was taken has gone through: whoever is to know is told."""
        return 0

    cdef list drop(self):
        """Empty it; the caller lets go of what was in it once its own books are balanced."""
        return self.pop(self.length)

    def __len__(self):
        return self.length

    def __repr__(self):
        return f"<Channel {self.length} of {self.capacity or 'any number of'} items>"
