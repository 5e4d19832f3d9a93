"""The command line: one file per command, imported when it is called, and without torch at its top."""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import click

from seqdens.components import CORE, registry
from seqdens.distributed import first_alone_prints, is_silent, join, origin
from seqdens.errors import SeqdensError, printable
from seqdens.interrupts import Terminated, heeding_sigterm
from seqdens.registry import Provider
from seqdens.version import __version__

TRAINS = "run"  # the command of which `torchrun` starts several processes


def load_command(name: str) -> click.Command:
    """The command `name`; raises `SeqdensError` naming the distribution where it cannot be had."""
    provider = registry("commands").provider(name)
    command = provider.load()
    if not isinstance(command, click.Command):
        raise SeqdensError(f"{name!r} of commands ({provider.owner}) is {command!r}, but must be a click command.")
    return command


def aligned(rows: Iterable[Sequence[str]], indent: str = "") -> str:
    """Rows of equal length as lines of left-aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(indent + line.rstrip() for line in lines)


def summary(owners: Sequence[Provider]) -> str:
    """The line on a command in the help: the text of our own commands, the owner alone of an outsider's."""
    if len(owners) > 1:
        return f"(provided twice, by {' and '.join(owner.owner for owner in owners)})"
    if owners[0].owner != CORE:
        return f"(from {owners[0].owner})"
    try:
        return load_command(owners[0].name).get_short_help_str(limit=100)
    except SeqdensError as error:
        return str(error)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether `error` says so in numpy's way, or in torch's, which on a CPU is a `RuntimeError` like any other."""
    signs = ("allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def command_of(words: Sequence[str]) -> str:
    """The first of the words that is no option; options before the command take no value."""
    return next((word for word in words if not word.startswith("-")), "")


class Commands(click.Group):
    """The commands of seqdens, of installed packages and of code."""

    debug = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return registry("commands").names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in self.list_commands(ctx) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        commands = registry("commands")
        if args[0] not in commands.names() and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}; {commands.choices(args[0])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = registry("commands")
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, summary([owner for owner in commands.providers() if owner.name == name]))
                    for name in commands.names()
                ]
            )
        for failure in commands.failures:
            formatter.write_text(f"Warning: {failure}")

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Terminated:
            click.echo("Terminated.", err=True)
            ctx.exit(Terminated.status)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)

    def main(self, args: Sequence[str] | None = None, *others: Any, **settings: Any) -> Any:
        try:
            if command_of(sys.argv[1:] if args is None else args) == TRAINS:
                join()
            with heeding_sigterm(), first_alone_prints():
                return super().main(args, *others, **settings)
        except SeqdensError as error:
            self.fail(error, str(error), error.exit_status)
        except (MemoryError, RuntimeError) as error:
            if not is_lack_of_memory(error):
                raise
            self.fail(error, "there is not enough memory for this; make the model, the batch or the count smaller.")
        except OSError as error:
            place = f"{printable(str(error.filename))}: " if error.filename is not None else ""
            self.fail(error, f"{place}{error.strerror or error}.")

    def fail(self, error: BaseException, sentence: str, status: int = 1) -> NoReturn:
        """Ends the process with a sentence, unless another rank says it."""
        if self.debug:
            traceback.print_exc()
        if not is_silent(error):
            click.echo(f"Error: {origin()}{sentence}", err=True)
        sys.exit(status)


def _set_debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    Commands.debug = value


@click.group(cls=Commands)
@click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    envvar="SEQDENS_DEBUG",
    callback=_set_debug,
    help="Show the traceback of an error.",
)
@click.version_option(__version__, prog_name="seqdens")
def cli() -> None:
    """Train sequence density models and sample from them; `seqdens run handwriting` is a first try."""


def main() -> None:
    """The console command `seqdens`; of processes that `torchrun` started to train the first alone prints."""
    # no line of a program is of help here
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {printable(str(message))}\n"
    try:
        cli(prog_name="seqdens")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # from here on Ctrl-C ends the process, without a traceback
