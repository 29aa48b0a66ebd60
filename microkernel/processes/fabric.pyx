"""The processes of a kernel: how they start, and what happens when one ends.

The driver keeps every task that is elsewhere (``Station``'s entries), and a worker claims a task
in the ring before it runs it. So when a process dies, what it had answered counts, what it had
begun is begun again as often as the task allows, and what it had not begun is sent to another as
if nothing had happened.

While no thread of the program is in the kernel, the *attendant*, a thread, takes in what arrives:
at once if somebody awaits it or other tasks wait for it, else every two milliseconds, and not at
all when nothing is under way. It also starts processes, which takes a millisecond each.
"""
import logging
import os
import signal
import sys
import threading
from heapq import heappop, heappush

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from microkernel.function cimport Function
from microkernel.mailbox cimport Method
from microkernel.objects.store cimport ObjectStore
from microkernel.pending cimport Doorbell, monotonic_ns
from microkernel.processes.dispatcher cimport Dispatcher, Place
from microkernel.processes.station cimport (
    SRDS_CONTROL_MAGIC,
    SRDS_DONE,
    SRDS_ENDING,
    SRDS_FREE,
    SRDS_SLAB_SLOTS,
    SRDS_STARTING,
    SRDS_STATIONS,
    SRDS_UNCLAIMED,
    SRDS_UP,
    Entry,
    Handler,
    srds_and64,
    srds_bell_reset,
    srds_bell_ring,
    srds_bell_wait,
    srds_cas32,
    srds_control_bytes,
    srds_load32,
    srds_load64,
    srds_message,
    srds_offered,
    srds_or64,
    srds_ring_between,
    srds_ring_reset,
    srds_ring_unconsumed,
    srds_store32,
    srds_store64,
    srds_task,
)
from microkernel.scheduler cimport cancelled_error
from microkernel.streams cimport channel_of
from microkernel.task cimport ENDING, READY, Ref, STREAMS

from microkernel.errors import KernelError, WorkerCrashed
from microkernel.kernel import stand_for_process
from microkernel.settings import TaskOptions

cdef enum:
    FIRST_WINDOW = 8            # tasks, before anything is known of their length
    STEP_US = 2000              # between the attendant's looks
    STEPS = 50                  # without anything under way, before it sleeps
    MOST_FAILED_STARTS = 3
    MOST_COUNTED = 255          # attempts, in the byte that a record has for them
    CLOSING_NS = 2000000000     # for workers to end by themselves

cdef object _log = logging.getLogger("microkernel")
cdef object _default = TaskOptions()
cdef Function _called = Function(len)


