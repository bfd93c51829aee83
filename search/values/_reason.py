"""The reason of a failure, in one line."""

from __future__ import annotations

from pathlib import Path

from ...errors import ParedownError


def reason(exception: BaseException) -> str:
    """Describe an exception in one line. Code that is not of paredown is named with its file and line."""
    text = " ".join(str(exception).split())
    if isinstance(exception, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        return f"out of memory: {text or type(exception).__name__}"
    if isinstance(exception, TimeoutError):
        return text
    name = type(exception).__name__
    if isinstance(exception, ParedownError):
        return f"{name}: {text}"
    trace = exception.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace else ""
    return f"{name}: {text}{where}"
