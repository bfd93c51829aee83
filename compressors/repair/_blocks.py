"""Choice of the modules that are reconstructed as one: residual blocks, feed-forward parts, or a layer by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..anatomy import forward, preserved, temporary_hooks

MOST_LAYERS = 8
"""Largest number of layers in one block. Larger modules have too many weights for little calibration data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Block to reconstruct: a module (fqn; "" is the model) and the fqns of its layers whose codes may change."""

    fqn: str
    layers: tuple[str, ...]


def blocks_of(model: nn.Module, fqns: Sequence[str], inputs: object) -> tuple[Block, ...]:
    """Find the smallest modules that hold several of the layers, run once and return one tensor; other layers stand
    alone.

    Blocks are in the order in which they run on `inputs`. A layer that does not run is in none of them.
    """
    runs = _Runs(model, inputs)
    wanted = [fqn for fqn in fqns if fqn in runs.starts]

    def inside(fqn: str) -> tuple[str, ...]:
        return tuple(name for name in wanted if not fqn or name == fqn or name.startswith(f"{fqn}."))

    def walk(fqn: str) -> Iterator[Block]:
        mine = inside(fqn)
        parts = [part for part in runs.children(fqn) if len(inside(part)) > 1]
        if len(mine) > 1 and not parts and fqn in runs.whole and len(mine) <= MOST_LAYERS:
            yield Block(fqn=fqn, layers=mine)
            return
        taken: set[str] = set()
        for part in parts:
            taken.update(inside(part))
            yield from walk(part)
        yield from (Block(fqn=name, layers=(name,)) for name in mine if name not in taken)

    return tuple(sorted(walk(""), key=lambda block: runs.starts.get(block.fqn, 0)))


class _Runs:
    """Calls of one pass: `starts` is fqn -> time of the first call; `whole` holds modules called once that returned a
    tensor.
    """

    def __init__(self, model: nn.Module, inputs: object) -> None:
        self.modules = dict(model.named_modules())
        self.starts: dict[str, int] = {}
        self.whole: set[str] = set()
        calls: dict[str, int] = {}

        def enter(fqn: str) -> Any:
            def hook(module: nn.Module, args: object) -> None:
                self.starts.setdefault(fqn, len(self.starts))
                calls[fqn] = calls.get(fqn, 0) + 1

            return hook

        def leave(fqn: str) -> Any:
            def hook(module: nn.Module, args: object, output: object) -> None:
                if isinstance(output, Tensor) and calls[fqn] == 1:
                    self.whole.add(fqn)
                else:
                    self.whole.discard(fqn)

            return hook

        with temporary_hooks() as hooks, preserved(model):
            for fqn, module in self.modules.items():
                hooks.append(module.register_forward_pre_hook(enter(fqn)))
                hooks.append(module.register_forward_hook(leave(fqn)))
            forward(model, inputs)

    def children(self, fqn: str) -> Iterator[str]:
        """Child modules; a list of modules, which is never called itself, is replaced by its members."""
        for name, _ in self.modules[fqn].named_children():
            child = f"{fqn}.{name}" if fqn else name
            if child not in self.modules:  # it stands under another name too
                continue
            if child in self.starts:
                yield child
            else:
                yield from self.children(child)
