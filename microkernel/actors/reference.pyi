from typing import Any

from microkernel.task import Ref

class ActorRef:
    def __getattr__(self, name: str) -> ActorMethod: ...

class ActorMethod:
    def __call__(self, *args: Any, **kwargs: Any) -> Ref[Any]: ...
    def options(self, *, deadline: float | None = None) -> ActorMethod: ...
