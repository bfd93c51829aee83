"""Block reconstruction: each code is rounded up or down, as learned for the output of a whole block, not of a layer.

What it does   the weights of a block (a residual block, a feed-forward part; else a layer) go to one of two
               neighbouring codes by a soft variable, learned on calibration data so that the block's output, given what
               the compressed model feeds it, is the original's; blocks in the order in which they run
Paper          Li et al. 2021, "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 3.2 and
               3.3: the error is weighted by the squared gradient; rounding as in Nagel et al. 2020, eq. 21 to 24
We differ      the gradient is of the divergence, by answers drawn from the original's outputs (no labels are needed).
               Learning begins at the existing codes of any method; scales of weights and activations stay. A fifth of
               the samples is held out: a block that is not nearer to the original on them stays as it was, and so does
               the model. Blocks are learned with the original's biases and statistics, which a reconstructed model
               keeps: repaired ones belong to the former codes
Cost           no stored byte. `STEPS` forward and backward passes of each block on a batch, and two passes of the whole
               model over the samples for each block
Did not help   after `Repairs` (ResNet-20 at 3 bits: the divergence doubled, and all codes stayed), nor `Repairs` after
               it; where rounding to nearest is near the original already. Figures: `quantization/README.md`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import InputError
from ..anatomy import (
    Anatomy,
    LayerInfo,
    OutputMasks,
    Outputs,
    continue_from,
    forward,
    module_at,
    output_masks,
    own_scales,
    packed,
    packed_mask,
    preserved,
    real_logits,
    real_values,
)
from ..quantization import PUSH, RATE, push_exponent
from ..values import LayerSpec, weight_name
from ..variants import CompressedModel, Variant
from ._block_batches import BlockBatch, block_call, block_target, copied
from ._blocks import Block, blocks_of
from ._repair import Values, installed
from ._soft_weight import SoftWeight

CODE_VERSION = 1
"""Version of the code, raised when the same inputs give other codes."""
STEPS = 400
LARGEST = 2**26
"""Largest count of numbers kept for a block (inputs, outputs, weights of the outputs); two batches are always kept."""
_HELD_OUT = 5
"""Period of held-out batches: one of so many is not learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstructed:
    """Result for one block: its error on held-out samples relative to the former one, and whether codes were kept."""

    block: Block
    ratio: float
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """Result of a reconstruction.

    variants  variants of all layers, new ones where codes changed
    blocks    blocks in the order in which they run
    left      fqn -> reason why this layer of changed weights is in no block, as a clause
    ratio     divergence of the model's outputs on held-out samples, relative to the former one
    kept      whether the model is nearer to the original; else `variants` and `values` are the given ones
    values    biases and running statistics that go with the variants; empty where these are kept
    """

    variants: dict[str, Variant]
    values: Values
    blocks: tuple[Reconstructed, ...]
    left: Mapping[str, str]
    ratio: float
    kept: bool

    def notes(self) -> list[str]:
        """Lines for people: one about the learned blocks, and one for each reason why layers were left alone."""
        lines = []
        if self.blocks:
            kept = [one for one in self.blocks if one.kept]
            line = f"block reconstruction: {len(kept)} of {len(self.blocks)} blocks are nearer to the original on "
            line += f"samples held out, whose divergence is {self.ratio:.2f} of what it was"
            if not self.kept:
                line += "; so all codes stay as they were"
            elif len(kept) < len(self.blocks):
                line += "; as they were stay " + _few([one.block.fqn for one in self.blocks if not one.kept])
            lines.append(line)
        reasons: dict[str, list[str]] = {}
        for fqn, why in self.left.items():
            reasons.setdefault(why, []).append(fqn)
        lines += [f"block reconstruction leaves {_few(fqns)} alone: {why}" for why, fqns in reasons.items()]
        return lines


