"""Cache of a decoder's keys and values in 8 or 4 bits: its bytes, and its effect on quality.

What it does   past keys are rounded for each channel over `group` tokens, past values for each token over `group`
               channels, each with a minimum and a step in FP16; codes are packed. The latest `recent` tokens, and
               those that do not fill a group yet, stay as they are
Paper          Liu et al. 2024, "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache"
We differ      a group is rounded once, when it leaves the latest tokens, and never again (transformers' own
               QuantizedCache rounds all of the past anew, keys and values alike by channel, and needs another package)
Cost           each chunk widens the whole past again, so it saves memory, and here no time
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError, MissingExtra

BITS = (4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCacheSpec:
    """bits    of the codes: 8, 4, or 32, which leaves keys and values as they are
    group   tokens (keys) or channels (values) that share a step; heads of fewer channels are one group
    recent  latest tokens that are never rounded, at least
    keys    "channel" as KIVI has it, or "token", as the values are
    """

    bits: int = 8
    group: int = 32
    recent: int = 32
    keys: str = "channel"

    def __post_init__(self) -> None:
        if self.bits not in (*BITS, 32):
            raise InputError(f"bits of a KV cache must be 4, 8 or 32, got {self.bits!r}")
        if self.group < 1 or self.recent < 0:
            raise InputError(f"a KV cache needs group >= 1 and recent >= 0, got {self.group!r} and {self.recent!r}")
        if self.keys not in ("channel", "token"):
            raise InputError(f"keys of a KV cache must be rounded by 'channel' or 'token', got {self.keys!r}")


@dataclass(frozen=True, slots=True, eq=False)
class PackedGroups:
    """(..., n) numbers in groups along the last axis: packed codes, and minimum and step of each group in FP16."""

    codes: Tensor
    low: Tensor
    step: Tensor
    bits: int
    n: int

    @classmethod
    def of(cls, x: Tensor, bits: int, group: int) -> PackedGroups:
        n = x.shape[-1]
        group = min(group, n)
        short = -n % group
        padded = torch.cat([x, x[..., -1:].expand(*x.shape[:-1], short)], dim=-1).float()
        grouped = padded.unflatten(-1, (-1, group))
        low = grouped.amin(-1).half()
        span = (grouped.amax(-1) - low.float()).clamp(min=0.0)
        step = (span / (2**bits - 1)).half().clamp(min=torch.finfo(torch.float16).tiny)
        codes = ((grouped - low.float()[..., None]) / step.float()[..., None]).round_().clamp_(0, 2**bits - 1)
        flat = codes.to(torch.uint8).flatten(-2)[..., :n]
        if bits == 4:
            flat = nn.functional.pad(flat, (0, n % 2))
            flat = flat[..., 0::2] | (flat[..., 1::2] << 4)
        return cls(flat.contiguous(), low, step, bits, n)

    def widened(self, group: int) -> Tensor:
        codes = self.codes
        if self.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2)[..., : self.n]
        group = min(group, self.n)
        low, step = (x.float().repeat_interleave(group, dim=-1)[..., : self.n] for x in (self.low, self.step))
        return codes.float() * step + low

    @property
    def n_bytes(self) -> int:
        return self.codes.nbytes + self.low.nbytes + self.step.nbytes


class KvCacheLayer:
    """Keys and values of one layer, (batch, heads, tokens, channels), with the interface of transformers' cache
    layers.
    """

    is_sliding = False
    is_croppable = False
    is_compileable = False
    is_initialized = True

    def __init__(self, spec: KvCacheSpec) -> None:
        self.spec = spec
        self.packed: list[tuple[PackedGroups, PackedGroups]] = []
        self.keys: Tensor | None = None  # those that are left as they are
        self.values: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add a chunk and return the keys and values for it: the past as it is stored, and the chunk unrounded."""
        past = [self._widened(pair) for pair in self.packed]
        if self.keys is not None and self.values is not None:
            past.append((self.keys, self.values))
        past.append((key_states, value_states))
        keys, values = (torch.cat([pair[i].to(key_states.dtype) for pair in past], dim=-2) for i in (0, 1))
        n_packed = sum(self._tokens(pair) for pair in self.packed)
        self.keys, self.values = keys[..., n_packed:, :], values[..., n_packed:, :]
        self._pack()
        return keys, values

    def _pack(self) -> None:
        assert self.keys is not None
        assert self.values is not None
        spec = self.spec
        whole = 0 if spec.bits == 32 else max(0, self.keys.shape[-2] - spec.recent) // spec.group * spec.group
        if whole:
            keys = self.keys[..., :whole, :]
            keys = keys.transpose(-1, -2) if spec.keys == "channel" else keys
            values = self.values[..., :whole, :]
            self.packed.append(
                (PackedGroups.of(keys, spec.bits, spec.group), PackedGroups.of(values, spec.bits, spec.group))
            )
        self.keys, self.values = (x[..., whole:, :].clone() for x in (self.keys, self.values))

    def _widened(self, pair: tuple[PackedGroups, PackedGroups]) -> tuple[Tensor, Tensor]:
        keys, values = (each.widened(self.spec.group) for each in pair)
        return (keys.transpose(-1, -2) if self.spec.keys == "channel" else keys), values

    @staticmethod
    def _tokens(pair: tuple[PackedGroups, PackedGroups]) -> int:
        return int(pair[1].codes.shape[-2])

    def get_seq_length(self) -> int:
        left = 0 if self.keys is None else self.keys.shape[-2]
        return left + sum(self._tokens(pair) for pair in self.packed)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    @property
    def n_bytes(self) -> int:
        left = sum(0 if x is None else x.nbytes for x in (self.keys, self.values))
        return left + sum(each.n_bytes for pair in self.packed for each in pair)