cdef class Fabric(Dispatcher):
    """The processes of one kernel, seen from the one that opened it."""

    def __init__(self, engine, launcher=None):
        self.engine = engine
        self.most = engine.settings.processes or os.cpu_count() or 1
        self.launcher = launcher
        self.to_start = []
        self.timers = []
        self.open()

    cdef int open(self) except -1:
        cdef ObjectStore objects
        if not sys.platform.startswith("linux"):
            raise KernelError(f"worker processes on {sys.platform}", what="placement 'process'",
                              expected="Linux (memfd, futex, pidfd)",
                              remedy="place tasks inline or in threads")
        fd = os.memfd_create(f"srds-control:{os.getpid()}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, srds_control_bytes())
            self.attach(fd, 0)
        except BaseException:
            os.close(fd)
            raise
        self.control.bytes = srds_control_bytes()
        self.control.driver = os.getpid()
        self.control.opened_ns = monotonic_ns()
        self.control.stations[0].pid = os.getpid()
        self.control.stations[0].state = SRDS_UP
        self.control.stations[0].epoch = self.epoch = 1
        srds_store64(&self.control.magic, SRDS_CONTROL_MAGIC)
        settings = self.engine.settings
        objects = ObjectStore.create(settings.object_memory, settings.spill_folder)
        self.open_payloads(objects)
        stand_for_process(self.engine, worker=False)
        self.used = 1
        if srds_monitor_start(&self.monitor, self.bell) != 0:
            raise KernelError("the thread that watches the workers could not be started",
                              what="threads", expected="a thread", remedy="raise the limit")
        self.watching = True
        self.attendant = threading.Thread(target=self._attend, daemon=True, name="srds-attendant")
        self.attendant.start()
        return 0

    cdef Function method(self, uint32_t number):
        return _called          # the actor that is called knows its methods

    cdef bint news_of_death(self) noexcept:
        return srds_load64(&self.monitor.ended) != 0

    cdef int pump(self) except -1:
        if srds_load64(&self.monitor.ended):
            self.bury_the_dead()
        self.poll()
        if self.queue.length:
            self.dispatch()
        elif self.used > 2 and self.outstanding:
            self.rebalance()
        return 0

    # Processes

    cdef int want_workers(self) except -1:
        """Ask for one more process that takes any task."""
        if self.general < self.most and len(self.to_start) < 2:
            self.new_station(True)
        return 0

    cdef int new_station(self, bint general) except -1:
        """A free place; its process is being started, and messages may be sent to it at once."""
        cdef int station
        cdef Place *place
        if self.start_error is not None:
            raise self.start_error
        for station in range(1, SRDS_STATIONS):
            place = &self.places[station]
            if not place.used:
                break
        else:
            if general:
                return 0
            raise KernelError(f"all {SRDS_STATIONS - 1} places for processes are taken",
                              what="processes", expected="fewer workers, actors and flows",
                              remedy="stop some of them")
        memset(place, 0, sizeof(Place))
        place.used = True
        place.general = general
        place.limit = FIRST_WINDOW
        srds_bell_reset(&self.control.stations[station].bell)
        self.control.stations[station].epoch += 1
        self.control.stations[station].dedicated = not general
        self.control.stations[station].pid = 0
        srds_store32(&self.control.stations[station].state, SRDS_STARTING)
        self.used = max(self.used, station + 1)
        self.general += general
        self.to_start.append(station)
        self.call_attendant()
        return station

    cdef int start_dedicated(self) except -1:
        """A process for an actor or a flow; returns its station."""
        return self.new_station(False)

    def _start_what_is_wanted(self):
        """In the attendant: start the processes that were asked for."""
        cdef int station, pid
        while self.to_start and not self.closing:
            station = self.to_start.pop(0)
            try:
                pid = self._launch(station)
                if srds_monitor_watch(&self.monitor, station, pid) != 0:
                    raise KernelError(f"process {pid} cannot be watched", what="pidfd",
                                      expected="Linux 5.3 or later",
                                      remedy="place tasks in threads")
                self.launcher.reap(pid)
            except BaseException as error:
                if self.closing:
                    return
                self.to_start.append(station)
                self.start_failed(error)
                return
            if not self.places[station].used:
                # Given up meanwhile, because others that were started have died.
                srds_monitor_kill(&self.monitor, station, signal.SIGKILL)
                continue
            self.places[station].pid = pid
            self.control.stations[station].pid = pid
            self.places[station].up = True
            if self.places[station].general:
                self.dispatch()
                # Whoever waits has not reckoned with it: there may be something to take over.
                srds_bell_ring(self.bell)

    @property
    def objects(self):
        """The object arena, for its statistics."""
        return self.payloads.objects

    def _launch(self, int station):
        """Start a process; through another launcher where the one there was has died."""
        from microkernel.processes.launcher import ForkServer

        if self.launcher is not None:
            try:
                return self.launcher.launch(station)
            except KernelError:
                if not isinstance(self.launcher, ForkServer):
                    raise
                self.launcher.close()
                _log.warning("the fork server has ended; another is started")
        self.launcher = ForkServer(self.control_fd, self.payloads.objects.fd,
                                   tuple(self.engine.settings.preload), self.engine.ring.share())
        return self.launcher.launch(station)

    cdef int start_failed(self, object error) except -1:
        """No process can be started: tell all that wait for one."""
        cdef Ref task
        cdef Handler handler
        cdef int station
        cdef list dedicated = [station for station in self.to_start
                               if not self.places[station].general]
        for station in self.to_start:
            self.general -= self.places[station].general
            self.places[station].used = False
            self.control.stations[station].state = SRDS_FREE
        self.to_start.clear()
        for station in dedicated:
            lost = self.take_entries_of(station)
            srds_ring_reset(srds_ring_between(self.control, 0, station))
            for handler in set(self.handlers) - {None}:
                handler.station_ended(station)
            for task, begun in lost:
                self.again(task, begun)
        if self.general:
            _log.warning("going on with %d workers: %s", self.general, error)
            self.most = self.general
            return 0
        if not isinstance(error, KernelError):
            error = KernelError(f"no worker process could be started: {error}", what="processes",
                                expected="a process", remedy="place tasks inline or in threads")
        self.start_error = error
        while True:
            task = self.queue.pop()
            if task is None:
                break
            task.state = ENDING
            self.outstanding -= 1
            self.engine.fail(task, error)
        return 0

    cdef int stop_station(self, int station) except -1:
        """Let a dedicated process end once it has done what it was sent."""
        self.places[station].ending = True
        srds_store32(&self.control.stations[station].state, SRDS_ENDING)
        srds_bell_ring(&self.control.stations[station].bell)
        return 0

    cdef int kill_station(self, int station) except -1:
        """End a process at once; what it had begun counts as crashed."""
        if self.places[station].up:
            srds_monitor_kill(&self.monitor, station, signal.SIGKILL)
        return 0

    # Ends

    cdef int bury_the_dead(self) except -1:
        cdef uint64_t ended = srds_load64(&self.monitor.ended)
        cdef int station
        for station in range(1, SRDS_STATIONS):
            if ended >> station & 1:
                srds_and64(&self.monitor.ended, ~(<uint64_t>1 << station))
                self.bury(station)
        return 0

    cdef int bury(self, int station) except -1:
        """A process is gone: take its last answers, and begin again what it had."""
        cdef Place *place = &self.places[station]
        cdef Handler handler
        cdef Ref task
        cdef bint expected = place.ending or self.closing
        cdef int other, slot
        cdef uint64_t cursor
        cdef srds_message *message
        cdef srds_task *offered
        if not place.used:
            return 0
        place.up = False
        self.read(station)
        lost = self.take_entries_of(station)
        srds_ring_reset(srds_ring_between(self.control, station, 0))
        srds_ring_reset(srds_ring_between(self.control, 0, station))
        # Tasks of living stations that it had taken and not answered: their owners find them free
        # again. They may not have been told of its last answers.
        for other in range(1, self.used):
            if other == station or not self.places[other].up:
                continue
            answered = set()
            cursor = 0
            while True:
                message = srds_ring_unconsumed(srds_ring_between(self.control, station, other),
                                               &cursor)
                if message == NULL:
                    break
                if message.kind == SRDS_DONE:
                    answered.add(message.slot)
            for slot in range(SRDS_SLAB_SLOTS):
                offered = srds_offered(self.control, other, slot)
                if srds_load32(&offered.claim) == 1 + <uint32_t>station \
                        and offered.slot not in answered:
                    # The owner may be filling this place with another task at the moment.
                    srds_cas32(&offered.claim, 1 + <uint32_t>station, SRDS_UNCLAIMED)
            srds_or64(&self.control.stations[other].bell.inbox, <uint64_t>1 << station)
        srds_and64(&self.control.idle, ~(<uint64_t>1 << station))
        self.payloads.objects.forget(station)
        srds_monitor_forget(&self.monitor, station)
        self.launcher.reap(place.pid)
        if not expected:
            self.crashes += 1
            # Whoever kills workers may hit new ones; what is wrong is when none comes up any more.
            came_up = False
            for other in range(1, self.used):
                came_up |= srds_load32(&self.control.stations[other].state) >= SRDS_UP
            self.failed_starts = 0 if came_up else self.failed_starts + 1
        self.general -= place.general
        place.used = False
        srds_store32(&self.control.stations[station].state, SRDS_FREE)
        for other in range(1, self.used):
            if self.places[other].up:
                srds_bell_ring(&self.control.stations[other].bell)
        for handler in set(self.handlers) - {None}:
            handler.station_ended(station)
        if self.failed_starts >= MOST_FAILED_STARTS and not self.closing:
            self.start_failed(KernelError(
                f"{self.failed_starts} worker processes ended before they had come up",
                what="processes", expected="workers that come up",
                remedy="look at what they wrote on standard error"))
        for task, begun in lost:
            self.again(task, begun)
        if self.queue.length and not self.closing and self.general < self.most:
            self.want_workers()
        return 0

    cdef int again(self, Ref task, bint begun) except -1:
        """A process died that had this task."""
        cdef int retries = _default.crash_retries
        if type(task.function) is Method:
            self.outstanding -= 1
            return (<Method>task.function).mailbox.lost(task, begun)
        if task.state != READY:
            self.outstanding -= 1       # it was cancelled, or too late
            return 0
        if begun:
            if task.wants & STREAMS and channel_of(task).made:
                retries = 0         # what was taken of it cannot be taken back
            task.attempt += task.attempt < MOST_COUNTED
            if task.options is not None:
                retries = task.options.crash_retries
            if task.attempt > retries:
                task.state = ENDING
                self.outstanding -= 1
                return self.engine.fail(task, WorkerCrashed(
                    f"the process that ran {task.function.name} died "
                    f"({task.attempt} time{'s' if task.attempt > 1 else ''})",
                    what=task.function.name, expected="a process that lives",
                    remedy="look for what kills it: memory, a fault in C code, a signal"))
            _log.warning("the process that ran %s died; attempt %d", task.function.name,
                         task.attempt + 1)
        if self.start_error is not None:
            task.state = ENDING
            self.outstanding -= 1
            return self.engine.fail(task, self.start_error)
        self.queue.push_front(task)
        return 0

    cdef int interrupt(self, Ref task) except -1:
        """The task has ended here; where it still runs it is told to stop, and later made to."""
        cdef uint32_t slot = task.slot
        cdef Entry *entry = self.entry(slot)
        cdef int station
        if entry == NULL:
            return 0
        station = entry.station
        if self.revoke(slot):
            self.outstanding -= 1
            return 0
        srds_store64(&self.control.stations[station].cancelled, <uint64_t>1 << 32 | slot)
        srds_monitor_kill(&self.monitor, station, signal.SIGURG)
        srds_bell_ring(&self.control.stations[station].bell)    # it may be about to sleep
        self.kill_later(slot, station)
        return 0

    cdef int kill(self, Ref task) except -1:
        cdef Entry *entry = self.entry(task.slot)
        if entry != NULL and srds_load32(&entry.message.claim) == 1 + entry.station:
            self.kill_station(entry.station)
        return 0

    cdef int kill_later(self, uint32_t slot, int station) except -1:
        """End the process of a station unless it has done with a task after the time of grace."""
        self.timers_set += 1
        due = monotonic_ns() + <int64_t>(self.engine.settings.grace * 1e9)
        heappush(self.timers, (due, self.timers_set, slot, station))
        self.call_attendant()
        return 0

    cdef int64_t kill_what_still_runs(self) except -1:
        """Kill the workers of tasks that did not stop in time; returns when the next is due."""
        cdef Entry *entry
        while self.timers:
            due, _, slot, station = self.timers[0]
            entry = self.entry(slot)
            if entry != NULL and entry.station == station:
                if monotonic_ns() < due:
                    return due
                _log.warning("%s did not stop; its process is replaced",
                             (<Ref>entry.task).function.name)
                self.kill_station(station)
            heappop(self.timers)
        return 0

    # The attendant

    cdef int attend(self, int change) except -1:
        """Somebody awaits (1), or does not any more (-1), the end of a task in another way than by
        waiting in the kernel."""
        self.awaited += change
        if change > 0 and not self.leading:
            self.call_attendant()
        return 0

    cdef int call_attendant(self) noexcept:
        self.dozing = False
        srds_call(&self.attention)
        return 0

    cdef bint needed(self) noexcept:
        """Whether something is held up until an answer is taken in."""
        return self.outstanding and (self.awaited or self.queue.length)

    def _attend(self):
        """The attendant's life."""
        cdef Doorbell bell = Doorbell()
        while not self.closing:
            try:
                self.attend_once(bell)
            except Exception:
                # The journal refused, or a hook raised: whoever waits for the task is told.
                _log.exception("while taking in what other processes answered")

    cdef int attend_once(self, Doorbell bell) except -1:
        cdef int64_t next_timer
        cdef int called
        self.attention = 0
        self._start_what_is_wanted()
        next_timer = self.kill_what_still_runs()
        if self.closing:
            return 0
        if self.needed() and not self.leading:
            self.pump()
            bell.listen()
            if self.needed() and not self.attention:
                self.lead(bell, next_timer, 1)
            bell.stop_listening()
            return self.pump()
        with nogil:
            called = srds_watch(&self.attention, &self.leading, self.bell, &self.monitor.ended,
                                STEP_US, STEPS)
        if not self.leading:
            self.pump()
        if not (called or self.outstanding or next_timer or self.to_start):
            self.dozing = True
            with nogil:
                srds_attend(&self.attention)
            self.dozing = False
        return 0

    # Closing

    cdef int close(self, bint cancelled) except -1:
        cdef Ref task
        cdef int station
        cdef int64_t until
        if self.closing:
            return 0
        while True:
            task = self.queue.pop()
            if task is None:
                break
            self.outstanding -= 1
            task.state = ENDING
            self.engine.fail(task, cancelled_error(task))
        for station in range(1, SRDS_STATIONS):
            for task, _ in self.take_entries_of(station):
                self.outstanding -= 1
                if task.state < ENDING:
                    task.state = ENDING
                    self.engine.fail(task, cancelled_error(task))
        self.closing = True
        srds_store32(&self.control.closing, 1)
        self.call_attendant()
        self.attendant.join()
        for station in range(1, self.used):
            if self.places[station].up:
                srds_bell_ring(&self.control.stations[station].bell)
                if cancelled:
                    srds_monitor_kill(&self.monitor, station, signal.SIGKILL)
        until = monotonic_ns() + CLOSING_NS
        while True:
            self.bury_the_dead()
            if not any([self.places[station].up for station in range(1, self.used)]):
                break
            if until and monotonic_ns() >= until:
                until = 0
                for station in range(1, self.used):
                    if self.places[station].up:
                        srds_monitor_kill(&self.monitor, station, signal.SIGKILL)
            with nogil:
                srds_bell_wait(self.bell, &self.spin, NULL, 0, 0, monotonic_ns() + 10000000, NULL)
        if self.launcher is not None:
            self.launcher.close()
        srds_monitor_stop(&self.monitor)
        self.watching = False
        os.close(self.control_fd)
        return 0