def reconstruct(
    resident: CompressedModel,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    batches: Sequence[object],
    *,
    values: Values | None = None,
    divergence: str = "kl",
    class_axis: int = -1,
    scales: Mapping[str, float] | None = None,
    mask: str | None = None,
    seed: int = 0,
    steps: int = STEPS,
) -> Reconstruction:
    """Learn other codes for the variants of `assignment`, at most one step away from the present ones.

    Scales, zeros of a sparse weight and bytes stay (fewer bytes where more codes became zero). Deterministic; the model
    is left as it was.

    resident    holds the model with its original weights
    batches     calibration inputs of some 32 samples, two batches at least; every fifth is held out. `LARGEST` limits
                the number of batches for a large block
    values      biases and running statistics that go with `variants` (`Repairs`). The reconstructed model, which has
                none of them, must be nearer to the original than the model with them
    divergence  measure of the distance from the original's outputs: "kl" for logits, "mse" for others
    class_axis  axis of the outputs on which the classes lie, for "kl"
    scales      name -> factor of the outputs that are compared, where there are several; None: all, each over its own
                standard deviation. Several are compared by their squared error
    mask        name of the mask among the inputs (`anatomy.positions`); what it hides is not compared

    Raises `InputError` for fewer than two batches, or outputs that do not depend on a block's output.
    """
    if len(batches) < 2:
        raise InputError(
            f"block reconstruction learns on some batches and checks on others, so it needs two of them, got "
            f"{len(batches)}; give it more calibration samples, or smaller batches"
        )
    values, found = values or {}, dict(variants)
    eligible, left = _eligible(resident.anatomy, assignment, variants)
    done: list[Reconstructed] = []
    work = _Learner(resident, assignment, batches, (divergence, class_axis, scales, mask), seed, steps)
    if eligible:
        blocks = blocks_of(resident.model, eligible, batches[0])
        in_blocks = {fqn for block in blocks for fqn in block.layers}
        left |= {fqn: "it does not run as a module" for fqn in eligible if fqn not in in_blocks}
        for number, block in enumerate(blocks):
            new, ratio = work.learned(number, block, found)
            if ratio < 1.0:
                found |= new
            done.append(Reconstructed(block=block, ratio=ratio, kept=ratio < 1.0))
    before, after = (work.divergence_of(variants, values), work.divergence_of(found, {})) if done else (0.0, 0.0)
    kept = after < before
    return Reconstruction(
        variants=found if kept else dict(variants),
        values={} if kept else values,
        blocks=tuple(done),
        left=left,
        ratio=after / before if before > 0.0 else 1.0,
        kept=kept,
    )


def _eligible(
    anatomy: Anatomy, assignment: Mapping[str, LayerSpec], variants: Mapping[str, Variant]
) -> tuple[list[str], dict[str, str]]:
    """(fqns of layers whose codes can be learned, fqn -> reason why another layer of changed weights is left alone)."""
    eligible: list[str] = []
    left: dict[str, str] = {}
    for layer in anatomy.layers:
        spec = assignment.get(layer.fqn, LayerSpec())
        if spec.changes_weight:
            reason = _reason_against(layer, variants[layer.fqn])
            if reason is None:
                eligible.append(layer.fqn)
            else:
                left[layer.fqn] = reason
    return eligible, left


def _reason_against(layer: LayerInfo, variant: Variant) -> str | None:
    """Reason why a layer's codes are not learned, as a clause."""
    if layer.is_fused:
        return "a weight inside a recurrent layer or an attention"
    if layer.tied_to:
        return "its weight is shared with another layer"
    if layer.n_calls != 1:
        return "it runs more than once in a pass"
    if layer.kind == "embedding":
        return "an embedding, whose rows are not summed, so errors cannot cancel"
    if variant.even_codes() is None:
        return "codes that are no integers on an even grid (int, int_asym)"
    return None


