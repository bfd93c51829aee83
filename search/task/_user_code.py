"""The user's own code, by name: `module:function` (installed) or `file.py:function` (a path beside the task).

Only a task names code. A file is run once in a process, under a name that depends on its path alone, and is found in
`sys.modules` by it, so that classes defined there can be handed to other processes by value (`user_modules`).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import random
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import TaskError

_PREFIX = "paredown_user_"
_DIGEST = "__paredown_digest__"
_siblings: dict[str, tuple[str, ...]] = {}
"""Name of a file's module -> the modules beside it that it imported."""


def is_file_reference(reference: str) -> bool:
    return is_file(reference.rpartition(":")[0])


def is_file(source: str) -> bool:
    """Tell whether `source` is the path of a file, and not the name of a module."""
    return source.endswith(".py")


def resolve(reference: str, *, base_dir: Path, key: str) -> Any:
    """Object that `reference` names. `key` is its place in the task (`model.factory`), for the errors.

    Raises `TaskError` if the module cannot be imported or has no such attribute.
    """
    source, _, qualname = reference.rpartition(":")
    where = f"{key} = {reference!r}"
    in_file = is_file_reference(reference)
    module = load_file(base_dir / source, where=where) if in_file else load_module(source, where=where, example=":…")
    found: Any = module
    for name in qualname.split("."):
        if not hasattr(found, name):
            public = [other for other in vars(module) if not other.startswith("_") and callable(getattr(module, other))]
            raise TaskError(f"{where}: {source} has no {name!r}{_nearest(name, public)}")
        found = getattr(found, name)
    return found


def call(reference: str, arguments: dict[str, Any], *, base_dir: Path, key: str) -> Any:
    """Call the function that `reference` names, with the random generators seeded.

    An exception inside it becomes a `TaskError` that names the place and keeps the cause.
    """
    function = resolve(reference, base_dir=base_dir, key=key)
    where = f"{key} = {reference!r}"
    if not callable(function):
        raise TaskError(f"{where} must name a function or a class, got a {type(function).__name__}")
    _check_arguments(function, arguments, where=where, key=key)
    try:
        with repeatable():
            return function(**arguments)
    except (Exception, SystemExit) as error:  # a script's sys.exit must not end paredown with a code of its own
        raise TaskError(
            f"{where} raised {_told(error)}; correct it, or its arguments in [{_table(key)}.args]"
        ) from error


@contextmanager
def repeatable() -> Iterator[None]:
    """Give a factory that draws its initial weights the same random numbers in every process."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # a factory may use the global generators
    with torch.random.fork_rng(devices=[]):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.default_generator.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def load_file(path: Path, *, where: str) -> ModuleType:
    """Run a file as a module, once for each content. The script that is running now is not run a second time."""
    path = path.resolve()
    if not path.is_file():
        raise TaskError(f"{where}: there is no file {path}; a relative path starts at the task file's folder")
    main = sys.modules.get("__main__")
    if main is not None and getattr(main, "__file__", None) and Path(str(main.__file__)).resolve() == path:
        return main
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    name = f"{_PREFIX}{_identifier(path.stem)}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, _DIGEST, None) == digest:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{where}: {path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    setattr(module, _DIGEST, digest)
    if (folder := str(path.parent)) not in sys.path:
        sys.path.append(folder)  # so that the file can import its neighbours, also later, inside its functions
    before = set(sys.modules)
    sys.modules[name] = module
    try:
        code = compile(source, str(path), "exec")
        exec(code, module.__dict__)  # the user's own code, which the task names
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise TaskError(f"{where}: running {path} raised {_told(error)}") from error
    _siblings[name] = tuple(
        sorted(other for other in set(sys.modules) - before - {name} if _lies_in(other, path.parent))
    )
    return module


def loaded_user_modules() -> list[ModuleType]:
    """Modules that other processes may be unable to import: files named by tasks, and neighbours that they imported."""
    names = [name for name in sys.modules if name.startswith(_PREFIX)]
    names += [sibling for name in list(names) for sibling in _siblings.get(name, ())]
    return [sys.modules[name] for name in dict.fromkeys(names) if name in sys.modules]


def reference_to(function: Callable[..., Any]) -> str:
    """The name by which another process finds `function`. Raises `ValueError` for one without (a lambda, a closure)."""
    qualname = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", "") or "")
    if not qualname or "<" in qualname:
        raise ValueError(
            f"must be a function defined at the top of a module, got {qualname or type(function).__name__}; "
            "move it into a .py file"
        )
    file = getattr(module, "__file__", None)
    if module is None or (module.__name__ == "__main__" and file is None):
        raise ValueError(
            f"must be found by other processes, but {qualname} was typed into a session; move it into a .py file"
        )
    if module.__name__ == "__main__" or not _importable(module):
        return f"{Path(inspect.getsourcefile(function) or str(file)).resolve()}:{qualname}"
    return f"{module.__name__}:{qualname}"


def _importable(module: ModuleType) -> bool:
    """Tell whether a fresh process on the same `sys.path` would find the same file under the same name."""
    if module.__name__.startswith(_PREFIX):
        return False
    try:
        spec = importlib.util.find_spec(module.__name__)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin == getattr(module, "__file__", None)


def load_module(name: str, *, where: str, example: str = "") -> ModuleType:
    """Import an installed module. `example` ends the reference that the error suggests. Raises `TaskError`."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise TaskError(
                f"{where}: there is no module {error.name!r}; install it, or name a file beside the task: "
                f"'{name.split('.')[-1]}.py{example}'"
            ) from error
        raise TaskError(f"{where}: importing {name} raised {_told(error)}") from error
    except (Exception, SystemExit) as error:
        raise TaskError(f"{where}: importing {name} raised {_told(error)}") from error


def _check_arguments(function: Callable[..., Any], arguments: dict[str, Any], *, where: str, key: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none; the call itself will tell
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise TaskError(f"{where} cannot be called with [{_table(key)}.args]: {error}; it takes {signature}") from error


def _told(error: BaseException) -> str:
    """`ValueError: bad depth (nets.py line 12)`: one line, with the last place in the traceback that is the user's."""
    text = " ".join(str(error).split()) or "no message"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if not _is_library(frame.filename)] or frames
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    place = f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}"


def _is_library(filename: str) -> bool:
    return "site-packages" in Path(filename).parts or filename.startswith(("<", sysconfig.get_path("stdlib")))


def _nearest(name: str, known: list[str]) -> str:
    if close := get_close_matches(name, known, n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; it has {', '.join(sorted(known)[:8])}" if known else "; it defines nothing that can be called"


def _lies_in(module: str, folder: Path) -> bool:
    file = getattr(sys.modules[module], "__file__", None)
    if not file:
        return False
    path = Path(file).resolve()
    return path.is_relative_to(folder) and "site-packages" not in path.parts


def _identifier(stem: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in stem)


def _table(key: str) -> str:
    return key.split(".")[0]
