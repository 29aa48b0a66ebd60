"""How the stages of a flow in one process are woken, and how they end: well, or all by one error.

Everything here is called under the GIL. What may call code of others (the destructor of an item, a
hook, the error of an operator) comes when the books are balanced.
"""
from microkernel.flows.channel cimport Channel
from microkernel.flows.part cimport BROKEN, DRAINED, FLOWING, Cycle, Part
from microkernel.flows.stage cimport Stage
from microkernel.flows.step cimport Step
from microkernel.pending cimport Doorbell
from microkernel.task cimport ENDING, FAILED, READY

from microkernel.flows.counters import OperatorCounters


cdef class RunningPart(Part):
    """A part whose stages run."""

    cdef int ring(self) except -1:
        cdef list listeners
        for bell in self.callers:
            (<Doorbell>bell).ring()
        if self.listeners:
            listeners = self.listeners
            self.listeners = []
            for listener in listeners:
                listener()
        return 0

    cdef int arrived(self, Channel channel) except -1:
        if channel.remote and channel.consumer is None:
            return 0
        if channel.consumer is None:
            return self.ring()
        return (<Stage>channel.consumer).wake()

    cdef int room_made(self, Channel channel) except -1:
        cdef list stalled
        if channel.capacity == 0:
            return 0
        if channel.length and channel.room() < min(channel.batch, (channel.capacity + 1) // 2):
            return 0
        if channel.stalled:
            stalled = channel.stalled
            channel.stalled = []
            for stage in stalled:
                (<Stage>stage).resume()
        if self.callers or self.listeners:
            self.ring()
        return 0

    cdef int stage_over(self) except -1:
        self.unfinished -= 1
        if self.unfinished == 0:
            self.drained()
        return 0

    cdef int drained(self) except -1:
        self.state = DRAINED
        self.ended.state = ENDING
        self.wind_up()
        self.tell(None)
        return self.ring()

    cdef int settle(self, Cycle cycle) except -1:
        cdef Stage stage
        cdef Channel channel
        if cycle.over:
            return 0
        for stage in cycle.stages:
            if stage.running or stage.activation is not None or stage.work:
                return 0
            for channel in stage.inputs:
                if not (channel.told or channel in cycle.inside):
                    return 0
        for channel in cycle.inside:
            if channel.length:
                return 0
        cycle.over = True
        for channel in cycle.feedbacks:
            while channel.producers:
                channel.end()
            self.arrived(channel)
        return 0

    cdef int operator_failed(self, Step step, object error) except -1:
        cdef str where = ""
        if self.state != FLOWING:
            return 0            # it was told to stop
        if step is not None:
            where = f"operator {step.name}"
            if step.instances > 1:
                where += f"[{step.instance}]"
            where += f" of flow {self.name}, item {step.first + step.at}"
            if step.recorded:
                step.record.end(FAILED, (error, error.__traceback__))
        try:
            error.add_note(f"in {where or self.name}")
        except Exception:
            pass                # an exception that cannot be annotated is raised as it is
        return self.fail(error)

    cdef int fail(self, object error) except -1:
        cdef Stage stage
        cdef list dropped = []
        if self.state != FLOWING:
            return 0
        self.state = BROKEN
        self.ended.state = ENDING
        self.ended.result = (error, error.__traceback__)    # for those who look before it is told
        self.inline_ready = []
        for stage in self.stages:
            dropped.append(stage.drop())
        self.wind_up()
        self.tell(error)
        self.ring()
        for stage in self.stages:
            if not stage.running:
                stage.release()
        return 0

    cdef list counts(self):
        cdef Stage stage
        cdef Step step
        cdef Channel channel
        cdef list found = []
        for stage in self.stages:
            for step in stage.steps:
                into = [channel for channel in stage.inputs if channel.step is step]
                found.append((step.node, step.instance, OperatorCounters(
                    step.name, step.instance, ("inline", "thread", "process")[stage.place],
                    step.items_in, step.items_out, step.batches,
                    sum([channel.length for channel in into]),
                    max([channel.most for channel in into], default=0),
                    step.busy_ns, stage.stalled)))
        return found

    cdef bint run_inline(self) except -1:
        cdef Stage stage
        cdef bint ran = False
        while self.inline_ready:
            stage = <Stage>self.inline_ready.pop(0)
            if stage.activation is not None and stage.activation.state == READY:
                self.kernel.run_task(stage.activation)
                ran = True
        if ran:
            self.kernel.inline_queue.drop_gaps()
        return ran
