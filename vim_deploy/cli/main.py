"""``vim-deploy``: the command group, its errors and exit codes.

Commands are loaded when they are called, so that ``--help`` needs nothing heavy.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
import traceback
from typing import TypeGuard

import click
from click.shell_completion import CompletionItem

import vim_deploy
from vim_deploy import interrupts
from vim_deploy.cli import output, streams
from vim_deploy.errors import (
    ExitCode,
    NoSpaceError,
    OutputLocationError,
    VimDeployError,
    nearest,
    says_no_memory,
)
from vim_deploy.folders import no_temporary_place

#: Command name -> one line for the overview; the module is ``cmd_<name>`` with its ``command``.
COMMANDS = {
    "export": "Export a checkpoint to one self-describing ONNX file.",
    "build-engine": "Build an engine from an exported ONNX file.",
    "refit": "Give an engine the weights of another checkpoint.",
    "verify": "Compare an exported file or engine with PyTorch, another file or stored outputs.",
    "bench": "Measure latency, throughput and memory, with baselines beside them.",
    "compare": "Say whether one file may take another's place: answers, size, time, memory.",
    "run": "Run pictures through an exported file or engine and print the best classes.",
    "inspect": "Describe an ONNX file, engine, checkpoint, recipe or package.",
    "package": "Make a folder for Triton or a C++ program around an artifact, or check one.",
    "deploy": "Export, verify and build in one go.",
    "recipes": "List and show what can be exported by name.",
    "plugin": "Build, describe and test the TensorRT plugin library.",
    "doctor": "Say what this machine can do, and how to mend what it cannot.",
    "docs": "Show the pages that help texts and errors name, such as docs/plugin.md.",
}

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


class LazyGroup(click.Group):
    """Imports a command's module when the command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"vim_deploy.cli.cmd_{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        for each in (command, *(command.commands.values() if _is_group(command) else ())):
            each.params += [one for one in output.COMMON_OPTIONS if one not in each.params]
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        # Asked in the way of groups, each command would be imported to say its line.
        named = [
            CompletionItem(name, help=line)
            for name, line in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # ``help COMMAND`` is what COMMAND --help is.
        words = [*args[1:], "--help"] if args[0] == "help" else args
        return super().resolve_command(ctx, words)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The overview comes from COMMANDS: asking each command would import all of them.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _is_group(command: click.Command) -> TypeGuard[click.Group]:
    return isinstance(command, click.Group)


@click.group(
    cls=LazyGroup,
    params=list(output.COMMON_OPTIONS),
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "VIM_DEPLOY"},
)
@output.json_option
@click.version_option(vim_deploy.__version__, prog_name="vim-deploy")
def cli() -> None:
    """Deploy Vim, MambaVision and VMamba checkpoints: one ONNX file, proven, and an engine from it.

    Results go to standard output, notes and progress to standard error. With --json a command
    prints one JSON object to standard output. Every option can be set by an environment variable
    VIM_DEPLOY_COMMAND_OPTION. Pages that help texts name, such as docs/plugin.md, are shown by
    vim-deploy docs plugin.
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    interrupts.install()
    streams.prepare()
    status = run(sys.argv[1:] if argv is None else argv)
    # The last flush may have to wait for a reader, so an interrupt still ends it.
    try:
        status = streams.finish(status)
    except KeyboardInterrupt:
        os._exit(int(ExitCode.INTERRUPTED))
    interrupts.finished()
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    streams.begin()
    try:
        return _run(arguments)
    except (KeyboardInterrupt, click.Abort):
        if interrupts.without_threads():
            return _tell(no_memory("no thread can be started"))
        streams.note("interrupted: unfinished outputs were not written", level="error")
        return _without_code("interrupted", "", ExitCode.INTERRUPTED)
    finally:
        streams.begin()


def _run(arguments: list[str]) -> int:
    try:
        interrupts.check()
        streams.configure_log()
        # A command that ends early with a status of its own hands it over as the return value.
        status = cli.main(args=arguments, prog_name="vim-deploy", standalone_mode=False)
        return status if isinstance(status, int) else int(ExitCode.OK)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        raise
    except click.ClickException as error:
        # Of options that were not all read: those of the form may be among the others.
        output.take_form(arguments)
        return _show_help_or_tell(error)
    except streams.ReaderGoneError:
        return int(ExitCode.READER_GONE)
    except SystemExit:
        # click's way of saying that the reader of a text it printed itself has gone.
        if type(sys.stdout) is click.utils.PacifyFlushWrapper:
            return int(ExitCode.READER_GONE)
        raise
    except Exception as error:
        # Libraries turn the KeyboardInterrupt that stops them into errors of their own.
        if interrupts.requested():
            raise KeyboardInterrupt from error
        return _report(error)


def _show_help_or_tell(error: click.ClickException) -> int:
    if not isinstance(error, click.exceptions.NoArgsIsHelpError):
        return _tell(usage_error(error))
    try:
        streams.write_result(error.format_message())
    except streams.ReaderGoneError:
        return int(ExitCode.READER_GONE)
    except VimDeployError as unprintable:
        return _tell(unprintable)
    return int(ExitCode.OK)


def usage_error(error: click.ClickException) -> VimDeployError:
    """VIM-201 for a name, VIM-202 for all else that click finds wrong with a command line."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "vim-deploy"
    if isinstance(error, click.exceptions.NoSuchCommand) and context and _is_group(context.command):
        names = context.command.list_commands(context)
        return VimDeployError(
            "VIM-201",
            f"{path} has no command {error.command_name!r}",
            fix=nearest(error.command_name, names),
        )
    if isinstance(error, click.NoSuchOption):
        close = " or ".join(error.possibilities or ())
        return VimDeployError(
            "VIM-201",
            f"{path} has no option {error.option_name!r}",
            fix=f"did you mean {close}?" if close else f"{path} --help lists them",
        )
    return VimDeployError(
        "VIM-202",
        error.format_message().rstrip("."),
        why=context.get_usage() if context else "",
        fix=f"{path} --help",
    )


