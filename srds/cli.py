"""The ``srds`` command.

Commands are in ``srds.commands``, those of frameworks are found when they are asked for. Whatever
an error of one of our packages says is told in a few lines, with exit status 1; an exception that
nobody foresaw keeps its traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from srds.commands import demo, explain, log, perturb, replay, show, top, verify, why
from srds.commands.options import JSON_ASKED
from srds.rendering import describe, print_error, print_json

if TYPE_CHECKING:
    from microkernel.framework import Framework

__all__ = ["application", "main"]

INTERRUPTED = 130


class CommandGroup(TyperGroup):
    """Our commands and those of the frameworks that are installed, with one way to report errors.

    Frameworks are looked for only where their names matter: in the help, and for a name that is
    none of ours.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, ours first."""
        ours = super().list_commands(ctx)
        try:
            found = _frameworks()
        except Exception as error:  # whatever a broken plug-in raises, help must still be had
            print(f"srds: a framework cannot be loaded: {error}", file=sys.stderr)
            return ours
        return ours + sorted(name for name in found if name not in ours)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        ours = super().get_command(ctx, cmd_name)
        if ours is not None or ctx.resilient_parsing:
            return ours
        framework = _frameworks().get(cmd_name)
        return None if framework is None else _group(framework)

    def invoke(self, ctx: Any) -> Any:
        """Run a command and report how it fails."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Who read the output has gone; so must what is still buffered for it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            known = _told(error)
            if known is None:
                raise
            print_error(known)
            if ctx.meta.get(JSON_ASKED):
                print_json({"error": describe(known)})
            raise typer.Exit(1) from None


def application() -> typer.Typer:
    """The command line as a Typer application."""
    app = typer.Typer(
        name="srds",
        cls=CommandGroup,
        help="Decisions that can be replayed, explained and proved afterwards.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def srds() -> None:
        pass

    for command in (
        demo.demo,
        log.log,
        show.show,
        why.why,
        replay.replay,
        explain.explain,
        perturb.perturb,
        verify.verify,
        top.top,
    ):
        app.command()(command)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a sign gets a "?"
            stream.reconfigure(errors="replace")
    command = typer.main.get_command(application())
    command.main(args=list(arguments) if arguments is not None else None, prog_name="srds")


def _frameworks() -> dict[str, Framework]:
    from microkernel.framework import find_frameworks

    return {name: one for name, one in find_frameworks().items() if one.commands is not None}


def _group(framework: Framework) -> Any:
    """The command group of a framework, or, where its extra is missing, a command that says so."""
    missing = framework.missing()
    if missing is None:
        assert framework.commands is not None
        return typer.main.get_command(framework.commands())
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}

    @app.command(framework.name, help=missing, context_settings=anything)
    def refuse() -> None:
        from srds.errors import UsageError

        raise UsageError(
            missing,
            what=framework.name,
            expected=", ".join(framework.requires),
            remedy=f"pip install 'srds[{framework.extra}]'",
        )

    return typer.main.get_command(app)


def _told(error: Exception) -> Exception | None:
    """The error to tell the user about, or None when it is one that nobody foresaw."""
    from srds.errors import StoreError, reported

    if isinstance(error, reported()):
        return error
    if isinstance(error, PermissionError) and error.filename is not None:
        return StoreError(
            f"{error.filename} cannot be opened: {error.strerror}",
            what=str(error.filename),
            expected="a file that this user may open",
            remedy="run as the user who made the store",
        )
    return None
