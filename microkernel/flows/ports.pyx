"""Edges between processes: a channel cut in two, an ``Outport`` here and an ``Inlet`` there.

A batch is one message on the ring between the two processes; long ones lie in the object arena.
The sender has credit for as many items as the channel holds and gets it back when they have gone
through the stage there, with all that follows from them sent on: so what is under way is never out
of sight, which is how the end of a cycle is found.

What arrives is copied off the ring at once and decoded by the stage that takes it: decoding runs
code of others, and must keep the order.
"""
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from microkernel.flows.channel cimport Channel
from microkernel.flows.part cimport FLOWING, Part
from microkernel.objects.store cimport Block
from microkernel.processes.station cimport (
    SRDS_FLOW,
    SRDS_IN_BLOCK,
    Station,
    srds_message,
    srds_message_size,
)
from microkernel.values cimport Writer

cdef enum:
    MOST_INLINE = 32768         # bytes of a batch in a ring; more goes into the object arena

cdef size_t UNLIMITED = <size_t>1 << 62


cdef class Ports(Handler):
    """What one process says about flows to others, and hears."""

    def __init__(self, Station station not None):
        self.station = station
        self.parts = {}

    # Sending

    cdef int send(self, int to, int what, uint32_t part, uint32_t link, uint32_t count,
                  const void *data, size_t n, uint16_t flags) except -1:
        cdef uint32_t size = srds_message_size(sizeof(srds_message), n)
        cdef srds_message *m = <srds_message *>self.station.reserve(to, size)
        memset(m, 0, sizeof(srds_message))
        m.size = size
        m.kind = SRDS_FLOW
        m.status = what
        m.flags = flags
        m.slot = part
        m.payload = <uint32_t>n
        m.value = <int64_t>(<uint64_t>count << 32 | link)
        if n:
            memcpy(m + 1, data, n)
        return self.station.publish(to)

    cdef list send_value(self, int to, int what, uint32_t part, uint32_t link, uint32_t count,
                         object value):
        """Returns the blocks that the message names, to be kept until it has been read."""
        cdef Writer w = self.station.take_scratch()
        cdef list held = []
        cdef uint16_t flags = 0
        try:
            self.station.payloads.write_result(&w, value, held)
            if w.length > MOST_INLINE:
                self.station.move_to_block(&w, held)
                flags = SRDS_IN_BLOCK
            self.send(to, what, part, link, count, w.data, w.length, flags)
        finally:
            self.station.give_scratch(w)
        return held

    cdef int send_error(self, int to, uint32_t part, object error) except -1:
        cdef Writer w = self.station.take_scratch()
        try:
            self.station.payloads.write_error(&w, error)
            self.send(to, FAILED, part, 0, 0, w.data, w.length, 0)
        finally:
            self.station.give_scratch(w)
        return 0

    # Receiving

    cdef int message(self, int sender, srds_message *m) except -1:
        cdef int what = m.status
        cdef uint32_t number = m.slot
        cdef uint32_t link = <uint32_t>m.value
        cdef uint32_t count = <uint32_t>(<uint64_t>m.value >> 32)
        cdef uint16_t flags = m.flags
        cdef bytes data = PyBytes_FromStringAndSize(<char *>(m + 1), m.payload)
        cdef Part part
        if what == OPEN:
            from microkernel.flows.hosting import host

            host(self, number, data, flags)
            return 0
        found = self.parts.get(number)
        if found is None or ((<Part>found).state != FLOWING and what != START):
            if what == READY:       # it has ended meanwhile
                from microkernel.flows.hosting import dismiss

                dismiss(self, sender)
            return 0
        part = <Part>found
        if what == ITEMS:
            channel = part.links[link]
            (<Inlet>channel).deliver(count, data, flags)
            return part.arrived(<Channel>channel)
        if what == CREDIT:
            channel = part.links[link]
            (<Outport>channel).credit(count)
            part.room_made(<Channel>channel)
            for cycle in part.cycles:
                part.settle(cycle)
            return 0
        if what == ENDED:
            channel = part.links[link]
            if (<Channel>channel).producers:
                (<Channel>channel).producers = 0
                return part.arrived(<Channel>channel)
            return 0
        if what == START:
            for channel in part.links.values():
                if isinstance(channel, Outport) and not (<Outport>channel).started:
                    (<Outport>channel).start()
                    part.room_made(<Channel>channel)
            return 0
        if what == FAILED:
            payload = self.station.payloads.read_error(
                <const unsigned char *>PyBytes_AS_STRING(data), len(data))
        else:
            payload = self.read_value(data, flags) if len(data) else None
        return part.heard(sender, what, payload)

    cdef object read_value(self, bytes data, uint16_t flags):
        cdef Block block
        cdef uint64_t[2] where
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
        if not flags & SRDS_IN_BLOCK:
            return self.station.payloads.read_result(at, len(data))
        memcpy(where, at, sizeof(where))
        block = self.station.payloads.objects.hold(where[0])
        at = block.pin()
        try:
            return self.station.payloads.read_result(at, where[1])
        finally:
            block.unpin()

    cdef int station_ended(self, int station) except -1:
        for part in list(self.parts.values()):
            (<Part>part).station_ended(station)
        return 0

    # Channels

    def outport(self, Part part, uint32_t number, int to, size_t capacity, size_t batch):
        """The sending end of a channel to another process."""
        cdef Outport channel = Outport(capacity, batch)
        channel.ports = self
        channel.part = part.number
        channel.number = number
        channel.to = to
        channel.remote = True
        # The rings from and to the driver are there before a process is; others are not.
        channel.started = to == 0 or self.station.index == 0
        part.links[number] = channel
        return channel

    def inlet(self, Part part, uint32_t number, int sender, size_t capacity, size_t batch):
        """The receiving end."""
        cdef Inlet channel = Inlet(capacity, batch)
        channel.ports = self
        channel.part = part.number
        channel.number = number
        channel.sender = sender
        channel.remote = True
        part.links[number] = channel
        return channel