def _report(error: Exception) -> int:
    """Print what went wrong; the exit code."""
    known = error if isinstance(error, VimDeployError) else None
    if isinstance(error, OSError) and _met_by_click(error):
        known = streams.output_error(error)
    known = known or of_the_machine(error)
    if known is None or output.wants_traces():
        streams.note("".join(traceback.format_exception(error)).rstrip("\n"), level="error")
    if known is not None:
        return _tell(known)
    fix = "this is a defect of vim-deploy: please report the lines above"
    streams.note(fix, level="error")
    return _without_code(f"{type(error).__name__}: {error}", fix, ExitCode.UNEXPECTED)


def _tell(error: VimDeployError) -> int:
    """Print a coded error; the exit code."""
    try:
        output.print_error(error)
    except streams.ReaderGoneError:
        return int(ExitCode.READER_GONE)
    except VimDeployError as unprintable:
        # Said on standard error already; standard output takes nothing, not even this error.
        if not isinstance(error, OutputLocationError | NoSpaceError):
            output.print_error(unprintable)
    return int(error.exit_code)


def _without_code(message: str, fix: str, status: ExitCode) -> int:
    """With --json the object of an end that has no code; the exit code, come what may."""
    # What cannot be printed has no code that says more than this end.
    texts = {"code": "", "title": message, "message": message, "why": "", "fix": fix}
    with contextlib.suppress(VimDeployError, streams.ReaderGoneError):
        output.print_json({"error": {**texts, "exit_code": int(status)}})
    return int(status)


def _met_by_click(error: OSError) -> bool:
    """Whether click met it while printing: help texts and versions are results, too."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith("click.")


def of_the_machine(error: Exception) -> VimDeployError | None:
    """The coded error for a failure of the machine; None when it is none.

    Readers and writers turn what they can meet into coded errors that know the file and the remedy.
    What is left comes from anywhere: a disk that fills while a library keeps a cache, a folder that
    another user has closed, memory or threads that are not to be had.
    """
    if isinstance(error, OSError):
        return _of_system(error)
    if says_no_memory(error):
        return no_memory(f"{type(error).__name__}: {error}".strip().splitlines()[0])
    return None


def no_memory(why: str) -> VimDeployError:
    """VIM-311 for a process that was refused memory or a thread."""
    return VimDeployError(
        "VIM-311",
        "not enough memory, or no more threads",
        why=why,
        fix="give the process more (ulimit -v, ulimit -u, the container's limit), or ask for less: "
        "a smaller batch, image or model",
    )


def _of_system(error: OSError) -> VimDeployError:
    place = f": {error.filename}" if error.filename is not None else ""
    if isinstance(error, FileNotFoundError) and "usable temporary directory" in str(error):
        return no_temporary_place(error)
    said = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        return VimDeployError(
            "VIM-305",
            f"no space left{place}",
            why=said,
            fix="free some space; outputs are written whole or not at all",
        )
    if error.errno == errno.ENOMEM:
        return VimDeployError(
            "VIM-311", f"not enough memory{place}", why=said, fix="give the process more memory"
        )
    return VimDeployError(
        "VIM-312",
        f"the system refused an operation{place}",
        why=said,
        fix="raise the limit of open files (ulimit -n)"
        if error.errno in _TOO_MANY
        else "check that the place exists and that this user may read and write it",
    )
