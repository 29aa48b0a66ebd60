"""The decision app: what an author writes, opened over a store.

An ``App`` is a name, its decision functions and its resources (models, tables: whatever a decision
needs and does not get as an argument). ``with app.open(path):`` opens kernel, journal and catalogue
together and closes them together; between the two its functions make recorded decisions.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from microkernel import Kernel, KernelSettings
from srds.decision_function import DecisionFunction
from srds.errors import AppError
from srds.store import Store

if TYPE_CHECKING:
    from ground import Ground
    from srds.explaining import ExplanationPlan
    from timemachine.journal import Journal, JournalSettings
    from timemachine.replay import Replayer

__all__ = ["App", "OpenApp", "Resource"]

P = ParamSpec("P")
R = TypeVar("R")


class Resource:
    """What decisions use and do not record: made once for each set of catalogue versions.

    Made by ``@app.resource`` from a function of the open app; calling it in a decision returns the
    one that belongs to the versions that the decision rests on, in a replay those of the record.
    """

    def __init__(self, app: App, make: Callable[[OpenApp], Any]) -> None:
        self.app = app
        self.make = make
        self.__doc__ = make.__doc__

    def __call__(self) -> Any:
        return self.app.now.resource(self)


class App:
    """A decision app.

    >>> app = App("doorman")
    >>> @app.decision(subject="name")
    ... def admit(name):
    ...     return name.islower()
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, app.open(folder):
    ...     admit("ada")
    True
    """

    def __init__(self, name: str) -> None:
        if not name:
            raise AppError(
                "an app needs a name", what="name", expected="a text", remedy="App('loans')"
            )
        self.name = name
        self.functions: dict[str, DecisionFunction[Any, Any]] = {}
        self.plans: dict[str, Callable[..., ExplanationPlan]] = {}
        self._open: OpenApp | None = None

    @overload
    def decision(self, function: Callable[P, R]) -> DecisionFunction[P, R]: ...
    @overload
    def decision(
        self, *, subject: str | None = None, policy: str | None = None
    ) -> Callable[[Callable[P, R]], DecisionFunction[P, R]]: ...
    def decision(
        self,
        function: Callable[..., Any] | None = None,
        *,
        subject: str | None = None,
        policy: str | None = None,
    ) -> Any:
        """Make a function a decision: each call is recorded and can be replayed.

        ``subject`` names the parameter that says whom the decision is about, ``policy`` the rule
        that it is made under. The function may be a coroutine function. Its arguments and its
        answer are plain data; what else it needs it reads through ``srds.read`` or from a
        ``resource``.
        """

        def wrap(function: Callable[..., Any]) -> DecisionFunction[Any, Any]:
            wrapped = DecisionFunction(self, function, subject, policy)
            self.functions[function.__qualname__] = wrapped
            return wrapped

        return wrap if function is None else wrap(function)

    def resource(self, make: Callable[[OpenApp], Any]) -> Resource:
        """Declare what decisions use and do not record, as a function that makes it."""
        return Resource(self, make)

    def explained_by(
        self, function: DecisionFunction[Any, Any]
    ) -> Callable[[Callable[..., ExplanationPlan]], Callable[..., ExplanationPlan]]:
        """Declare how decisions of ``function`` are explained: a function of a decision's inputs
        that returns an ``ExplanationPlan``."""

        def wrap(plan: Callable[..., ExplanationPlan]) -> Callable[..., ExplanationPlan]:
            self.plans[function.function.__qualname__] = plan
            return plan

        return wrap

    @contextmanager
    def open(
        self,
        store: str | os.PathLike[str] | Store | None = None,
        *,
        recording: bool = True,
        settings: KernelSettings | None = None,
        journal: JournalSettings | None = None,
    ) -> Iterator[OpenApp]:
        """Open the app over a store (made if there is none; default ``$SRDS_STORE`` or ``.srds``).

        ``recording=False`` opens it for replays: nothing is written, and the store must exist.
        """
        if self._open is not None:
            raise AppError(
                f"the app {self.name!r} is open already",
                what=self.name,
                expected="one opening at a time in a process",
                remedy="use the one that is open: app.now",
            )
        if not isinstance(store, Store):
            store = Store.make(store) if recording else Store.open(store)
        opened = OpenApp(self, store, recording, settings, journal)
        self._open = opened
        failed = True
        try:
            yield opened
            failed = False
        finally:
            self._open = None
            opened.close(cancel=failed)

    def resolve(self, name: str) -> Callable[..., Any]:
        """The function of a recorded decision: ``module:function``, as its record names it.

        Only this app's decisions are found: a record does not get to choose what is run. A script
        that was run by itself records the module ``__main__``, whatever it is imported as later.
        Raises ``AppError``.
        """
        module, _, qualname = name.partition(":")
        found = self.functions.get(qualname)
        if found is None or module not in (found.function.__module__, "__main__"):
            raise AppError(
                f"{name} is no decision of the app {self.name!r}",
                what=name,
                expected="one of "
                + ", ".join(f"{f.function.__module__}:{q}" for q, f in self.functions.items()),
                remedy="name the app that made the decision",
            )
        function: Callable[..., Any] = found.function
        return function

    @property
    def now(self) -> OpenApp:
        """The app as it is open now; raises ``AppError`` when it is not."""
        if self._open is None:
            raise AppError(
                f"the app {self.name!r} is not open",
                what=self.name,
                expected="a decision inside: with app.open():",
                remedy="open the app before the first decision",
            )
        return self._open

    @property
    def kernel(self) -> Kernel:
        """The kernel of the open app."""
        return self.now.kernel

    @property
    def versions(self) -> tuple[str, ...]:
        """The catalogue versions that decisions rest on at this moment."""
        return self.now.versions


class OpenApp:
    """An app over its store: ``store``, ``kernel``, ``journal`` (None for replays), ``ground``."""

    def __init__(
        self,
        app: App,
        store: Store,
        recording: bool,
        settings: KernelSettings | None,
        journal_settings: JournalSettings | None,
    ) -> None:
        self.app = app
        self.store = store
        self.recording = recording
        self.journal: Journal | None = None
        self._ground: Ground | None = None
        self._versions: ContextVar[tuple[str, ...]] = ContextVar("srds.versions", default=())
        self._deployed: tuple[str, ...] = ()
        self._resources: dict[tuple[Resource, tuple[str, ...]], Any] = {}
        self._provided: dict[Resource, Any] = {}
        # One thread makes a resource; it may need another one for that.
        self._making = threading.RLock()
        if not recording:
            self.kernel = Kernel(settings)
            return
        from timemachine.fingerprint import fingerprint
        from timemachine.journal import open_log

        self.journal = open_log(
            store.journal,
            store.signing_key(),
            settings=journal_settings,
            fingerprint=fingerprint(),
        )
        self.kernel = Kernel(settings, sink=self.journal, run_id=self.journal.run_id)

    @property
    def ground(self) -> Ground:
        """The store's catalogue, opened on first use, for the user who runs the program."""
        if self._ground is None:
            append = self.kernel.events.append if self.recording else None
            behind = self.recording and (self._recovered or not self.store.ground.exists())
            ground = self.store.catalogue(append)
            try:
                if behind:
                    # A writer died, and may have journalled changes that it did not commit; or the
                    # database was deleted, and is made again: the journal is the truth.
                    changes = self.store.reader().events(kinds=("ground.change",))
                    ground.catch_up(event.payload for event in changes)
            except BaseException:
                ground.close()
                raise
            self._ground = ground
        return self._ground

    @property
    def _recovered(self) -> bool:
        return self.journal is not None and self.journal.recovery.ring != "none"

    @property
    def versions(self) -> tuple[str, ...]:
        """The catalogue versions (hashes) that decisions rest on here and now."""
        return self._versions.get() or self._deployed

    def deploy(self, versions: Sequence[str]) -> None:
        """From now on decisions rest on these catalogue versions, and say so in their records."""
        self._deployed = tuple(versions)

    @contextmanager
    def resting_on(self, versions: Sequence[str]) -> Iterator[None]:
        """Within the block, decisions and replays rest on these versions instead."""
        token = self._versions.set(tuple(versions))
        try:
            yield
        finally:
            self._versions.reset(token)

    def resource(self, resource: Resource) -> Any:
        """The resource for the versions in force; made on first use."""
        if resource in self._provided:
            return self._provided[resource]
        key = (resource, self.versions)
        with self._making:
            if key not in self._resources:
                from microkernel import boundary

                # Loading a model is no input of the decision that happens to need it first.
                self._resources[key] = boundary.outside(lambda: resource.make(self))
            return self._resources[key]

    def provide(self, resource: Resource, value: Any) -> None:
        """Use ``value`` as a resource while the app is open, whatever the versions."""
        self._provided[resource] = value

    def replayer(self) -> Replayer:
        """A replayer of this app's decisions, in this process."""
        from timemachine.replay import Replayer

        return Replayer(self.kernel, self.app.resolve)

    def close(self, *, cancel: bool = False) -> None:
        """Finish what runs, then close catalogue and journal."""
        try:
            self.kernel.close(cancel=cancel)
        finally:
            try:
                if self._ground is None and self._recovered and self.store.ground.exists():
                    _ = self.ground  # the next opening will not know of the recovery
                if self._ground is not None:
                    self._ground.close()
            finally:
                if self.journal is not None:
                    self.journal.close()
