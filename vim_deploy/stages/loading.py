"""Load: an exported file or engine as a function of pictures."""

from __future__ import annotations

import dataclasses
from typing import Any

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.paths import StrPath, as_path
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import Runner, RunnerOptions
from vim_deploy.scene.pictures import Pictures, pictures
from vim_deploy.scene.records import DetectionOptions, RunOptions, RunResult, SceneOptions
from vim_deploy.specs import TensorSpec
from vim_deploy.stages.running import run_through


class Model:
    """An exported file or engine that stays open: call it with pictures; ``load`` makes one.

    Threads may call it at the same time. Processes open one each: it cannot be pickled.

    Attributes:
        path: of the file.
        info: what the file says about its model, the preparation of pictures included.
        runner: takes arrays as the model does: ``runner.run(array)`` gives the outputs by name.
    """

    def __init__(self, artifact: Artifact, runner: Runner, info: ExportInfo) -> None:
        self.path, self.runner, self.info = artifact.path, runner, info
        self._closed = False

    def __call__(
        self,
        images: Pictures,
        *,
        top: int | None = None,
        batch: int | None = None,
        scene: SceneOptions | None = None,
        detection: DetectionOptions | None = None,
    ) -> RunResult:
        """Classes and probabilities of pictures, areas of a segmentation, or detections.

        Args:
            images: one picture or several, as ``run`` takes them.
            top, batch, scene, detection: as in ``RunOptions``.

        Returns:
            One result for each picture, as ``run`` gives them.

        Raises:
            VimDeployError: as ``run``; for a picture without a result, too (``run`` notes it, and
                gives the results of the others); VIM-203 when the model is closed.
        """
        options = RunOptions(
            top=top,
            batch=batch,
            scene=scene or SceneOptions(),
            detection=detection or DetectionOptions(),
        )
        if self._closed:
            raise VimDeployError(
                "VIM-203", f"{self.path.name} is closed", fix="load it again, or close it later"
            )
        found = pictures(images, options.scene.folders)
        result = run_through(self.runner, self.info, self.path.name, found, options)
        result.require_complete()
        return result

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index; empty when the file holds none."""
        return self.info.labels

    @property
    def input(self) -> TensorSpec:
        """Name, dtype and shape of what the model takes; a str in the shape is a dynamic size."""
        return self.runner.input

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives, in order."""
        return self.runner.outputs

    def __repr__(self) -> str:
        return f"<{self.path.name} in {self.runner.name}>"

    def close(self) -> None:
        """Give back what it holds; a second call does nothing."""
        self._closed = True
        self.runner.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, at: object) -> None:
        self._closed = True
        self.runner.__exit__(kind, error, at)


def load(artifact: StrPath, **options: Any) -> Model:  # noqa: ANN401 - fields of RunnerOptions
    """Open an exported file or engine, to be called with pictures.

    Args:
        artifact: made by ``export`` or ``build_engine``; says how pictures are prepared.
        options: fields of ``RunnerOptions``: ``runtime``, ``provider``, ``ops``, ``threads``,
            ``plugin``, ``max_batch`` and the others.

    Raises:
        VimDeployError: VIM-201 (no such option), VIM-401, VIM-409 (a checkpoint, for instance, is
            to be exported first), VIM-410 (it does not say how pictures are prepared); errors of
            the runtime.
    """
    known = [entry.name for entry in dataclasses.fields(RunnerOptions)]
    for name in options:
        if name not in known:
            raise VimDeployError("VIM-201", f"no option {name!r}", fix=nearest(name, known))
    file = Artifact.open(as_path(artifact, "artifact"))
    runner = open_runner(file, RunnerOptions(**options))
    try:
        info = file.require_info()
    except VimDeployError:
        runner.close()
        raise
    file.forget_model()
    return Model(file, runner, info)
