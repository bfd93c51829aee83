"""A Hugging Face model whose weights all come from its folder: none is drawn at random, none left out unsaid."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MissingExtra, TaskError
from ._message_parts import one_line, shape_text, some
from ._user_code import repeatable
from ._weight_files import check_folder, files_instead

if TYPE_CHECKING:
    from torch import nn

_KEY = "model.huggingface"
_LOGGER = "transformers.modeling_utils"
_REPORTS = ("LOAD REPORT", "Some weights of", "seem corrupted")
"""Words of the messages of transformers that say less clearly what is refused here."""
_UNMERGED = re.compile(r"^(.+?)\s*\|\s*(?:\x1b\[\d+m)?CONVERSION", re.MULTILINE)


def load_huggingface(name: str, folder: Path, arguments: Mapping[str, Any], *, unused: Sequence[str] = ()) -> nn.Module:
    """The model of `folder`, or of the hub's repository `name` where there is no such folder, in its config's class.

    `unused` are globs of weights that the class may leave out. Raises `TaskError`: no such folder, weights that are
    damaged, missing, unexpected or of another shape (all named); `MissingExtra` without transformers.
    """
    try:
        import transformers  # type: ignore[import-not-found,unused-ignore]  # an extra, often not installed
    except ImportError as error:
        raise MissingExtra(
            "model.huggingface needs transformers, which is not installed; run: pip install 'paredown[huggingface]'"
        ) from error
    if "trust_remote_code" in arguments:
        raise TaskError(
            "model.args has trust_remote_code, which runs code from the model's repository; "
            "write a factory that does what you want to run"
        )
    integers = _check_place(name, folder, arguments)
    source = str(folder) if folder.is_dir() else name
    asked = {"use_safetensors": True, **arguments, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with _reports_of_transformers() as reports:
        try:
            config = transformers.AutoConfig.from_pretrained(source)
            architecture = (config.architectures or ["AutoModel"])[0]
            model_class = getattr(transformers, architecture, transformers.AutoModel)
            with (
                repeatable()
            ):  # transformers draws some weights itself where the class declares that they may be absent
                model, loading = model_class.from_pretrained(source, **asked)
        except Exception as error:
            if merged := _UNMERGED.findall("\n".join(reports)):
                raise TaskError(
                    f"{_KEY} = {name!r}: the weights for {some(merged)} are incomplete or differ in shape, so that "
                    f"transformers cannot merge them; fetch all files again, or write them with save_pretrained"
                ) from error
            raise TaskError(
                f"{_KEY} = {name!r} cannot be loaded: {type(error).__name__}: {one_line(error)}"
                f"{_instead(folder, arguments, error)}"
            ) from error
    faults = _faults(loading, unused)
    if getattr(config, "quantization_config", None) is None:
        faults |= _codes(model, integers)
    if faults:
        known = hasattr(transformers, architecture)
        raise TaskError(
            f"{_KEY} = {name!r}: its weights do not fit {type(model).__name__}: {'; '.join(faults.values())}; "
            f"{_advice(faults, None if known else architecture)}"
        )
    loaded: nn.Module = model
    return loaded


def _check_place(name: str, folder: Path, arguments: Mapping[str, Any]) -> frozenset[str]:
    """Refuse a folder that cannot be read; return the keys of its tensors of integers."""
    if folder.is_file():
        raise TaskError(f"{_KEY} must be a folder with config.json, got the file {folder}; name its folder")
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise TaskError(f"{_KEY}: there is no folder {folder}; a relative path starts at the task file's folder")
        return frozenset()
    if not arguments.get("use_safetensors", True) or "gguf_file" in arguments:
        return frozenset()
    return check_folder(_weights_folder(folder, arguments), variant=arguments.get("variant"), key=_KEY)


def _weights_folder(folder: Path, arguments: Mapping[str, Any]) -> Path:
    return folder / str(arguments.get("subfolder", ""))


def _instead(folder: Path, arguments: Mapping[str, Any], error: Exception) -> str:
    is_missing = folder.is_dir() and isinstance(error, OSError) and "no file named" in str(error)
    return f" {files_instead(_weights_folder(folder, arguments))}" if is_missing else ""


def _codes(model: nn.Module, integers: Collection[str]) -> dict[str, str]:
    """Weights that the folder stores as integers and the model takes for numbers: codes whose scale nobody knows."""
    expected = model.state_dict()
    codes = sorted(key for key in integers if key in expected and expected[key].is_floating_point())
    return {"codes": f"integers in the folder for {some(codes)}"} if codes else {}


def _faults(loading: Mapping[str, Collection[Any]], unused: Sequence[str]) -> dict[str, str]:
    """Kind of fault -> text. Tied weights and what the class declares as ignorable are not in transformers' report."""
    missing = sorted(key for key in loading["missing_keys"] if not key.endswith("num_batches_tracked"))
    unexpected = sorted(key for key in loading["unexpected_keys"] if not any(fnmatchcase(key, glob) for glob in unused))
    mismatched = [
        f"{key} is {shape_text(stored)} in the folder and {shape_text(expected)} in the model"
        for key, stored, expected in sorted(loading["mismatched_keys"])
    ]
    faults = {}
    if missing:
        faults["missing"] = f"missing {some(missing)}"
    if unexpected:
        faults["unexpected"] = f"unexpected {some(unexpected)}"
    if mismatched:
        faults["mismatched"] = f"mismatched {some(mismatched, '; ')}"
    if loading.get("error_msgs"):
        faults["errors"] = " ".join(" ".join(loading["error_msgs"]).split())
    return faults


def _advice(faults: Collection[str], unknown_class: str | None) -> str:
    if unknown_class is not None:
        return (
            f"config.json names the class {unknown_class}, which this transformers lacks; "
            "build the model in a factory ([model] factory)"
        )
    if "codes" in faults:
        return "config.json has no quantization_config that says how to read them; fetch the original weights"
    if set(faults) == {"unexpected"}:
        return (
            "let config.json name the class and the sizes that these weights are of, or list globs of what may go "
            "unused in model.unused_weights"
        )
    return (
        "transformers would draw such weights at random; fetch all files again, save the model with a trained head, "
        "or correct config.json or [model.args]"
    )


@contextmanager
def _reports_of_transformers() -> Iterator[list[str]]:
    """Collect and silence transformers' reports about weights that do not fit; its other messages pass."""
    reports: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_report = any(words in text for words in _REPORTS)
        if is_report:
            reports.append(text)
        return not is_report

    logger = logging.getLogger(_LOGGER)
    logger.addFilter(keep)
    try:
        yield reports
    finally:
        logger.removeFilter(keep)
