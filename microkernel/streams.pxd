"""The items of a generator that runs as a task; see ``streams.pyx``."""
from microkernel.pending cimport Doorbell
from microkernel.task cimport Ref


cdef class Channel:
    cdef Ref task
    cdef object items           # a deque: made and not taken
    cdef readonly size_t window  # items that are made ahead; 0: each when it is asked for
    cdef size_t made
    cdef size_t taken           # since the producer was last told, where it is another process
    cdef object source          # the iterator, once it is made
    cdef bint running           # a thread is in the iterator
    cdef bint closed            # nobody takes items any more
    cdef bint told              # the consumer was told how it ended
    cdef Doorbell bell          # of the thread that waits for an item
    cdef object notify          # called once when there is something to take, or None
    cdef long long limit        # in a replay: items that the recorded run made; -1: all
    cdef str recorded_end       # and why it made no more

    cdef bint has_room(self) noexcept
    cdef int item_arrived(self, object item) except -1
    cdef int wake(self) except -1


cdef Channel channel_of(Ref task)
cdef object iterate(Ref task, object made)
cdef object settle_later(object loop, object future)