class KvCache:
    """Cache for a decoder of transformers, for one use. `n_bytes` is its present size."""

    def __init__(self, spec: KvCacheSpec, n_layers: int) -> None:
        try:
            from transformers.cache_utils import Cache, CacheLayerMixin
        except ImportError as error:
            raise MissingExtra(
                "a KV cache needs transformers, which is not installed; run: pip install 'paredown[huggingface]'"
            ) from error
        CacheLayerMixin.register(KvCacheLayer)  # it asks of which kind its layers are
        self._layers = [KvCacheLayer(spec) for _ in range(n_layers)]
        layers: Any = list(self._layers)
        self._cache: Any = Cache(layers=layers)

    def as_argument(self, model: nn.Module) -> dict[str, Any]:
        """Argument of `forward`: `cache` in transformers 5.24, `past_key_values` before."""
        names = inspect.signature(type(model).forward).parameters
        return {"cache" if "cache" in names else "past_key_values": self._cache}

    @property
    def n_bytes(self) -> int:
        return sum(layer.n_bytes for layer in self._layers)


class CachedForward:
    """A decoder's forward in chunks of tokens, with the keys and values of earlier chunks as the cache has them.

    Takes token ids (N, T), or `input_ids` and an `attention_mask` that hides tokens at the end only, which no earlier
    one can see; gives {"logits": (N, T, V)}. `last_bytes` is what the cache held at the end of the last call. A plain
    object, so that models that hold it can be deep-copied.
    """

    def __init__(self, model: nn.Module, spec: KvCacheSpec, chunk: int) -> None:
        if chunk < 1:
            raise InputError(f"a decoder's chunk must be 1 token or more, got {chunk!r}")
        self.model, self.spec, self.chunk = model, spec, chunk
        self.last_bytes = 0

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None, **other: Any) -> Mapping[str, Tensor]:
        if other:
            raise InputError(
                f"a decoder with a KV cache takes input_ids and attention_mask, got {', '.join(other)} too"
            )
        if attention_mask is not None and bool((attention_mask.diff(dim=1) > 0).any()):
            raise InputError("a decoder with a KV cache needs padding at the end of each sequence; found some before")
        plain = type(self.model).forward
        kept = KvCache(self.spec, _n_layers(self.model))
        parts = [
            plain(self.model, input_ids=part, use_cache=True, **kept.as_argument(self.model)).logits
            for part in input_ids.split(self.chunk, dim=1)
        ]
        self.last_bytes = kept.n_bytes
        return {"logits": torch.cat(parts, dim=1)}


def with_kv_cache(model: nn.Module, spec: KvCacheSpec, *, chunk: int = 64) -> nn.Module:
    """Make the decoder run in chunks with such a cache from now on, and return it.

    Raises `InputError` for a model that is none.
    """
    _n_layers(model)
    vars(model)["forward"] = CachedForward(model, spec, chunk)
    return model


def kv_cache_bytes(model: nn.Module, spec: KvCacheSpec, tokens: int, *, itemsize: int = 4) -> int:
    """Bytes of the cache of one sequence of `tokens` tokens, processed in chunks of `spec.group` or one by one.

    itemsize  bytes of an unrounded number: 4 in FP32, 2 in FP16
    """
    config: Any = _config(model)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    whole = 0 if spec.bits == 32 else max(0, tokens - spec.recent) // spec.group * spec.group
    row, column = (_packed_bytes(n, spec) for n in (size, spec.group))
    keys = size * whole // spec.group * column if spec.keys == "channel" else whole * row
    return int(_n_layers(model) * heads * (keys + whole * row + 2 * (tokens - whole) * size * itemsize))


def _packed_bytes(n: int, spec: KvCacheSpec) -> int:
    return -(-n * spec.bits // 8) + 4 * -(-n // min(spec.group, n))


def _config(model: nn.Module) -> Any:
    config = getattr(model, "config", None)
    if not hasattr(config, "num_hidden_layers") or not hasattr(config, "num_attention_heads"):
        raise InputError(
            f"a KV cache is for decoders of transformers; {type(model).__name__} has no config with num_hidden_layers "
            "and num_attention_heads"
        )
    return config


def _n_layers(model: nn.Module) -> int:
    return int(_config(model).num_hidden_layers)
