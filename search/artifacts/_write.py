"""The end of an export: config and manifest beside the model files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...evaluators import Measurement
from ...evaluators.runtimes import options_dict
from ..problem import describe_larger
from ..run import write_atomic
from ..space import config_of
from ..task import environment
from ._exporter import Exporter
from ._formats import is_for_elsewhere
from ._load_notes import LOAD, load_notes
from ._manifest import Artifact, write_manifest
from ._measure import ExportedModel

if TYPE_CHECKING:
    from ..task import Task


def write_artifact(
    exported: ExportedModel,
    exporter: Exporter,
    *,
    claims: Mapping[str, Measurement],
    point: str,
    facts: Mapping[str, Any],
    agreement: str = "",
    entropy: bool = False,
) -> Artifact:
    """Write config, manifest and the notes on loading beside the model files that are already in the folder.

    point      id of the trial, or "config"
    facts      of the process that measured the claims
    agreement  sentence on the parity with PyTorch
    entropy    whether the streams of the stored model are entropy-coded
    """
    from ..._version import __version__

    problem = exporter.problem
    if "file_bytes" in claims and exported.assignment:  # the original in a format is what it is
        larger = describe_larger(problem.context.model, claims["file_bytes"].value, exported.format)
        agreement = ". ".join(text for text in (agreement, larger) if text)
    artifact = Artifact(
        folder=exported.folder,
        format=exported.format,
        runtime=exported.runtime,
        main=exported.main.relative_to(exported.folder).as_posix(),
        model=problem.model_digest,
        point=point,
        config=config_of(exported.assignment),
        task=_portable_task(problem.task),
        data=exporter.split_facts,
        claims=claims,
        agreement=agreement,
        storage={"entropy": entropy},
        runtime_options=options_dict(exporter.options(exported.format)),
        machine=_machine() | dict(facts),
    )
    if not is_for_elsewhere(artifact.format):
        write_atomic(artifact.folder / LOAD, load_notes(artifact, problem.report.take(1).inputs))
    write_manifest(artifact, version=__version__)
    return artifact


def _portable_task(task: Task) -> dict[str, Any]:
    """The task with paths that start at its folder, so that the artifact is the same wherever that folder is."""
    data = task.to_dict()
    start = f"{task.base_dir.as_posix()}/"

    def shortened(name: Any) -> Any:
        if isinstance(name, list):
            return [shortened(each) for each in name]
        return name.removeprefix(start) if isinstance(name, str) else name

    places = {
        "model": ("factory", "weights", "huggingface", "export"), "data": ("factory",), "quality": ("metric",),
        "hardware": ("profile", "latency_table"),
    }  # fmt: skip
    for section, keys in places.items():
        if data[section] is not None:
            data[section] |= {key: shortened(data[section][key]) for key in keys}
    return data | {"plugins": shortened(data["plugins"])}


def _machine() -> dict[str, Any]:
    """Facts of the machine that measured the claims; without paths, for an artifact travels."""
    return {name: value for name, value in environment().items() if name != "executable"}
