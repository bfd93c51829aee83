"""Names of removable structures: `channels:conv1`, `block:layers.2`. The name of a layer has no colon."""

from __future__ import annotations

from dataclasses import dataclass

_COLON = ":"


@dataclass(frozen=True, slots=True)
class StructuralName:
    """A coupled set of units, or a block.

    kind  "channels", "heads", "neurons", "hidden", "units", "experts" or "block"
    fqn   full name of the module that it is named after
    """

    kind: str
    fqn: str

    @classmethod
    def parse(cls, text: str) -> StructuralName | None:
        """Return the parts of a name as it stands in a space, a config or a ledger; None for the name of a layer."""
        kind, colon, fqn = text.partition(_COLON)
        return cls(kind, fqn) if colon else None

    def __str__(self) -> str:
        return f"{self.kind}{_COLON}{self.fqn}"

    @property
    def is_block(self) -> bool:
        """True for a block, which is kept or skipped as a whole."""
        return self.kind == "block"
