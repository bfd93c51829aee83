"""Parser of limits as a user types them: `accuracy>=0.98,bytes<=25%`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from ...errors import InputError
from ._limits import parse_bounds

SAMPLES = "bytes<=100000, bytes<=25% (of the original's), latency_ms<=0.5 or accuracy>=0.98"


def parse_limits(
    texts: str | Sequence[str], original: Mapping[str, float], senses: Mapping[str, bool | None]
) -> dict[str, tuple[float | None, float | None]]:
    """Return name -> (lower or None, upper or None); of several bounds on one side the tighter holds.

    texts     expressions as `Front.pick` reads them; a cost may be a share of the original's: "bytes<=25%"
    original  name -> the original's value
    senses    name -> True for a metric that is maximised, False for one that is minimised, None for a cost, which may
              be bounded on both sides

    Raises `InputError` for text that cannot be read, an unknown name, and a bound on the wrong side of a quality.
    """
    limits: dict[str, tuple[float | None, float | None]] = {}
    for text in [texts] if isinstance(texts, str) else texts:
        for part in text.split(","):
            name, sign, value = _bound(part, original, senses)
            low, high = limits.get(name, (None, None))
            if sign in (">=", ">"):
                value = math.nextafter(value, math.inf) if sign == ">" else value
                low = value if low is None else max(low, value)
            else:
                value = math.nextafter(value, -math.inf) if sign == "<" else value
                high = value if high is None else min(high, value)
            if low is not None and high is not None and low > high:
                raise InputError(f"{name} cannot be at least {low:g} and at most {high:g}; change one of the limits")
            limits[name] = low, high
    return limits


def _bound(part: str, original: Mapping[str, float], senses: Mapping[str, bool | None]) -> tuple[str, str, float]:
    share = re.fullmatch(r"(.*[<>]=?)\s*([-+.\deE_]+)\s*%\s*", part)
    try:
        ((name, sign, value),) = parse_bounds(f"{share[1]}{share[2]}" if share else part)
    except InputError:
        raise InputError(f"cannot read the limit {part.strip()!r}; expected one such as {SAMPLES}") from None
    if name not in senses:
        raise InputError(f"a limit is on one of {', '.join(senses)}, got {name!r}")
    high_is_good = senses[name]
    if high_is_good is not None and (sign in (">=", ">")) != high_is_good:
        raise InputError(f"{name} is to be {'high' if high_is_good else 'low'}, so its limit is {_turned(part)!r}")
    if share is None:
        return name, sign, value
    if high_is_good is not None:
        raise InputError(f"{part.strip()!r}: a share of the original's is for costs; give {name} a number")
    return name, sign, value / 100.0 * original[name]


def _turned(part: str) -> str:
    return part.strip().translate(str.maketrans("<>", "><"))
