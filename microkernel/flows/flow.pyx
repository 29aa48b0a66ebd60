"""A flow: a graph that runs, from the side of the program that feeds it and reads its results.

Within a decision all stages run inline, whatever the graph says: what a flow computes then
depends on its input alone, and a replay computes it again.
"""
from itertools import islice

from libc.stdint cimport int64_t, uint64_t

from microkernel.engine cimport Engine
from microkernel.flows.building cimport build
from microkernel.flows.channel cimport Channel
from microkernel.flows.part cimport BROKEN, FLOWING
from microkernel.flows.stage cimport Stage
from microkernel.flows.step cimport Step, named
from microkernel.flows.waiting cimport EITHER, END, ITEMS, ROOM, WaitedPart
from microkernel.ids cimport id_to_bytes, mix
from microkernel.pending cimport monotonic_ns
from microkernel.scheduler cimport unwrap
from microkernel.task cimport DONE, INLINE, RUNNING, THREAD, thread_ident
from microkernel.tracing cimport trace

from microkernel.errors import FlowEnded, GraphError, KernelError, TaskCancelled
from microkernel.flows.plan import plan as plan_of

cdef size_t ALL = <size_t>1 << 62


cdef class Flow(WaitedPart):
    """A running graph; made by ``Kernel.flow``. As a context manager it is closed at the end of the
    block, and cancelled after an error.

    >>> from microkernel import Kernel
    >>> from microkernel.flows import Graph
    >>> graph = Graph()
    >>> squares = graph.map(graph.source(), lambda n: n * n)
    >>> with Kernel() as kernel, kernel.flow(graph) as flow:
    ...     list(flow.run(range(5)))
    [0, 1, 4, 9, 16]
    """

    def __init__(self, Engine kernel not None, graph):
        kernel.check_open()
        self.kernel = kernel
        self.graph = graph
        self.name = graph.name
        plan_of(graph, "")          # nothing is begun for a graph that cannot be
        self.ended = kernel.new_task(named(f"flow:{self.name}"))
        self.ended.args = ()
        self.ended.thread = thread_ident()
        trace.submitted(kernel.ring, self.ended)
        trace.begin_coroutine(kernel.ring, self.ended)
        self.ended.state = RUNNING
        self.opening = []
        self.reports = {}
        if kernel.flows is None:
            kernel.flows = set()
        kernel.flows.add(self)
        try:
            self.begin(plan_of(graph, "" if self.ended.scope is not None
                               else kernel.settings.placement))
        except BaseException as error:
            self.fail(error)
            raise
        if len(self.sources) == 1:
            self.only_source = next(iter(self.sources.values()))

    cdef int begin(self, plan) except -1:
        """Make the stages, here and, where the plan says so, in processes."""
        cdef dict places = {}
        if any(group.placement == "process" for group in plan.groups):
            from microkernel.flows.hosting import places_for

            places = places_for(self, plan)
            if places is None:
                # A process of a kernel starts no others: all of it runs in this one.
                plan = plan_of(self.graph, "")
                places = {}
        self.graph_plan = plan
        self.sources, self.outputs = build(self, plan, 0, places)
        self.unfinished += len(places)
        return 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self.close()
        else:
            self.cancel()

    def __repr__(self):
        state = ("flowing", "ended", "failed")[<int>self.state]
        return f"<Flow {self.name} of {len(self.stages)} stages, {state}>"

    # Feeding

    cdef Channel source(self, object name):
        if name is None and self.only_source is not None:
            return self.only_source
        if name not in self.sources:
            raise GraphError(f"flow {self.name} has no source {name!r}" if name is not None
                             else f"flow {self.name} has {len(self.sources)} sources",
                             what="source", remedy="name one",
                             expected=" or ".join(self.sources) or "none: it feeds itself")
        return <Channel>self.sources[name]

    cdef int check_taking(self, Channel channel) except -1:
        """Raise what keeps the flow from taking items."""
        if self.state == BROKEN:
            unwrap(self.ended)
        if self.kernel.forked():
            self.kernel.check_open()
        if self.state != FLOWING or channel.producers == 0:
            raise FlowEnded(f"flow {self.name} takes no more items", what=self.name,
                            expected="a flow whose source has not been ended",
                            remedy="open the graph again: kernel.flow(graph)")
        return 0

    def put(self, item, *, source=None, timeout=None):
        """Feed one item; returns its position in the source, from 0 on.

        Waits while there is no room, at most ``timeout`` seconds (then ``TimeoutError``, and the
        item has not been taken). Raises the error of an operator if the flow has failed.
        """
        cdef Channel channel = self.source(source)
        cdef uint64_t position
        self.check_taking(channel)
        while channel.room() == 0:
            if not self.wait_for(ROOM, channel, None, moment(timeout)):
                raise TimeoutError(f"no room in flow {self.name} for {timeout} s")
            self.check_taking(channel)
        position = channel.passed
        channel.push_one(item)
        self.set_going(<Stage>channel.consumer)
        return position

    def put_many(self, items, *, source=None, timeout=None):
        """Feed all items; returns the position of the first.

        After ``TimeoutError`` and other errors, ``flow.position()`` says how many were taken.
        """
        cdef Channel channel = self.source(source)
        cdef uint64_t position = channel.passed
        cdef int64_t until = moment(timeout)
        cdef list batch
        cdef size_t taken
        iterator = iter(items)
        self.check_taking(channel)
        while True:
            batch = list(islice(iterator, channel.batch))
            if not batch:
                return position
            taken = 0
            while taken < <size_t>len(batch):
                self.check_taking(channel)
                if channel.room() == 0:
                    if not self.wait_for(ROOM, channel, None, until):
                        raise TimeoutError(f"no room in flow {self.name} for {timeout} s")
                    continue
                taken += channel.push(batch, taken)
                self.set_going(<Stage>channel.consumer)

    def position(self, source=None):
        """How many items a source has taken so far."""
        return self.source(source).passed

    async def put_async(self, item, *, source=None):
        """``put`` for coroutines."""
        channel = self.source(source)
        await self._until(ROOM, channel)
        while (<Channel>channel).room() == 0 and self.state == FLOWING:
            await self._until(ROOM, channel)
        return self.put(item, source=source)

    async def put_many_async(self, items, *, source=None):
        """``put_many`` for coroutines; the items themselves come from a plain iterable."""
        position = self.position(source)
        for item in items:
            await self.put_async(item, source=source)
        return position

    cdef int set_going(self, Stage stage) except -1:
        """There is something in front of a stage: run it, if it is this thread's to run."""
        if (stage.place == INLINE and not stage.running and stage.activation is None
                and not stage.stalled):
            stage.run()
        else:
            stage.wake()
        if self.inline_ready:
            self.run_inline()
        if self.state == BROKEN:
            unwrap(self.ended)
        return 0

    def end(self, source=None):
        """No more items come from this source, or from any; does not wait."""
        for channel in ([self.source(source)] if source is not None
                        else list(self.sources.values())):
            if self.state == FLOWING and (<Channel>channel).producers:
                self.end_channel(<Channel>channel)

    cdef int end_channel(self, Channel channel) except -1:
        channel.end()
        return self.set_going(<Stage>channel.consumer)

    # Results

    cdef Channel output(self, object name):
        if name is None and len(self.outputs) == 1:
            name = next(iter(self.outputs))
        if name not in self.outputs:
            raise GraphError(f"flow {self.name} has no output {name!r}" if name is not None
                             else f"flow {self.name} has {len(self.outputs)} outputs",
                             what="output", expected=" or ".join(self.outputs) or
                             "none: all streams end in sinks", remedy="name one")
        return <Channel>self.outputs[name]

    def results(self, name=None):
        """What leaves the flow by an output, as it comes, until the flow has ended: for ``for`` and
        for ``async for``. After the results that there are it raises the error of a failed flow."""
        cdef Results results = Results.__new__(Results)
        results.flow = self
        results.channel = self.output(name)
        return results

    def take(self, name=None, most=None):
        """The results that are there already, at most so many; never waits for another thread."""
        cdef Channel channel = self.output(name)
        cdef size_t count = ALL if most is None else most
        self.run_inline()
        taken = self.taken(channel, count)
        if not taken and self.state == BROKEN:
            unwrap(self.ended)
        return taken

    cdef list taken(self, Channel channel, size_t most):
        cdef list batch = channel.pop(most)
        if batch and channel.capacity:
            self.room_made(channel)
        return batch

    def run(self, items, *, source=None):
        """Feed ``items`` and yield the results of the only output meanwhile, so that neither are
        kept; at the end of the items the source is ended. Results are not those of a fixed item."""
        cdef Channel into = self.source(source)
        cdef Channel out = self.output(None)
        return self._running(iter(items), into, out)

    def _running(self, iterator, Channel into not None, Channel out not None):
        cdef list batch
        cdef size_t given
        while True:
            batch = list(islice(iterator, into.batch))
            if not batch:
                break
            given = 0
            while given < <size_t>len(batch):
                self.check_taking(into)
                if into.room():
                    given += into.push(batch, given)
                    self.set_going(<Stage>into.consumer)
                elif out.length == 0:
                    self.wait_for(EITHER, into, out, 0)
                while out.length:
                    yield from self.taken(out, out.length)
        if into.producers:
            self.end_channel(into)
        results = self.results()
        yield from results

    # Ending

    def close(self, timeout=None):
        """End all sources and wait until every item has gone through, at most ``timeout`` seconds.

        Raises the error of a failed flow. Results can still be read afterwards; where an output has
        a ``capacity``, somebody must read it meanwhile.
        """
        self.end()
        if not self.wait_for(END, None, None, moment(timeout)):
            raise TimeoutError(f"flow {self.name} has not ended within {timeout} s")
        if self.state == BROKEN:
            unwrap(self.ended)

    async def close_async(self):
        """``close`` for coroutines."""
        self.end()
        await self._until(END, None)
        if self.state == BROKEN:
            unwrap(self.ended)

    def cancel(self):
        """Give the flow up, from any thread; whether it had not ended. What is under way is
        dropped. An operator in another thread is told to stop as a cancelled task is; an inline one
        ends the item at hand."""
        cdef Stage stage
        if self.state != FLOWING or self.kernel.forked():
            return False
        self.fail(TaskCancelled(f"flow {self.name} was cancelled", what=self.name,
                                expected="a flow that is left to run",
                                remedy="open the graph again: kernel.flow(graph)"))
        for stage in self.stages:
            if stage.running and stage.place == THREAD and stage.at_step is not None:
                self.kernel.interrupt(stage.at_step.record.task)
        return True

    cdef int wind_up(self) except -1:
        (<set>self.kernel.flows).discard(self)
        if self.ports is not None:
            from microkernel.flows.hosting import let_go

            let_go(self)
        return 0

    cdef int tell(self, object error) except -1:
        if error is None:
            return self.kernel.complete(self.ended, DONE, None)
        return self.kernel.fail(self.ended, error)

    cdef int heard(self, int sender, int what, object payload) except -1:
        from microkernel.flows.hosting import heard

        heard(self, sender, what, payload)
        return 0

    cdef int station_ended(self, int station) except -1:
        from microkernel.flows.hosting import crashed

        crashed(self, station)
        return 0

    @property
    def ref(self):
        """The flow as a task: ``kernel.wait`` and ``await`` take it; its id is the flow's."""
        return self.ended

    @property
    def done(self):
        """Whether the flow has ended, failed or was cancelled."""
        return self.state != FLOWING

    # What can be asked

    def item_id(self, uint64_t position, source=None):
        """The 16 bytes that name an item of a source by its position, in every run of the flow."""
        cdef Step step = <Step>self.source(source).step
        return id_to_bytes(mix(step.id, position, step.function.hash))

    def call_id(self, str operator not None, uint64_t position, int instance=0):
        """The id of the task in which an operator saw the item of this position of its input."""
        cdef Stage stage
        cdef Step step
        for stage in self.stages:
            for step in stage.steps:
                if step.name == operator and step.instance == instance:
                    return id_to_bytes(mix(step.id, position, step.function.hash))
        raise GraphError(f"flow {self.name} has no operator {operator!r}[{instance}]",
                         what=operator, expected="the name of an operator", remedy="")

    def counters(self):
        """What each instance of each operator has done so far, in the order of the graph; those in
        other processes as they last told, which they do ten times a second."""
        cdef list found = self.counts()
        for report in self.reports.values():
            found += report
        return [counters for _, _, counters in sorted(found, key=lambda entry: entry[:2])]


