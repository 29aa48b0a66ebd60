"""Replay: a recorded decision is read back, run again and compared with what it was."""

from timemachine.replay.outcome import Outcome, Replay
from timemachine.replay.record import DecisionRecord, Records, TaskRecord
from timemachine.replay.replayer import Replayer

__all__ = ["DecisionRecord", "Outcome", "Records", "Replay", "Replayer", "TaskRecord"]
