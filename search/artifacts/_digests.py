"""Digests of what a manifest says, part by part, so that an edited part is refused by its name.

A digest is the sha256 of a part's canonical JSON: keys sorted, no spaces, ASCII. They find damage and edits by hand.
They are no signature: whoever rewrites a part can rewrite its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import IntegrityError

DIGESTS = "digests"
WHOLE = "manifest"
"""Name of the digest of all parts together; it finds a part that went with its digest."""
_CLAIMS = "claims"
_SHOWN = 160
"""Most characters of a changed part in the error."""


def digests_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Name of a part -> its digest: each key of the manifest, `claims.NAME` for each claim, and all together."""
    parts = _parts(manifest)
    return {name: _digest(part) for name, part in parts.items()} | {WHOLE: _digest(parts)}


def check_digests(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raise `IntegrityError` naming the parts of a manifest that are not what was written.

    path      of the manifest
    manifest  its content, with its digests
    """
    written, found, parts = manifest[DIGESTS], digests_of(manifest), _parts(manifest)
    for name in sorted({*written, *found} - {WHOLE}):
        if name not in written:
            raise _refused(path, f"{name} has no digest: it was added after export")
        if name not in found:
            raise _refused(path, f"{name} is missing: it was removed after export")
        if written[name] != found[name]:
            now = _canonical(parts[name])
            now = now if len(now) <= _SHOWN else f"{now[:_SHOWN]}…"
            raise _refused(path, f"{name} does not match its digest, so it was changed after export; it is now {now}")
    if written.get(WHOLE) != found[WHOLE]:
        raise _refused(path, f"{DIGESTS} does not match the digest of all parts together, so parts were removed")


def _refused(path: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{path}: {why}. Export the artifact again")


def _parts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: value for name, value in manifest.items() if name not in (DIGESTS, _CLAIMS)}
    return parts | {f"{_CLAIMS}.{name}": claim for name, claim in manifest[_CLAIMS].items()}


def _digest(part: Any) -> str:
    return hashlib.sha256(_canonical(part).encode("ascii")).hexdigest()


def _canonical(part: Any) -> str:
    return json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
