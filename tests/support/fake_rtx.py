"""Stand-ins for TensorRT-RTX: a plan with an honest header, and a build that needs no compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vim_deploy.runtimes.building.request import BuildJob
from vim_deploy.runtimes.tensorrt_rtx.capability import Capabilities

CAPABILITIES = Capabilities(
    version="1.7.1.116",
    compute_capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    default_compute_capabilities=("8.0", "8.6", "8.9", "12.0", "12.1"),
)
DEFAULT_WORD = 0x7E


def plan_bytes(payload: bytes = b"engine", word: int = DEFAULT_WORD) -> bytes:
    """A plan as TensorRT-RTX 1.7.1.116 begins it."""
    size = 36 + len(payload)
    return b"".join(
        (
            b"vtrt",
            bytes(4),
            (2).to_bytes(8, "little"),
            size.to_bytes(8, "little"),
            bytes((1, 7, 1, 116)),
            b"vtrt",
            word.to_bytes(4, "little"),
            payload,
        )
    )


def plan_word(job: BuildJob) -> int:
    """The header word for a job's compute capabilities."""
    if not job.named:
        return DEFAULT_WORD
    order = CAPABILITIES.compute_capabilities
    return sum(1 << order.index(capability) for capability in job.named)


def run_worker(job: BuildJob, progress: Callable[[Any], None] | None) -> dict[str, Any]:
    """In place of ``build_process.run_worker``: writes a plan and reports the asked tensors."""
    job.output.write_bytes(plan_bytes(word=plan_word(job)))
    first = next(iter(job.profiles[0].shapes.values())).min
    return {
        "layers": 3,
        "inputs": _tensors(job.inputs, first),
        "outputs": _tensors(job.outputs, first),
        "peak_memory_bytes": 1 << 20,
    }


def _tensors(types: Mapping[str, str], shape: tuple[int, ...]) -> list[dict[str, Any]]:
    sizes = [-1, *shape[1:]]
    return [{"name": name, "dtype": dtype, "shape": sizes} for name, dtype in types.items()]