cdef class Results:
    """What leaves a flow by one of its outputs; made by ``Flow.results``."""

    def __iter__(self):
        return self

    def __next__(self):
        if self.channel.length == 0:
            self.flow.wait_for(ITEMS, self.channel, None, 0)
            if self.channel.length == 0:
                if self.flow.state == BROKEN:
                    unwrap(self.flow.ended)
                raise StopIteration
        item = self.channel.pop_one()
        if self.channel.capacity:
            self.flow.room_made(self.channel)
        return item

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.channel.length == 0:
            await self.flow._until(ITEMS, self.channel)
            if self.channel.length == 0:
                if self.flow.state == BROKEN:
                    unwrap(self.flow.ended)
                raise StopAsyncIteration
        item = self.channel.pop_one()
        if self.channel.capacity:
            self.flow.room_made(self.channel)
        return item


cdef int64_t moment(object timeout) except -1:
    """The monotonic time at which ``timeout`` seconds have passed; 0 for never."""
    if timeout is None:
        return 0
    if not timeout >= 0:
        raise KernelError(f"a timeout of {timeout} s", what="timeout", expected="0 s or more",
                          remedy="leave it out to wait as long as it takes")
    return 0 if timeout > 1e9 else monotonic_ns() + <int64_t>(timeout * 1e9) + 1
