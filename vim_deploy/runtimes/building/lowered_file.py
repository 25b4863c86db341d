"""The lowered graph as a file for the build process, gone when the build ends."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

from vim_deploy import interrupts
from vim_deploy.files import output_errors

#: protobuf cannot write a message of 2 GiB; weights of a larger model go into a file beside it.
_LARGEST_MESSAGE = (2 << 30) - (16 << 20)


@contextlib.contextmanager
def lowered_file(model: onnx.ModelProto, plan_path: Path) -> Iterator[Path]:
    """Write ``model`` beside ``plan_path`` under a hidden name; remove it at the end.

    The name is one that ``files.remove_leftovers`` of the plan knows, so that what a killed run
    leaves is removed by the next.

    Raises:
        VimDeployError: VIM-304, VIM-305.
    """
    made: list[Path] = []
    try:
        with output_errors(plan_path):
            path = _new_file(plan_path, made)
            if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST_MESSAGE:
                weights = _new_file(plan_path, made)
                # onnx appends to the file, which is empty.
                onnx.save_model(model, str(path), save_as_external_data=True, location=weights.name)
            else:
                path.write_bytes(model.SerializeToString())
        yield path
    finally:
        for item in made:
            item.unlink(missing_ok=True)


def _new_file(plan_path: Path, made: list[Path]) -> Path:
    """A new file, noted in ``made`` before an interrupt can come."""
    with interrupts.deferred():
        handle, name = tempfile.mkstemp(prefix=f".{plan_path.name}.", suffix=".part",
                                        dir=plan_path.parent)  # fmt: skip
        made.append(Path(name))
        os.close(handle)
    return Path(name)
