"""Actors: objects whose methods are called by tasks, one after the other."""

from microkernel.actors.options import ActorOptions
from microkernel.actors.reference import ActorMethod, ActorRef

__all__ = ["ActorMethod", "ActorOptions", "ActorRef"]
