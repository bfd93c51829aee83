"""What every test has: real assets or a stated reason to skip, properties without deadlines, no telemetry."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("PAREDOWN_ASSETS", ROOT.parent / "shared" / "assets")).resolve()

# Read by Ray, MLflow and OpenVINO when they are imported, in this process and in those that tests start.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DISABLE_IMPORT_WARNING="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    HF_HUB_OFFLINE="1",
)
for unwanted in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "RAY_ADDRESS", "COLUMNS"):
    os.environ.pop(unwanted, None)  # a test must not write to a server of the person who runs it

settings.register_profile(
    "paredown",
    deadline=None,  # wall time is no property of the code, and the machine may be shared
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("paredown")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = None if ASSETS.is_dir() else f"needs the real weights and data: no folder {ASSETS}, set PAREDOWN_ASSETS"
    saturates = _why_integers_differ()
    no_gpu = _why_no_gpu() if any("cuda" in item.keywords for item in items) else None
    for item in items:
        if missing and "assets" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=missing))
        if no_gpu and "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=no_gpu))
        if saturates and "vnni" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=saturates))


@pytest.fixture(scope="session", autouse=True)
def cpu_of_the_default_profiles() -> Iterator[None]:
    """A run notes which instruction sets its profile assumes and this CPU lacks; no test shall hang on that."""
    from paredown.search.task import _machine as _environment

    found = _environment._cpuinfo

    def with_them() -> dict[str, str]:
        facts = found()
        return facts | {"flags": f"{facts['flags']} avx2 avx512f avx512_vnni"} if "flags" in facts else facts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_environment, "_cpuinfo", with_them)
        yield


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real weights and data. A test that asks for it is marked `assets` too."""
    if not ASSETS.is_dir():
        pytest.skip(f"needs the real weights and data: no folder {ASSETS}, set PAREDOWN_ASSETS")
    return ASSETS


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return ROOT


def _why_integers_differ() -> str | None:
    """Without VNNI ONNX Runtime and OpenVINO add two products of 8 bits in 16, which saturates."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else ""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return "integer kernels saturate on this processor: it has no VNNI" if is_x86 and "vnni" not in flags else None


def _why_no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "needs a GPU that torch can use"
