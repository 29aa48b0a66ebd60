"""The driver's side of a kernel's processes; see ``fabric.pyx``."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from microkernel.pending cimport Doorbell
from microkernel.processes.dispatcher cimport Dispatcher, Place
from microkernel.processes.station cimport srds_bell
from microkernel.task cimport Ref


cdef extern from "microkernel/processes/monitor.h" nogil:
    ctypedef struct srds_monitor:
        uint64_t ended
    int srds_monitor_start(srds_monitor *monitor, srds_bell *bell)
    int srds_monitor_watch(srds_monitor *monitor, unsigned int station, int pid)
    int srds_monitor_kill(srds_monitor *monitor, unsigned int station, int number)
    void srds_monitor_forget(srds_monitor *monitor, unsigned int station)
    void srds_monitor_stop(srds_monitor *monitor)
    int srds_watch(uint32_t *attention, uint32_t *leading, srds_bell *bell, uint64_t *ended,
                   unsigned int step_us, unsigned int steps)
    void srds_attend(uint32_t *attention)
    void srds_call(uint32_t *attention)


cdef class Fabric(Dispatcher):
    cdef object launcher
    cdef list to_start
    cdef list timers            # heap of (monotonic ns, number, slot): kill what still runs then
    cdef uint64_t timers_set
    cdef int failed_starts
    cdef object attendant
    cdef srds_monitor monitor
    cdef uint32_t attention
    cdef bint closing
    cdef bint watching
    cdef readonly size_t awaited    # tasks whose end somebody outside of the kernel's waits needs
    cdef readonly uint64_t crashes
    cdef object start_error

    cdef int open(self) except -1
    cdef int new_station(self, bint general) except -1
    cdef int start_dedicated(self) except -1
    cdef int stop_station(self, int station) except -1
    cdef int kill_station(self, int station) except -1
    cdef int bury_the_dead(self) except -1
    cdef int bury(self, int station) except -1
    cdef int again(self, Ref task, bint begun) except -1
    cdef int kill_later(self, uint32_t slot, int station) except -1
    cdef bint needed(self) noexcept
    cdef int attend_once(self, Doorbell bell) except -1
    cdef int start_failed(self, object error) except -1
    cdef int64_t kill_what_still_runs(self) except -1
