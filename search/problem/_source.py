"""Size of the model in the number types of its source, beside its size in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def describe_source(model: nn.Module) -> list[str]:
    """A line on a source that is not FP32: its size is the baseline of all sizes and ratios."""
    from ...compressors.anatomy import main_source_dtype, source_bytes

    source, wide = source_bytes(model)
    if source == wide:
        return []
    line = (
        f"the model's source is {main_source_dtype(model)}, {source} bytes, with which sizes are compared; in FP32, in "
        f"which it computes here, it is {wide} bytes. What is left alone stays in the source's type"
    )
    return [line]


def describe_larger(model: nn.Module, file_bytes: float, format: str) -> str:
    """Sentence on model files that are larger than the source, with the reason; "" where they are not.

    file_bytes  length of the model files
    """
    from ...compressors.anatomy import source_bytes

    source, wide = source_bytes(model)
    if file_bytes <= source:
        return ""
    why = (
        f"{format} files hold in FP32 what they have no narrower form for"
        if source < wide
        else ("the format's own tables, names and graph take more than compression saves")
    )
    return f"The files take {file_bytes:.0f} bytes, more than the {source} of the source's tensors: {why}"
