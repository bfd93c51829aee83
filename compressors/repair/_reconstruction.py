"""Block reconstruction: each code up or down, learned for the output of a whole block rather than of a layer.

What it does   the weights of a block (a residual block, a feed-forward part; else a layer) go to one of two
               neighbouring codes by a soft variable, learned on calibration data so that the block's output, given what
               the compressed model feeds it, is the original's; blocks in the order in which they run
Paper          Li et al. 2021, "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 3.2 and
               3.3: the error is weighted by the squared gradient; rounding as in Nagel et al. 2020, eq. 21 to 24
We differ      the gradient is of the divergence, by answers drawn from the original's outputs (no labels are needed).
               It begins at the codes that are there, whatever method gave them; scales, of weights and activations,
               stay. A fifth of the samples is held out: a block that is not nearer to the original there stays as it
               was, and so does the model. It is learned with the original's biases and statistics, which is what a
               reconstructed model keeps: repaired ones belong to the codes that were there
Cost           no stored byte. `STEPS` forward and backward passes of each block on a batch, and of the samples two
               passes of the whole model for each block
Did not help   after `Repairs` (ResNet-20 at 3 bits: the divergence doubled, and all stayed as it was), nor `Repairs`
               after it; where rounding to nearest is near the original already. Figures: `quantization/README.md`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import InputError
from ..anatomy import LayerInfo, forward, module_at, preserved, temporary_hooks
from ..calibration import drawn_answers
from ..quantization import Coded, Rounder
from ..values import LayerSpec, weight_name
from ..variants import CompressedModel, Variant, decode, load_coded, store_coded
from ._blocks import Block, blocks_of
from ._repair import Values, installed

CODE_VERSION = 1
"""Raised when the same inputs give other codes."""
STEPS = 400
LARGEST = 2**26
"""Numbers of a block's inputs, outputs and weights of the outputs that are kept, at most (but for two batches)."""
_HELD_OUT = 5
"""One batch of so many is not learned from."""
_DRAWS = 2
_WARM = 0.2
"""Share of the steps without a push towards 0 or 1."""
_RATE = 0.1
_PUSH = 10.0
_SOFTEST, _HARDEST = 20.0, 2.0
_STRETCH = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstructed:
    """What became of one block: its error on the samples held out, relative to what it was, and if that is kept."""

    block: Block
    ratio: float
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """variants  of all layers, new ones where codes changed
    blocks    in the order in which they run
    left      fqn -> why this layer of changed weights is in no block, in a clause
    ratio     the divergence of the model's outputs on the samples held out, relative to what it was
    kept      whether the model is nearer to the original; else `variants` and `values` are those that were given
    values    biases and running statistics that go with the variants; none where they are kept
    """

    variants: dict[str, Variant]
    values: Values
    blocks: tuple[Reconstructed, ...]
    left: Mapping[str, str]
    ratio: float
    kept: bool

    def notes(self) -> list[str]:
        """A line for what was learned, and one for the layers that were left as they are."""
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
    seed: int = 0,
    steps: int = STEPS,
) -> Reconstruction:
    """Other codes for the variants of `assignment`, one step from those that they have at most. Scales, zeros of a
    sparse weight and bytes stay (fewer bytes where more codes became zero). Deterministic; the model is left as it was.

    resident    holds the model with its original weights
    batches     calibration inputs of some 32 samples, two batches at least; every fifth is held out. Of a large block
                as many are looked at as `LARGEST` allows
    values      biases and running statistics that go with `variants` (`Repairs`): with them the model is what the
                reconstructed one, which does without, has to be nearer to the original than
    divergence  "kl" for logits, "mse" else: what the original's outputs and these are compared by

    Raises `InputError` for fewer than two batches, or outputs that do not depend on what a block gives.
    """
    if len(batches) < 2:
        raise InputError(
            f"block reconstruction learns on some batches and checks on others, so it needs two of them, got "
            f"{len(batches)}; give it more calibration samples, or smaller batches"
        )
    values = values or {}
    found, left = dict(variants), {}
    eligible: list[str] = []
    for layer in resident.anatomy.layers:
        spec = assignment.get(layer.fqn, LayerSpec())
        if spec.changes_weight:
            why = _misfit(layer, spec, found[layer.fqn])
            if why is None:
                eligible.append(layer.fqn)
            else:
                left[layer.fqn] = why
    done: list[Reconstructed] = []
    work = _Work(resident, assignment, batches, divergence, seed, steps)
    if eligible:
        blocks = blocks_of(resident.model, eligible, batches[0])
        in_blocks = {fqn for block in blocks for fqn in block.layers}
        left |= {fqn: "it does not run, or not as a module" for fqn in eligible if fqn not in in_blocks}
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


