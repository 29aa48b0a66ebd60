"""The boundary that hands out what a journal kept.

Inputs are matched by task, kind, source, key and ordinal, not by position, so that patched code
which reads in another order still gets its own inputs. What the record does not hold goes by a
policy: ``fail`` names it, ``live`` asks the source, ``default`` answers a given value.
"""
import sys

from cpython.ref cimport PyObject
from libc.stdlib cimport free

from microkernel.ids cimport id_to_bytes
from microkernel.recording cimport write_region
from microkernel.task cimport Boundary, Ref, begin_fetching, end_fetching, is_fetching
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


def read_inputs(payload, seq=0):
    """The inputs in the payload of an ``input`` event; ``ValueError`` when it is malformed."""
    cdef bytes raw = bytes(payload)
    cdef Cursor c
    cdef list inputs = []
    c.at = <const unsigned char *>raw
    c.end = c.at + len(raw)
    while c.at != c.end:
        fields = read_value(&c, 0)
        if type(fields) is not list or len(fields) != 7:
            raise ValueError(f"event {seq} holds something else than inputs")
        kind, source, key, ordinal, task, ok, value = fields
        inputs.append(RecordedInput(seq, kind, source, key, ordinal, task, ok, value))
    return inputs


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
            while c.at != c.end:
                if c.at[0] != 0x97:
                    raise ValueError(f"event {seq} holds something else than inputs")
                c.at += 1
                start = c.at
                for _ in range(3):
                    skip_value(&c, 0)
                region = start[:c.at - start]
                ordinal = read_value(&c, 0)
                task = read_value(&c, 0)
                start = c.at
                skip_value(&c, 0)
                skip_value(&c, 0)
                self.inputs[(task, region, ordinal)] = (
                    len(self.inputs), seq, start[:c.at - start])

    cdef object exchange(self, Ref task, str kind, str source, object key, object fetch):
        if is_fetching(task):
            return fetch()
        region = region_of(kind, source, key)
        cdef const unsigned char *raw = region
        ordinal = task.next_ordinal(raw, len(region))
        if region in self.overrides:
            self.inputs.pop((id_to_bytes(task.id), region, ordinal), None)
            self.reads.append((kind, source, key, ordinal))
            if self.on_input is not None:
                self.on_input(task, kind, source, key)
            return self.overrides[region]
        found = self.inputs.pop((id_to_bytes(task.id), region, ordinal), None)
        if found is None:
            return self.beyond_the_record(task, kind, source, key, ordinal, fetch)
        self.reads.append((kind, source, key, ordinal))
        if self.on_input is not None:
            self.on_input(task, kind, source, key)
        return self.answer(found[2])

    cdef object keep(self, Ref task, str kind, str source, object key, object value):
        return self.exchange(task, kind, source, key, lambda: value)

    cdef object recorded(self, Ref task, str kind, str source, object key):
        found = self.inputs.pop((id_to_bytes(task.id), region_of(kind, source, key), 0), None)
        return None if found is None else self.answer(found[2])

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
                                  object ordinal, object fetch):
        cdef PyObject *outer
        what = f"{kind} of {source!r}, key {key!r}"
        if ordinal:
            what += f", for the {ordinal + 1}th time"
        if self.policy == "fail":
            left = self.unread()
            expected = (f"{left[0].kind} of {left[0].source!r}, key {left[0].key!r} (event "
                        f"{left[0].seq})" if left else "no further input")
            raise ReplayDivergence(
                f"{task.function.name} asked for the {what}, which the recorded run did not read; "
                f"the first recorded input not read yet: {expected}",
                what=what, expected=expected,
                remedy="replay with the recorded code, or allow extra reads: policy live or "
                "default")
        self.extra.append((kind, source, key, ordinal))
        if self.policy == "default" and source != "kernel":
            return self.default
        outer = begin_fetching(task)
        try:
            return fetch()
        finally:
            end_fetching(outer)

    def unread(self):
        """The recorded inputs that nobody asked for, in the order in which they were recorded."""
        cdef list left = []
        for (task, region, ordinal), (position, seq, rest) in self.inputs.items():
            array = b"\x97" + region + encode_tail(ordinal, task) + rest
            left.append((position, read_inputs(array, seq)[0]))
        left.sort(key=first_of)
        return [recorded for _, recorded in left]


def first_of(pair):
    return pair[0]


cdef bytes encode_tail(ordinal, task):
    from microkernel.values import encode
    return encode(ordinal) + encode(task)


cdef object rebuild_error(object described):
    """The exception that a source raised. Only classes that are loaded already are used, and looked
    up without a module's ``__getattr__``: a record must not import what its author names."""
    if (type(described) is not list or len(described) != 2 or type(described[0]) is not str
            or type(described[1]) is not list):
        raise ValueError("not a recorded error")
    name, arguments = described
    module, _, qualname = name.partition(":")
    cls = sys.modules.get(module)
    for part in qualname.split("."):
        cls = getattr(cls, "__dict__", {}).get(part)
    if isinstance(cls, type) and issubclass(cls, Exception):
        try:
            return cls(*arguments)
        except Exception:
            pass        # it wants other arguments than it keeps
    return RecordedError(f"{qualname}: " + ", ".join(map(str, arguments)), what=name,
                         expected="an exception class that is loaded and takes its arguments",
                         remedy="import the module that defines it before replaying")
