"""The journal: append-only logs of events, their writer, readers, and verification."""

from timemachine.journal.frame import Event
from timemachine.journal.header import SegmentHeader
from timemachine.journal.journal import Journal
from timemachine.journal.opening import open_log
from timemachine.journal.reader import Reader
from timemachine.journal.recovery import Recovery
from timemachine.journal.report import Finding, LogReport, VerifyReport
from timemachine.journal.settings import JournalSettings
from timemachine.journal.verify import verify

__all__ = [
    "Event",
    "Finding",
    "Journal",
    "JournalSettings",
    "LogReport",
    "Reader",
    "Recovery",
    "SegmentHeader",
    "VerifyReport",
    "open_log",
    "verify",
]
