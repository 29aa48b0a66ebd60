"""The boundary that hands out what a journal kept.

Inputs are matched by task, kind, source, key and ordinal, not by position, so that patched code
which reads in another order still gets its own inputs. What the record does not hold goes by a
policy: ``fail`` names it, ``live`` asks the source, ``default`` answers a given value.
"""
import builtins
import sys

from libc.stdlib cimport free

from microkernel.ids cimport id_to_bytes
from microkernel.recording cimport write_region
from microkernel.task cimport Boundary, Ref, thread_ident
from microkernel.values cimport Cursor, Writer, read_value, skip_value

from dataclasses import dataclass

from microkernel.errors import KernelError, ReplayDivergence

POLICIES = ("fail", "live", "default")


class RecordedError(KernelError):
    """A source raised, when it was recorded, an exception whose class is not at hand now."""


@dataclass(frozen=True)
class RecordedInput:
    """One input as the journal kept it: what was asked for, by which task, and the answer."""

    seq: int
    kind: str
    source: str
    key: object
    ordinal: int
    task: bytes
    ok: bool
    value: object


def read_input(payload, seq=0):
    """The ``RecordedInput`` in the payload of an ``input`` event; ``ValueError`` if malformed."""
    cdef bytes raw = bytes(payload)
    cdef Cursor c
    c.at = <const unsigned char *>raw
    c.end = c.at + len(raw)
    fields = read_value(&c, 0)
    if c.at != c.end or type(fields) is not list or len(fields) != 7:
        raise ValueError("not a recorded input")
    kind, source, key, ordinal, task, ok, value = fields
    return RecordedInput(seq, kind, source, key, ordinal, task, ok, value)


cdef bytes region_of(str kind, str source, object key):
    cdef Writer w
    w.data = NULL
    w.length = w.capacity = 0
    try:
        write_region(&w, kind, source, key)
        return w.data[:w.length]
    finally:
        free(w.data)


cdef class Replaying(Boundary):
    """Answers from recorded inputs.

    ``payloads`` are ``(seq, payload)`` of the decision's ``input`` events, in order. ``overrides``
    maps ``(source, key)`` to the value that a perturbed replay reads there instead.
    ``reads`` lists what was handed out, ``extra`` what was asked for beyond the record (under
    ``live`` and ``default``), and ``differences`` what the frameworks noted while they recomputed.
    """

    def __cinit__(self, payloads, *, overrides=None, policy="fail", default=None):
        cdef Cursor c
        cdef const unsigned char *start
        if policy not in POLICIES:
            raise KernelError(f"no policy is named {policy!r}", what=str(policy),
                              expected=", ".join(POLICIES), remedy="choose one of them")
        self.mode = "replaying"
        self.policy = policy
        self.default = default
        self.inputs = {}
        self.overrides = {}
        self.reads = []
        self.extra = []
        self.differences = []
        for (source, key), value in (overrides or {}).items():
            self.overrides[region_of("read", source, key)] = value
        for seq, payload in payloads:
            raw = bytes(payload)
            c.at = <const unsigned char *>(<bytes>raw)
            c.end = c.at + len(raw)
            if len(raw) == 0 or c.at[0] != 0x97:
                raise ValueError(f"event {seq} is not a recorded input")
            c.at += 1
            start = c.at
            for _ in range(3):
                skip_value(&c, 0)
            region = start[:c.at - start]
            ordinal = read_value(&c, 0)
            task = read_value(&c, 0)
            self.inputs[(task, region, ordinal)] = (seq, raw[c.at - <const unsigned char *>(<bytes>raw):])

    cdef object exchange(self, Ref task, str kind, str source, object key, object fetch):
        cdef unsigned long thread = thread_ident()
        if task.fetching == thread:
            return fetch()
        region = region_of(kind, source, key)
        cdef const unsigned char *raw = region
        ordinal = task.next_ordinal(raw, len(region))
        if region in self.overrides:
            self.inputs.pop((id_to_bytes(task.id), region, ordinal), None)
            self.reads.append((kind, source, key, ordinal))
            return self.overrides[region]
        found = self.inputs.pop((id_to_bytes(task.id), region, ordinal), None)
        if found is None:
            return self.beyond_the_record(task, kind, source, key, ordinal, fetch, thread)
        self.reads.append((kind, source, key, ordinal))
        if self.on_input is not None:
            self.on_input(task, kind, source, key)
        return self.answer(found[1])

    cdef object keep(self, Ref task, str kind, str source, object key, object value):
        return self.exchange(task, kind, source, key, None)

    cdef object recorded(self, Ref task, str kind, str source, object key):
        found = self.inputs.pop((id_to_bytes(task.id), region_of(kind, source, key), 0), None)
        return None if found is None else self.answer(found[1])

    cdef object answer(self, bytes rest):
        cdef Cursor c
        c.at = <const unsigned char *>rest
        c.end = c.at + len(rest)
        ok = read_value(&c, 0)
        value = read_value(&c, 0)
        if ok:
            return value
        raise rebuild_error(value)

    cdef object beyond_the_record(self, Ref task, str kind, str source, object key,
                                  object ordinal,
                                  object fetch, unsigned long thread):
        what = f"{kind} of {source!r}, key {key!r}"
        if ordinal:
            what += f", for the {ordinal + 1}th time"
        if self.policy == "fail" or (self.policy == "live" and fetch is None):
            left = self.unread()
            expected = (f"{left[0].kind} of {left[0].source!r}, key {left[0].key!r} (event "
                        f"{left[0].seq})" if left else "no further input")
            raise ReplayDivergence(
                f"{task.function.name} asked for the {what}, which the recorded run did not read; "
                f"the first recorded input not read yet: {expected}",
                what=what, expected=expected,
                remedy="replay with the recorded code, or allow extra reads: policy live or default")
        self.extra.append((kind, source, key, ordinal))
        if self.policy == "default":
            return self.default
        task.fetching = thread
        try:
            return fetch()
        finally:
            task.fetching = 0

    def unread(self):
        """The recorded inputs that nobody asked for, in the order in which they were recorded."""
        left = []
        for (task, region, ordinal), (seq, rest) in self.inputs.items():
            array = b"\x97" + region + encode_tail(ordinal, task) + rest
            left.append(read_input(array, seq))
        return sorted(left, key=lambda recorded: recorded.seq)


cdef bytes encode_tail(ordinal, task):
    from microkernel.values import encode
    return encode(ordinal) + encode(task)


cdef object rebuild_error(object described):
    """The exception that a source raised. Only classes that are loaded already are used:
    reading a record must not import what its author names."""
    name, arguments = described
    module, _, qualname = name.partition(":")
    cls = getattr(sys.modules.get(module, builtins), qualname, None)
    if isinstance(cls, type) and issubclass(cls, Exception):
        try:
            return cls(*arguments)
        except Exception:
            pass
    return RecordedError(f"{qualname}: " + ", ".join(map(str, arguments)), what=name)
