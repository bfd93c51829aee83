"""Lines on the parts of a model that a runtime lacks: the operator, the module that it stands in, and the way out.

A runtime reports each node that it could not convert, those behind the first one too, in a thousand characters. Only
the first node of the graph is the cause.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MOST = 240
_NAMED = re.compile(r"<Node\((\w+)\): ([^>]*)>")
_REPORT = re.compile(r"-- (\w+)-\d+ with a message:(.*?)(?=\s-- \w|\sSummary:|$)", re.DOTALL)
_NO_RULE = re.compile(r"No conversion rule found for operations: ([^\n]*)")
_NO_KERNEL = re.compile(r"Could not find an implementation for (\w+)\(\d+\) node with name '([^']*)'")
_NO_OPERATOR = re.compile(r"No Op registered for (\w+)|(\w+)\(-?\d+\) is not a registered function/op")
_FRAME = re.compile(
    r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|While validating ONNX node '<[^>]*>':"
    r"|FrontEnd API failed with \w+:",
    re.DOTALL,
)
"""Parts of OpenVINO's messages that name its own source."""
_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\)\s")
"""Place in ONNX Runtime's own source, with the signature of its function."""
_WAYS_OUT = "take the runtime {others}, or write that part of the model otherwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """Node of an exported graph: operator, name of its first output, and fqn of the module that it comes from ("" is
    the model, None is not known).
    """

    op_type: str
    output: str
    module: str | None


def one_line(error: BaseException | str, most: int = _MOST) -> str:
    """Message in one line of at most `most` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def conversion_gap(error: BaseException, places: Sequence[NodePlace]) -> str:
    """Line on a graph that OpenVINO could not convert; `places` are the graph's nodes in order."""
    text = str(error)
    outputs = {output for _, output in _NAMED.findall(text)}
    lacking = {name.strip().split("-")[0] for found in _NO_RULE.findall(text) for name in found.split(",")}
    place = next((one for one in places if one.output in outputs or one.op_type in lacking), None)
    if place is None:
        return f"{one_line(_FRAME.sub('', text))}; {_WAYS_OUT.format(others=_others('openvino'))}"
    reason = "it has no such operator"
    for op_type, message in _REPORT.findall(text):
        if op_type == place.op_type and place.op_type not in lacking:
            reason = one_line(_FRAME.sub("", message), 120)
    return f"{_operator(place)} ({reason}); {_WAYS_OUT.format(others=_others('openvino'))}"


def loading_gap(error: BaseException) -> str:
    """Line on a graph that ONNX Runtime could not load."""
    text, others = str(error), _WAYS_OUT.format(others=_others("onnxruntime"))
    if (found := _NO_KERNEL.search(text)) is not None:
        return f"it has no kernel for the operator {found[1]} (node {found[2]!r}); {others}"
    if (found := _NO_OPERATOR.search(text)) is not None:
        return f"it has no operator {found[1] or found[2]}; {others}"
    return one_line(_SOURCE.sub(" ", text))


def _operator(place: NodePlace) -> str:
    if place.module is None:
        return f"the operator {place.op_type} of {place.output!r}"
    return f"the operator {place.op_type} of {place.module or 'the forward of the model itself'}"


def _others(runtime: str) -> str:
    return " or ".join(repr(name) for name in ("onnxruntime", "openvino", "torch") if name != runtime)
