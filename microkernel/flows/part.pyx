"""What a stage knows of the flow that it is part of.

The stages of a flow that live in one process make a *part*: all of it in the driver, unless some of
its operators have processes of their own. Stages speak to their part by the methods declared here,
which do nothing; ``running.pyx`` carries them out.
"""
from microkernel.flows.channel cimport Channel
from microkernel.flows.step cimport Step


cdef class Cycle:
    """The stages that lead back to one another through feedbacks."""


cdef class Part:
    """The stages of one flow that live in one process."""

    def __cinit__(self):
        self.stages = []
        self.cycles = []
        self.inline_ready = []
        self.callers = []
        self.listeners = []
        self.links = {}

    cdef int ring(self) except -1:
        """Something changed that those who wait for the flow may have to act on."""
        return 0

    cdef int arrived(self, Channel channel) except -1:
        """Something was sent, or the sender has ended."""
        return 0

    cdef int room_made(self, Channel channel) except -1:
        """Items were taken: those who wait for room go on once it is worth while."""
        return 0

    cdef int stage_over(self) except -1:
        """All operators of a stage have been closed."""
        return 0

    cdef int settle(self, Cycle cycle) except -1:
        """End a cycle that nothing enters any more and in which nothing is left."""
        return 0

    cdef int operator_failed(self, Step step, object error) except -1:
        """End the flow by the error of an operator, or (None) of what is between them."""
        return 0

    cdef int fail(self, object error) except -1:
        """End the flow by an error; what is under way is dropped."""
        return 0

    cdef int drained(self) except -1:
        """Every item has gone through."""
        return 0

    cdef bint run_inline(self) except -1:
        """Run what waits for this thread; whether there was anything."""
        return False

    cdef list counts(self):
        """What each instance of each operator has done so far, with its number in the graph."""
        return []

    # What only some do

    cdef int wind_up(self) except -1:
        """The flow is over; called before anybody is told."""
        return 0

    cdef int tell(self, object error) except -1:
        """Tell how the flow ended: by an error, or None."""
        return 0

    cdef int heard(self, int sender, int what, object payload) except -1:
        """A message about the flow from another process."""
        return 0

    cdef int station_ended(self, int station) except -1:
        """Another process is gone."""
        return 0

    cdef int went_on(self) except -1:
        """A stage has taken in what another process sent."""
        return 0