def _misfit(layer: LayerInfo, spec: LayerSpec, variant: Variant) -> str | None:
    """Why a layer's codes are not learned, in a clause."""
    if layer.is_fused:
        return "a weight inside a recurrent layer or an attention"
    if layer.tied_to:
        return "a weight that another layer has too"
    if layer.n_calls != 1:
        return "run more than once in a pass"
    if layer.kind == "embedding":
        return "an embedding, whose rows are no sums that could make up for each other"
    if variant.even_codes() is None:
        return "codes that are no integers on an even grid (int, int_asym)"
    return None


class _Work:
    """What is asked of the model for each block: how the original answers, and what the compressed one is fed."""

    def __init__(
        self, resident: CompressedModel, assignment: Mapping[str, LayerSpec], batches: Sequence[object],
        divergence: str, seed: int, steps: int,
    ) -> None:  # fmt: skip
        self.resident, self.assignment = resident, assignment
        self.divergence, self.seed, self.steps = divergence, seed, steps
        self.batches = tuple(batches)
        self.held_out = tuple(n for n in range(len(batches)) if n % _HELD_OUT == _HELD_OUT - 1) or (len(batches) - 1,)

    @contextmanager
    def compressed(self, variants: Mapping[str, Variant], *, straight_through: bool = False) -> Iterator[nn.Module]:
        model = self.resident.model
        with self.resident.apply(self.assignment, variants, straight_through=straight_through), preserved(model):
            yield model

    def learned(self, number: int, block: Block, variants: Mapping[str, Variant]) -> tuple[dict[str, Variant], float]:
        """New variants of the block's layers, and their error on what is held out, relative to the old ones'."""
        model = self.resident.model
        module = module_at(model, block.fqn)
        generator = torch.Generator().manual_seed(_seed_of(self.seed, number))
        seen = self._seen(module, generator, variants)
        held_out = [one for one in seen if one.number in self.held_out]
        learned_from = [one for one in seen if one.number not in self.held_out]
        if not (learned_from and held_out):
            return {}, 1.0
        soft = {
            fqn: _Soft(variants[fqn], self.assignment[fqn].weight_only, self.resident.weight(fqn))
            for fqn in block.layers
        }
        prefix = f"{block.fqn}." if block.fqn else ""
        names = {fqn: weight_name(fqn).removeprefix(prefix) for fqn in block.layers}

        def error(weights: Mapping[str, Tensor], one: _Seen) -> Tensor:
            args, kwargs = _copied(one.args), _copied(one.kwargs)
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

    def _learn(self, soft: Mapping[str, _Soft], seen: Sequence[_Seen], error: Any, generator: torch.Generator) -> None:
        n_weights = sum(one.logit.numel() for one in soft.values())
        optimizer = torch.optim.Adam([one.logit for one in soft.values()], lr=_RATE)
        for step in range(1, self.steps + 1):
            one = seen[int(torch.randint(len(seen), (1,), generator=generator))]
            loss = error({fqn: layer.weight() for fqn, layer in soft.items()}, one)
            progress = (step / self.steps - _WARM) / (1.0 - _WARM)
            if progress > 0.0:
                beta = _SOFTEST + (_HARDEST - _SOFTEST) * progress
                open_ = sum((1.0 - (2.0 * layer.share() - 1.0).abs().pow(beta)).sum() for layer in soft.values())
                loss = loss + _PUSH / n_weights * open_
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _seen(self, module: nn.Module, generator: torch.Generator, variants: Mapping[str, Variant]) -> list[_Seen]:
        """The original's outputs of a module with the weight of each number, and the compressed model's inputs. Of the
        batches that go through it in both."""
        model, size = self.resident.model, 0
        chosen: list[tuple[int, Tensor, Tensor]] = []
        first = [next(n for n in range(len(self.batches)) if n not in self.held_out), self.held_out[0]]
        rest = [n for n in range(len(self.batches)) if n not in first]
        with preserved(model):
            for number in (*first, *rest):
                if number in rest and chosen and size + size // len(chosen) > LARGEST:
                    break
                if (told := _target(model, module, self.batches[number], self.divergence, generator)) is None:
                    continue
                chosen.append((number, *told))
                size += 3 * told[0].numel()
        with self.compressed(variants) as compressed:
            found = []
            for number, target, weight in chosen:
                args, kwargs, shape = _call(compressed, module, self.batches[number])
                if shape == target.shape:  # an expert may be asked by other tokens now
                    found.append(_Seen(number=number, args=args, kwargs=kwargs, target=target, weight=weight))
        return found

    def divergence_of(self, variants: Mapping[str, Variant], values: Values) -> float:
        """From the original, on what is held out."""
        model, total = self.resident.model, 0.0
        for number in self.held_out:
            inputs = self.batches[number]
            with preserved(model):
                expected = forward(model, inputs).double()
            with self.compressed(variants), installed(model, values):
                got = forward(model, inputs).double()
            if self.divergence == "kl":
                apart = (expected.log_softmax(-1) - got.log_softmax(-1)) * expected.softmax(-1)
                total += float(apart.nan_to_num(0.0).sum())
            else:
                total += float((expected - got).square().sum())
        return total


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """Of one batch at one block."""

    number: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Tensor
    weight: Tensor

    def error(self, output: Tensor) -> Tensor:
        """Of a sample, on average."""
        return ((output - self.target).square() * self.weight).sum() / len(output)


