"""What it costs to keep the record of a task: its id, its lineage and its trace entry.

There is no kernel without them, so they cannot be measured as a difference. Here the calls by which
the scheduler keeps them are made for one task after the other, and nothing else: the id is derived,
its parent noted, submission counted, begin and end stamped, the entry appended. Full blocks are
written to the trace's file meanwhile, as ever.
"""
from microkernel.function cimport Function, Functions
from microkernel.ids cimport TaskId, id_from_bytes, mix
from microkernel.pending cimport monotonic_ns
from microkernel.task cimport DONE, INLINE, RUNNING, Ref, thread_ident
from microkernel.tracing cimport trace
from microkernel.tracing.trace cimport TraceRing


def record_ns(bytes run_id not None, size_t tasks):
    """The nanoseconds that each of ``tasks`` (1 or more) records of a new kernel's trace take."""
    cdef TraceRing ring = TraceRing(run_id, "inline")
    cdef Function function = Functions().of(record_ns)
    cdef TaskId run = id_from_bytes(run_id)
    cdef Ref task = Ref.__new__(Ref)
    cdef size_t i
    task.function = function
    task.thread = thread_ident()
    task.place = INLINE
    task.state = RUNNING
    begin = monotonic_ns()
    for i in range(tasks):
        task.parent = run
        task.id = mix(run, i, function.hash)
        trace.submitted(ring, task)
        trace.begin(ring, task)
        trace.end(ring, task)
        trace.append(ring, task, DONE, None)
    taken = monotonic_ns() - begin
    ring.close()
    return taken / tasks