cdef class Outport(Channel):
    """``length`` is how many items have not gone through on the other side."""

    def __cinit__(self):
        self.held = deque()

    cdef size_t room(self) noexcept:
        if not self.started:
            return 0
        if self.capacity == 0:
            return UNLIMITED
        return self.capacity - self.length

    cdef size_t push(self, list batch, size_t first) except? 0xffffffffffffffff:
        cdef size_t count = min(<size_t>len(batch) - first, self.room())
        cdef list blocks
        if count == 0:
            return 0
        if first or count < <size_t>len(batch):
            batch = batch[first:first + count]
        blocks = self.ports.send_value(self.to, ITEMS, self.part, self.number, <uint32_t>count,
                                       batch)
        self.length += count
        self.passed += count
        self.most = max(self.most, self.length)
        if blocks:
            self.held.append((self.passed, blocks))
        return count

    cdef int push_one(self, object item) except -1:
        self.push([item], 0)
        return 0

    cdef int credit(self, uint32_t count) except -1:
        self.length -= count
        self.gone += count
        while self.held and self.held[0][0] <= self.gone:
            self.held.popleft()
        return 0

    cdef int end(self) except -1:
        self.producers -= 1
        if self.producers == 0:
            self.ends = True
            if self.started:
                self.ports.send(self.to, ENDED, self.part, self.number, 0, NULL, 0, 0)
        return 0

    cdef int start(self) except -1:
        self.started = True
        if self.ends:
            self.ports.send(self.to, ENDED, self.part, self.number, 0, NULL, 0, 0)
        return 0

    cdef list drop(self):
        return []


cdef class Inlet(Channel):
    """What has arrived, and been decoded as far as it was taken."""

    def __cinit__(self):
        self.batches = deque()

    cdef int deliver(self, uint32_t count, bytes data, uint16_t flags) except -1:
        self.batches.append((count, data, flags))
        self.length += count
        self.passed += count
        self.most = max(self.most, self.length)
        return 0

    cdef int decode(self) except -1:
        """Make the next batch the one at hand, if the last one is used up."""
        if self.decoded is None:
            _, data, flags = self.batches.popleft()
            self.decoded = self.ports.read_value(data, flags)
            self.at = 0
        return 0

    cdef list pop(self, size_t most):
        cdef list batch
        cdef size_t count
        self.decode()
        count = min(<size_t>len(self.decoded) - self.at, most)
        if self.at == 0 and count == <size_t>len(self.decoded):
            batch = self.decoded
            self.decoded = None
        else:
            batch = self.decoded[self.at:self.at + count]
            self.at += count
            if self.at == <size_t>len(self.decoded):
                self.decoded = None
        self.length -= count
        self.owed += count
        return batch

    cdef object pop_one(self):
        return self.pop(1)[0]

    cdef int pay(self) except -1:
        # Not for every batch: to be woken is what costs the sender most.
        if self.owed and (self.length == 0 or 2 * self.owed >= self.capacity):
            self.ports.send(self.sender, CREDIT, self.part, self.number, <uint32_t>self.owed,
                            NULL, 0, 0)
            self.owed = 0
        return 0

    cdef list drop(self):
        cdef list gone = [self.batches, self.decoded]
        self.batches = deque()
        self.decoded = None
        self.length = 0
        return gone
