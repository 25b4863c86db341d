"""``vim-deploy``: the command group, its errors and exit codes.

Commands are loaded when they are called, so that ``--help`` needs nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
import traceback

import click

import vim_deploy
from vim_deploy import interrupts
from vim_deploy.cli.output import print_error
from vim_deploy.errors import ExitCode, VimDeployError
from vim_deploy.log import configure

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
@click.option("-q", "--quiet", is_flag=True, help="Only errors and results.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of the log."
)
@click.version_option(vim_deploy.__version__, prog_name="vim-deploy")
@click.pass_context
def cli(ctx: click.Context, verbose: int, quiet: bool, log_format: str) -> None:
    """Deploy Vision Mamba (Vim) checkpoints: one ONNX file, proven, and an engine from it.

    Text for people goes to stderr; with --json a command prints one JSON object to stdout. Every
    option can be set by an environment variable VIM_DEPLOY_COMMAND_OPTION.
    """
    configure(-1 if quiet else min(verbose, 2), log_format)
    ctx.obj = {"verbose": verbose, "quiet": quiet}


def main(argv: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    interrupts.install()
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    traces = "-vv" in arguments or arguments.count("-v") > 1
    try:
        return _run(arguments, traces)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: unfinished outputs were not written", err=True)
        return int(ExitCode.INTERRUPTED)


def _run(arguments: list[str], traces: bool) -> int:
    try:
        # A command that ends early with a status of its own hands it over as the return value.
        status = cli.main(args=arguments, prog_name="vim-deploy", standalone_mode=False)
        if isinstance(status, int):
            return status
    except VimDeployError as error:
        # Libraries turn the KeyboardInterrupt that stops them into errors of their own.
        if interrupts.requested():
            raise KeyboardInterrupt from error
        print_error(error, as_json="--json" in arguments)
        if traces:
            traceback.print_exc()
        return int(error.exit_code)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return int(ExitCode.USAGE)
    except click.Abort:
        raise
    except BrokenPipeError:
        # The reader of our output went away, as in `vim-deploy inspect x.onnx | head`.
        sys.stderr.close()
        return int(ExitCode.OK)
    except Exception as error:
        if interrupts.requested():
            raise KeyboardInterrupt from error
        traceback.print_exc()
        click.echo("this is a defect of vim-deploy: please report the lines above", err=True)
        return int(ExitCode.UNEXPECTED)
    return int(ExitCode.OK)
