"""Linear layers with input ranges found at run time, as a product of integers in PyTorch.

`torch._int_mm` (int8 by int8 to int32, oneDNN) between ordinary operations. `torch.ao`'s dynamic Linear has one range
for the whole tensor, half a bit less of it (`reduce_range`), and quantized tensors that warn of their removal (2.13).
Only where the processor has VNNI: without it oneDNN's sums of two products can overflow 16 bits. Code for code what
`dynamic_quantize` gives. 1024 x 4096: 2 to 9 times faster than FP32; 384 x 1536 with one row a third slower, with 16
rows twice as fast, for each operation's call takes microseconds: so layers of 768 channels and more run so
(`TorchRuntime(dynamic_from=)`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._lowering import runs_dynamic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import LayerSpec


def has_integer_products() -> bool:
    import torch

    found = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(found.get(name) for name in ("avx512_vnni", "avx_vnni"))


def multiply_integers(
    model: nn.Module, path: Path, specs: Mapping[str, LayerSpec], dynamic_from: int
) -> tuple[str, ...]:
    """Make layers of a model that `load_model` has filled from `path` compute in integers, and return their fqns.

    Only a plain `nn.Linear`: what another does with its weight is its own affair.
    """
    from torch import nn

    from ...compressors import module_at
    from ...compressors.storage import stored_integers
    from ...compressors.values import is_inner

    wanted = [
        fqn
        for fqn, spec in specs.items()
        if not is_inner(fqn)
        and type(module := module_at(model, fqn)) is nn.Linear
        and runs_dynamic(spec, tuple(module.weight.shape), dynamic_from)
    ]
    if not wanted or not has_integer_products():
        return ()
    done = []
    for fqn, (codes, scales) in stored_integers(path, wanted).items():
        module = module_at(model, fqn)
        vars(module)["forward"] = _IntegerProduct(module, codes, scales)
        _leave_input(module)
        done.append(fqn)
    return tuple(done)


class _IntegerProduct:
    """Function x -> its linear layer's output. A plain object, so that models can be deep-copied."""

    def __init__(self, module: Any, codes: Tensor, scales: Tensor) -> None:
        self.codes = codes.contiguous().t()  # (in, out), the layout that oneDNN takes as it is
        self.sums = codes.int().sum(dim=1)
        self.scales = scales
        self.bias = module.bias

    def __call__(self, input: Tensor) -> Tensor:
        import torch

        x = input.float()
        low, high = x.amin(-1, keepdim=True).clamp(max=0.0), x.amax(-1, keepdim=True).clamp(min=0.0)
        step = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
        zero = torch.round(-low / step) - 128
        given = torch.round(x / step).add_(zero).clamp_(-128, 127).to(torch.int8)
        rows = given.reshape(-1, given.shape[-1])
        sums = torch._int_mm(rows, self.codes) - zero.reshape(-1, 1).int() * self.sums
        found = (sums * self.scales).mul_(step.reshape(-1, 1))
        if self.bias is not None:
            found = found.add_(self.bias)
        output: Tensor = found.reshape(*input.shape[:-1], -1).to(input.dtype)
        return output


def _leave_input(module: nn.Module) -> None:
    """Replace the hook that rounds the input, which is part of the product now, by one that does nothing.

    The hook must stay: a module around it may look for one, and otherwise take a shortcut past `forward`.
    """
    from ...compressors.quantization import DynamicQuantizer

    hooks = module._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if isinstance(hook, DynamicQuantizer)]:
        hooks[key] = _nothing


def _nothing(module: nn.Module, args: object, kwargs: object) -> None:
    return None