class _Soft:
    """A weight between two neighbouring codes each, one of which is the code that it has."""

    def __init__(self, variant: Variant, spec: LayerSpec, original: Tensor) -> None:
        self.spec, self.shape = spec, tuple(original.shape)
        rows = (len(original), original[0].numel())
        self.coded, survives = load_coded(variant.tensors, rows, spec)
        grid, device = self.coded.grid, original.device
        rounder = Rounder(grid, self.coded.params, rows)
        offset = torch.zeros(()) if rounder.zero is None else rounder.zero - float(rounder.half)
        codes, (low, high) = self.coded.codes.float(), grid.code_range
        decoded = variant.effective.reshape(rows)
        frozen = torch.zeros(rows, dtype=torch.bool)
        if spec.sparsity > 0.0 or survives is not None:
            frozen = decoded == 0  # another zero would need other bytes
        codes = torch.where(frozen, offset.expand(rows), codes)
        place = original.cpu().float().reshape(rows) / rounder.scale + offset
        floor = place.floor()
        base = torch.where(codes > floor + 1.0, codes - 1.0, torch.where(codes < floor, codes, floor))
        base = base.clamp(min=float(low), max=float(high - 1))
        nearest = place.round().clamp(min=float(low), max=float(high)) == codes
        share = torch.where(nearest, place - base, 0.2 + 0.6 * (codes - base)).clamp(0.01, 0.99)
        stretched = (share + (_STRETCH - 1.0)) / (2.0 * _STRETCH - 1.0)
        self.base, self.frozen, self.kept = base, frozen, codes
        self._floor, self._scale = ((base - offset).to(device), rounder.scale.to(device))
        self._moving = (~frozen).to(device)
        self.logit = torch.log(stretched / (1.0 - stretched)).to(device).requires_grad_()
        self.dtype = original.dtype

    def share(self) -> Tensor:
        """(R, C) in [0, 1]: how far from the lower code to the upper one; 0 or 1 where nothing may move."""
        wide = torch.sigmoid(self.logit) * (2.0 * _STRETCH - 1.0) - (_STRETCH - 1.0)
        return wide.clamp(0.0, 1.0) * self._moving

    def weight(self) -> Tensor:
        values = (self._floor + self.share()) * self._scale * self._moving
        return values.reshape(self.shape).to(self.dtype)

    def variant(self, before: Variant) -> Variant:
        """With each code where its share is nearer; `before` itself where that would take more bytes."""
        with torch.no_grad():
            up = (self.share() >= 0.5).cpu().float()
        codes = torch.where(self.frozen, self.kept, self.base + up).to(torch.int8)
        tensors = store_coded(Coded(codes=codes, params=self.coded.params, grid=self.coded.grid), self.spec)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        if sum(tensor.nbytes for tensor in tensors.values()) > before.n_bytes:
            return before
        return dataclasses.replace(before, tensors=tensors, effective=decode(self.spec, self.shape, tensors))


