"""``vim-deploy``: the command group, its errors and exit codes.

Commands are loaded when they are called, so that ``--help`` needs nothing heavy.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import traceback

import click

import vim_deploy
from vim_deploy import interrupts
from vim_deploy.cli import output
from vim_deploy.errors import (
    ExitCode,
    NoSpaceError,
    OutputLocationError,
    VimDeployError,
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
    "run": "Run pictures through an exported file or engine and print the best classes.",
    "inspect": "Describe an ONNX file, engine, checkpoint, recipe or package.",
    "package": "Make a folder for Triton or a C++ program around an artifact, or check one.",
    "deploy": "Export, verify and build in one go.",
    "recipes": "List and show what can be exported by name.",
    "plugin": "Build, describe and test the TensorRT plugin library.",
    "doctor": "Say what this machine can do, and how to mend what it cannot.",
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
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The overview comes from COMMANDS: asking each command would import all of them.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "VIM_DEPLOY"},
)
@click.option("-v", "--verbose", count=True, help="Say more; -vv also prints stack traces.")
@click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of the log."
)
@click.version_option(vim_deploy.__version__, prog_name="vim-deploy")
@click.pass_context
def cli(ctx: click.Context, verbose: int, quiet: bool, log_format: str) -> None:
    """Deploy Vision Mamba (Vim) checkpoints: one ONNX file, proven, and an engine from it.

    Results go to standard output, notes and progress to standard error. With --json a command
    prints one JSON object to standard output. Every option can be set by an environment variable
    VIM_DEPLOY_COMMAND_OPTION.
    """
    output.configure_log(-1 if quiet else min(verbose, 2), log_format)
    if verbose > 1:
        ctx.obj["traces"] = True


def main(argv: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    interrupts.install()
    output.prepare()
    status = run(sys.argv[1:] if argv is None else argv)
    # The last flush may have to wait for a reader, so an interrupt still ends it.
    try:
        status = output.finish(status)
    except KeyboardInterrupt:
        os._exit(int(ExitCode.INTERRUPTED))
    interrupts.finished()
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    try:
        return _run(arguments)
    except (KeyboardInterrupt, click.Abort):
        if interrupts.without_threads():
            error = no_memory("no thread can be started")
            output.print_error(error, as_json=False)
            return int(error.exit_code)
        output.note("interrupted: unfinished outputs were not written")
        return int(ExitCode.INTERRUPTED)


def _run(arguments: list[str]) -> int:
    # Filled by the options as click reads them: they can also come from the environment.
    asked: dict[str, bool] = {}
    try:
        interrupts.check()
        # A command that ends early with a status of its own hands it over as the return value.
        status = cli.main(args=arguments, prog_name="vim-deploy", standalone_mode=False, obj=asked)
        return status if isinstance(status, int) else int(ExitCode.OK)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        raise
    except click.ClickException as error:
        text = io.StringIO()
        error.show(file=text)
        output.note(text.getvalue().rstrip("\n"))
        return int(ExitCode.USAGE)
    except output.ReaderGoneError:
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
        return _report(error, asked)


def _report(error: Exception, asked: dict[str, bool]) -> int:
    """Print what went wrong; the exit code. ``asked`` says ``as_json`` and ``traces``."""
    known = error if isinstance(error, VimDeployError) else None
    if isinstance(error, OSError) and _met_by_click(error):
        known = output.output_error(error)
    known = known or of_the_machine(error)
    if known is None or asked.get("traces"):
        output.note("".join(traceback.format_exception(error)).rstrip("\n"))
    if known is None:
        output.note("this is a defect of vim-deploy: please report the lines above")
        return int(ExitCode.UNEXPECTED)
    try:
        output.print_error(known, as_json=asked.get("as_json", False))
    except output.ReaderGoneError:
        return int(ExitCode.READER_GONE)
    except VimDeployError as unprintable:
        # Said on standard error already; standard output takes nothing, not even this error.
        if not isinstance(known, OutputLocationError | NoSpaceError):
            output.print_error(unprintable, as_json=False)
    return int(known.exit_code)


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
