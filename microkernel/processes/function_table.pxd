"""The functions and classes that the processes of a kernel have sent each other, at C level; see
``function_table.pyx``."""
from microkernel.function cimport Function
from microkernel.processes.pickling cimport Numbering


cdef class FunctionTable(Numbering):
    cdef unsigned char **regions        # one a station
    cdef size_t region_bytes
    cdef readonly int station           # whose region this process writes
    cdef object memory                  # keeps the regions mapped, where they are Python's
    cdef dict plain                     # Function -> number: the fast way
    cdef dict codes                     # where a function without data was made -> number
    cdef dict known                     # weak reference to a callable -> number
    cdef dict sent                      # weak reference to a closure -> payload, blocks, number
    cdef dict functions                 # number -> Function
    cdef dict numbers                   # weak reference to a class or function -> number
    cdef dict values                    # number -> the class or function, weakly where it is ours
    cdef set in_progress
    cdef Function last
    cdef unsigned int last_number

    # The number of a task's function, which is pickled the first time; 0: send it with the task.
    cdef unsigned int number(self, Function function) except? 0xffffffff
    cdef unsigned int new_number(self, Function function) except? 0xffffffff
    cdef unsigned int append_function(self, Function function) except? 0xffffffff
    cdef unsigned int number_of_code(self, object call, Function function) except? 0xffffffff
    cdef unsigned int number_of_closure(self, object call) except? 0xffffffff
    cdef unsigned int template(self, object call) except? 0xffffffff
    cdef tuple sent_before(self, object call)
    cdef int remember(self, object call, bytes payload, list blocks) except -1
    # The function of a number that another station, or this one, has given.
    cdef Function function(self, unsigned int number)
    cdef unsigned int append(self, object entry) except? 0xffffffff
    cdef object entry(self, unsigned int number)


# ``regions``: one a station, 64 in all, each zeroed or as left by an earlier process.
cdef FunctionTable function_table(unsigned char **regions, size_t region_bytes, int station)
cdef tuple description(Function function)
cdef Function described(str name, bytes code, object is_async, object call)
cdef tuple captured(object call)
cdef Function filled(Function template, bytes code, tuple cells, tuple defaults, dict named)
