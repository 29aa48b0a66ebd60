"""What came with a message, at C level; see ``payload_reader.pyx``."""
from libc.stdint cimport uint64_t

from microkernel.function cimport Function
from microkernel.objects.store cimport Block, ObjectStore
from microkernel.processes.function_table cimport FunctionTable
from microkernel.values cimport Cursor


cdef class PayloadReader:
    cdef readonly ObjectStore objects   # None: everything travels in the message
    cdef readonly FunctionTable functions
    cdef bytes last_read        # the payload of ``last_function``
    cdef Function last_function

    # (arguments, named arguments or None). ``n`` 0: no arguments.
    cdef tuple read_arguments(self, const unsigned char *data, size_t n)
    cdef object read_result(self, const unsigned char *data, size_t n)
    # The result; an Encoded where it is an array in the object arena or, if ``pickled``, where
    # reading it would run code of others, whose errors then come late.
    cdef object read_result_lazily(self, const unsigned char *data, size_t n, bint pickled)
    # An exception, to be raised with its ``__traceback__``.
    cdef object read_error(self, const unsigned char *data, size_t n)
    # A function without a number, in front of its arguments; ``taken``: bytes read.
    cdef Function read_function(self, const unsigned char *data, size_t n, size_t *taken)

    cdef Function read_described(self, Cursor *c, const unsigned char *data)
    cdef tuple read_left(self, Cursor *c, tuple args, dict kwargs, list left)
    cdef list blocks_of(self, const unsigned char *data, size_t n)
    cdef list block_at_end(self, const unsigned char *data, size_t n)
    cdef object read_value(self, Cursor *c, int depth)
    cdef object read_members(self, Cursor *c, int tag, int depth)
    cdef object read_array(self, Cursor *c)
    cdef object read_pickled(self, Cursor *c)
    cdef object read_stream(self, Cursor *c)
    cdef object read_buffer(self, Cursor *c)
    cdef object read_object(self, Cursor *c, int tag)
    cdef Block read_block(self, Cursor *c, uint64_t *where)
