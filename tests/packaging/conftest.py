"""Copies of the checkout, wheels built from them, and environments to install those in, all outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

EXTRAS = (
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "plotly",
    "transformers",
    "torch_pruning",
    "pytest",
    "hypothesis",
    "moocore",
)
"""Import names that the core install does not bring."""

_HIDE_EXTRAS = f"""\
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (an extra, not in the core install)", name=name)

sys.meta_path.insert(0, Hidden())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment of its own that borrows this one's dependencies, so that torch is not installed again."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder), "platbase": str(self.folder)}))

    @classmethod
    def create(cls, folder: Path, wheel: Path, *, extras: bool) -> Environment:
        """Installs the wheel before the dependencies come in sight, lest pip sees an editable paredown among them."""
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        environment = cls(folder=folder)
        options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
        install = [sys.executable, "-m", "pip", "--python", str(environment.python), "install", *options, str(wheel)]
        subprocess.run(install, check=True, capture_output=True, text=True, env=clean_environ())
        # A path that a .pth file adds has its own .pth files ignored, an editable paredown's too.
        (environment.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        if not extras:
            (environment.site_packages / "sitecustomize.py").write_text(_HIDE_EXTRAS)
        return environment

    def run(self, *arguments: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=cwd,
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )


def clean_environ() -> dict[str, str]:
    """This process's environment without what could lead an interpreter back to the checkout."""
    return {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }


def build(source: Path, kind: str, out: Path) -> Path:
    """Runs the build backend in a process of its own, with this environment's setuptools; returns the file built."""
    script = "import build, sys; print(build.ProjectBuilder(sys.argv[1]).build(sys.argv[2], sys.argv[3]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(source), kind, str(out)],
        capture_output=True, text=True, env=clean_environ(), timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git knows or would know of this checkout: symlinks stay symlinks."""
    listing = [
        "git",
        "-c",
        f"safe.directory={repository}",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    found = subprocess.run(listing, cwd=repository, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip(f"copies what git lists, and this is no git checkout: {found.stderr.strip()}")
    copy = tmp_path_factory.mktemp("checkout")
    for name in filter(None, found.stdout.split("\0")):
        source, target = repository / name, copy / name
        if os.path.lexists(source):  # a file deleted but not yet committed is listed too
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return copy


@pytest.fixture(scope="session")
def checkout_without_symlinks(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as git writes it with core.symlinks=false: each link is a text file that holds its target."""
    copy = tmp_path_factory.mktemp("no_symlinks") / "checkout"
    shutil.copytree(checkout, copy, symlinks=True)
    links = [path for path in copy.rglob("*") if path.is_symlink()]
    assert {link.name for link in links} >= {"search", "compressors", "evaluators", "hardware_profiles"}
    for link in links:
        target = os.readlink(link)
        link.unlink()
        link.write_text(target)
    return copy


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel and its core dependencies; the extras cannot be imported."""
    return Environment.create(tmp_path_factory.mktemp("installed") / "venv", wheel, extras=False)