class _Learner:
    """Learning of blocks, with the original model's outputs and the compressed model's inputs of each block."""

    def __init__(
        self, resident: CompressedModel, assignment: Mapping[str, LayerSpec], batches: Sequence[object],
        distance: tuple[str, int, Mapping[str, float] | None, str | None], seed: int, steps: int,
    ) -> None:  # fmt: skip
        self.resident, self.assignment = resident, assignment
        self.divergence, self.class_axis, self.scales, self.mask = distance
        self.seed, self.steps = seed, steps
        self.batches = tuple(batches)
        self.held_out = tuple(n for n in range(len(batches)) if n % _HELD_OUT == _HELD_OUT - 1) or (len(batches) - 1,)

    @contextmanager
    def compressed(self, variants: Mapping[str, Variant], *, straight_through: bool = False) -> Iterator[nn.Module]:
        model = self.resident.model
        with self.resident.apply(self.assignment, variants, straight_through=straight_through), preserved(model):
            yield model

    def learned(self, number: int, block: Block, variants: Mapping[str, Variant]) -> tuple[dict[str, Variant], float]:
        """New variants of the block's layers, and their error on held-out samples relative to the old ones'."""
        model = self.resident.model
        module = module_at(model, block.fqn)
        generator = torch.Generator().manual_seed(_seed_of(self.seed, number))
        seen = self._block_batches(module, generator, variants)
        held_out = [one for one in seen if one.number in self.held_out]
        learned_from = [one for one in seen if one.number not in self.held_out]
        if not (learned_from and held_out):
            return {}, 1.0
        soft = {
            fqn: SoftWeight(variants[fqn], self.assignment[fqn].weight_only, self.resident.weight(fqn))
            for fqn in block.layers
        }
        prefix = f"{block.fqn}." if block.fqn else ""
        names = {fqn: weight_name(fqn).removeprefix(prefix) for fqn in block.layers}

        def error(weights: Mapping[str, Tensor], one: BlockBatch) -> Tensor:
            args, kwargs = copied(one.args), copied(one.kwargs)
            continue_from(module, one.made)
            output = functional_call(module, {names[fqn]: w for fqn, w in weights.items()}, args, kwargs)
            return one.error(output.float())

        with self.compressed(variants, straight_through=True):
            old = {fqn: self.resident.weight(fqn) for fqn in block.layers}
            unit = sum(float(error(old, one)) for one in learned_from) / len(learned_from)
            before = sum(float(error(old, one)) for one in held_out)
            if not (unit > 0.0 and before > 0.0):
                return {}, 1.0
            with torch.enable_grad():
                self._learn(soft, learned_from, lambda weights, one: error(weights, one) / unit, generator)
            new = {fqn: one.variant(variants[fqn]) for fqn, one in soft.items()}
            hard = {fqn: variant.effective.to(old[fqn]) for fqn, variant in new.items()}
            after = sum(float(error(hard, one)) for one in held_out)
        return new, after / before

    def _learn(
        self, soft: Mapping[str, SoftWeight], seen: Sequence[BlockBatch], error: Any, generator: torch.Generator
    ) -> None:
        n_weights = sum(one.logit.numel() for one in soft.values())
        optimizer = torch.optim.Adam([one.logit for one in soft.values()], lr=RATE)
        for step in range(1, self.steps + 1):
            one = seen[int(torch.randint(len(seen), (1,), generator=generator))]
            loss = error({fqn: layer.weight() for fqn, layer in soft.items()}, one)
            beta = push_exponent(step, self.steps)
            if beta is not None:
                open_ = sum((1.0 - (2.0 * layer.share() - 1.0).abs().pow(beta)).sum() for layer in soft.values())
                loss = loss + PUSH / n_weights * open_
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _block_batches(
        self, module: nn.Module, generator: torch.Generator, variants: Mapping[str, Variant]
    ) -> list[BlockBatch]:
        """Batches of a module: the original's outputs with their weights, and the compressed model's inputs.

        Only batches that pass through the module in both models are included.
        """
        model, size = self.resident.model, 0
        chosen: list[tuple[int, Tensor, Tensor]] = []
        first = [next(n for n in range(len(self.batches)) if n not in self.held_out), self.held_out[0]]
        rest = [n for n in range(len(self.batches)) if n not in first]
        target_of = partial(
            block_target, divergence=self.divergence, generator=generator, class_axis=self.class_axis,
            scales=self.scales, mask=self.mask,
        )  # fmt: skip
        with preserved(model):
            for number in (*first, *rest):
                if number in rest and chosen and size + size // len(chosen) > LARGEST:
                    break
                if (told := target_of(model, module, self.batches[number])) is None:
                    continue
                chosen.append((number, *told))
                size += 3 * told[0].numel()
        with self.compressed(variants) as compressed:
            found = []
            for number, target, weight in chosen:
                args, kwargs, made, shape = block_call(compressed, module, self.batches[number])
                if shape == target.shape:  # an expert may get other tokens now
                    found.append(
                        BlockBatch(number=number, args=args, kwargs=kwargs, target=target, weight=weight, made=made)
                    )
        return found

    def divergence_of(self, variants: Mapping[str, Variant], values: Values) -> float:
        """Divergence from the original's outputs, on held-out samples."""
        model, total = self.resident.model, 0.0
        for number in self.held_out:
            inputs = self.batches[number]
            with preserved(model):
                expected = forward(model, inputs)
            with self.compressed(variants), installed(model, values):
                got = forward(model, inputs)
            total += self._apart(expected, got, output_masks(expected, inputs, self.mask, model=model))
        return total

    def _apart(self, expected: Outputs, got: Outputs, real: OutputMasks) -> float:
        """Sum of the divergence over the samples of a batch."""
        if not isinstance(expected, Tensor) or not isinstance(got, Tensor):
            scales = self.scales or own_scales(expected)
            apart = (packed(expected, scales, real) - packed(got, scales, real)).double().square()
            return float(real_values(apart, packed_mask(expected, scales, real)).sum())
        wanted, found = expected.double(), got.double()
        if self.divergence != "kl":
            return float(real_values((wanted - found).square(), real.get("")).sum())
        (wanted, where), (found, _) = (real_logits(x, real.get(""), self.class_axis) for x in (wanted, found))
        apart = (wanted.log_softmax(-1) - found.log_softmax(-1)) * wanted.softmax(-1)
        return float((apart if where is None else apart[where]).nan_to_num(0.0).sum())


def _seed_of(seed: int, number: int) -> int:
    """Seed of a block."""
    return (seed * 1_000_003 + number) % 2**63


def _few(names: Sequence[str], n: int = 3) -> str:
    shown = ", ".join(name or "the model" for name in names[:n])
    return shown + (f" and {len(names) - n} more" if len(names) > n else "")