def _target(
    model: nn.Module, module: nn.Module, inputs: object, divergence: str, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """(output of the module, mean square of the divergence's gradient by it), of the model as it is; None where it is
    not called."""
    given: list[Tensor] = []

    def cut(module: nn.Module, args: object, output: Tensor) -> Tensor:
        given.append(output.detach().clone().requires_grad_())
        return given[0].clone()  # what comes behind may write into it

    with temporary_hooks() as hooks, torch.enable_grad():
        hooks.append(module.register_forward_hook(cut))
        outputs = forward(model, inputs)
        if not given:
            return None
        weight = torch.zeros_like(given[0])
        for _ in range(_DRAWS):
            product = _drawn(outputs, divergence, generator)
            if not product.requires_grad:
                raise InputError("the model's outputs do not depend on a block's output, or have no gradient by it")
            (gradient,) = torch.autograd.grad(product, given, retain_graph=True)
            weight += gradient.square() / _DRAWS
    return given[0].detach().float(), weight.detach().float()


def _drawn(outputs: Tensor, divergence: str, generator: torch.Generator) -> Tensor:
    """A scalar whose gradient g has E[g g'] = the Hessian of the divergence by the outputs, but for a factor."""
    z = outputs.float()
    if divergence != "kl":
        signs = torch.randint(0, 2, z.shape, generator=generator).mul_(2).sub_(1)
        return (signs.to(z) * z).sum()
    answers = drawn_answers(z, generator)
    return z.reshape(-1, z.shape[-1]).log_softmax(-1).gather(1, answers[:, None]).sum()


class _Reached(Exception):
    """What comes behind need not run."""


def _call(
    model: nn.Module, module: nn.Module, inputs: object
) -> tuple[tuple[Any, ...], dict[str, Any], torch.Size | None]:
    """What the module is called with, and the shape of what it gives; None where it is not called."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    shapes: list[torch.Size] = []

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((_copied(args), _copied(kwargs)))

    def end(module: nn.Module, args: object, output: Tensor) -> None:
        shapes.append(output.shape)
        raise _Reached

    with temporary_hooks() as hooks, suppress(_Reached):
        hooks.append(module.register_forward_pre_hook(catch, with_kwargs=True, prepend=True))
        hooks.append(module.register_forward_hook(end))
        forward(model, inputs)
    return (*seen[0], shapes[0]) if shapes else ((), {}, None)


def _copied(value: Any) -> Any:
    """With tensors of its own, for a module may write into what it is given."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return tuple(_copied(item) for item in value) if type(value) is tuple else value


def _seed_of(seed: int, number: int) -> int:
    """A seed for each block."""
    return (seed * 1_000_003 + number) % 2**63


def _few(names: Sequence[str], n: int = 3) -> str:
    shown = ", ".join(name or "the model" for name in names[:n])
    return shown + (f" and {len(names) - n} more" if len(names) > n else "")
