"""From a plan on disk to an engine in TensorRT's hands: passport, plugin library, deserialising."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.engine_file import TENSORRT_RTX, TITLES, describe_gpus
from vim_deploy.artifact.passport import (
    Machine,
    Passport,
    check_passport,
    is_version_compatible,
)
from vim_deploy.cuda.runtime import Cuda
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.describe import describe_plugin
from vim_deploy.runtimes import runtime_named
from vim_deploy.runtimes.tensorrt.engine import LoadedEngine
from vim_deploy.runtimes.tensorrt.plugins import load_plugins


def cuda_for(engine: Artifact) -> Cuda:
    """The GPU to run the engine on.

    Raises:
        VimDeployError: VIM-301 (no bindings), VIM-302 (no GPU), which say for an engine of
            TensorRT-RTX which GPUs it is for.
    """
    try:
        return Cuda()
    except VimDeployError as error:
        if engine.runtime != TENSORRT_RTX:
            raise
        gpus = describe_gpus(*engine.gpus)
        raise VimDeployError(
            error.code,
            f"{engine.name} is an engine of TensorRT-RTX, which runs on RTX GPUs only"
            + (f" ({gpus})" if engine.gpus[0] else ""),
            why=f"{error.message}: {error.why}".rstrip(": "),
            fix=error.fix,
        ) from error


def open_engine(
    engine: Artifact,
    cuda: Cuda,
    plugin: Path | None,
    *,
    allow_plan_code: bool,
    batch: int | None,
    module: ModuleType | None,
) -> tuple[LoadedEngine, str, tuple[str, ...]]:
    """Check the engine against the machine, load its plugins, then deserialise it.

    Args:
        engine, cuda: what runs, and where.
        plugin, allow_plan_code, batch, module: as for ``TrtRunner``.

    Returns:
        The engine, the runtime's name for people, and what is to be said about either.

    Raises:
        VimDeployError: as ``passport.check_passport``, ``plugins.load_plugins`` and
            ``LoadedEngine``; VIM-203 for code in the plan that was not allowed, or that is not
            there.
    """
    runtime = engine.runtime
    module = module or runtime_named(runtime).load()
    gpu = cuda.info()
    machine = Machine(runtime, str(module.__version__), gpu.compute_capability, gpu.name)
    passport = check_passport(engine, machine, plugin=plugin, batch=batch)
    _check_plan_code(engine, passport, allow_plan_code)
    if passport.plugin is not None:
        _load_library(module, runtime, passport.plugin)
    try:
        data = engine.path.read_bytes()
    except OSError as error:
        raise VimDeployError(
            "VIM-413",
            f"{engine.path} is not a readable engine",
            why=str(error),
            fix="check the file",
        ) from error
    loaded = LoadedEngine(module, data, engine.name, allow_plan_code=allow_plan_code)
    name = f"{TITLES[runtime]} {module.__version__} {gpu.name}"
    return loaded, name, (*passport.notes, *loaded.notes)


def _load_library(module: ModuleType, runtime: str, path: Path) -> None:
    if runtime == TENSORRT_RTX:
        raise VimDeployError(
            "VIM-203",
            "an engine of TensorRT-RTX takes no plugin library",
            why="its operators are all compiled in",
            fix="leave --plugin away",
        )
    load_plugins(module, describe_plugin(path))


def _check_plan_code(engine: Artifact, passport: Passport, allowed: bool) -> None:
    """Code inside a plan runs only when the record says it is there, and the user allows it."""
    record = engine.record
    holds_code = record is not None and is_version_compatible(record)
    if allowed and not holds_code:
        raise VimDeployError(
            "VIM-203",
            f"{engine.name} is not known to hold code of its own",
            why="it has no record" if record is None else "it was not built version-compatible",
            fix="leave --allow-plan-code away",
        )
    plugin = None if record is None else record.plugin
    if plugin is not None and plugin.embedded and passport.plugin is None and not allowed:
        raise VimDeployError(
            "VIM-203",
            f"{engine.name} carries its plugin library, and running that was not allowed",
            why="loading the engine runs the library's code",
            fix="--allow-plan-code if you trust whoever made the file, or --plugin PATH to use a "
            "library of yours",
        )
