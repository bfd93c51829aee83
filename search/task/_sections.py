"""The sections of a task: every key with its type, default and description (`paredown schema task` prints them)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ._field_types import (
    ActivationBits,
    ActivationMethods,
    ActivationSchemes,
    ActivationScopes,
    Arguments,
    Duration,
    Flag,
    GroupSizes,
    Integer,
    KeepMethods,
    Keeps,
    MetricName,
    Number,
    RankEnergies,
    RankForms,
    RankMethods,
    RankNumbers,
    Ranks,
    Reference,
    ScaleBits,
    Seconds,
    Share,
    Sparsities,
    SparsityMethods,
    SparsityPatterns,
    Text,
    WeightBits,
    WeightFormats,
    WeightMethods,
)

COSTS = ("bytes", "macs", "bops", "latency_ms")
"""What can be an objective or a limit beside the task's metric and "divergence"; less is better."""

CARBON = "co2_g_per_million"
"""Grams of CO2 for a million samples; takes `hardware.grid_g_per_kwh`."""

MORE_COSTS = ("energy_mj", "ms_per_sample", "peak_activation_bytes", "memory_bytes", CARBON)
"""Likewise; modelled, and reckoned only where an objective or a limit names them."""

THROUGHPUT = "throughput"
"""Samples a second at `hardware.batch`, more is better: inside the search it is 1000 / ms_per_sample."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


class ModelSection(Section):
    """Where the model comes from: exactly one of `factory`, `huggingface` and `export`."""

    factory: Reference | None = Field(
        default=None,
        description="function or class that returns the nn.Module: 'module:function', or "
        "'file.py:function' relative to the task file",
    )
    args: Arguments = Field(
        default_factory=dict,
        description="keyword arguments for the factory (or for from_pretrained of a Hugging Face model)",
    )
    weights: Text | None = Field(
        default=None,
        description="safetensors file whose keys and shapes fit the factory's model; relative to the task file",
    )
    huggingface: Text | None = Field(
        default=None,
        description="a Hugging Face model: a local folder, or a name on the hub (needs paredown[huggingface])",
    )
    export: Text | None = Field(
        default=None, description="a file written by torch.export.save, with a dynamic batch axis"
    )

    kv_cache_bits: Literal[4, 8] | None = Field(
        default=None,
        description="of a decoder of transformers: it runs in chunks of 64 tokens, with the keys and values of earlier "
        "tokens in so many bits, but for the latest 32; needs the runtime torch",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("factory", "huggingface", "export") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"must name exactly one of factory, huggingface and export, got {' and '.join(given) or 'none of them'}"
            )
        if self.weights is not None and given != ["factory"]:
            raise ValueError(f"has weights beside {given[0]}, which brings its own; leave weights out")
        if self.args and given == ["export"]:
            raise ValueError("has args beside export, which takes none; leave args out")
        return self


class DataSection(Section):
    """Three splits: calibration (ranges of activations), search (what candidates are compared on), report (unseen)."""

    factory: Reference = Field(
        description="function that returns the three splits (a mapping or tuple: calibration, search, report), "
        "or one data set (inputs, targets) to be split; 'module:function' or 'file.py:function'"
    )
    args: Arguments = Field(default_factory=dict, description="keyword arguments for the factory")
    calibration: Share = Field(
        default=None,
        description="of one data set: samples (128) or share (0.1) for calibration; default 128, or a "
        "fifth of the data if that is less",
    )
    search: Share = Field(
        default=None,
        description="of one data set: samples or share to compare candidates on; default half of what is left",
    )
    report: Share = Field(
        default=None, description="of one data set: samples or share for the final figures; default all that is left"
    )
    seed: Integer = Field(default=0, ge=0, description="of the random split of one data set")
    overlap: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="what to do with a sample of one split that is in another too: refuse the task, or "
        "drop it from the less important split",
    )
    batch_size: Integer = Field(default=256, ge=1, description="samples in a forward pass")


class QualitySection(Section):
    """What makes a model good."""

    metric: MetricName = Field(
        default="accuracy",
        description="accuracy, perplexity, mse, cosine, a registered metric, or your own: "
        "'file.py:function' of (outputs, targets) -> (N,)",
    )
    maximise: Flag | None = Field(
        default=None, description="whether more is better; needed for a metric of your own, known for the others"
    )
    divergence: Literal["auto", "kl", "mse"] = Field(
        default="auto",
        description="how far a candidate's outputs are from the original's: kl for logits, mse otherwise; "
        "auto chooses by the metric",
    )
    max_loss: Number = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of the original's quality that a point may lose and still be offered, where [limits] says "
        "nothing of the metric; 1 offers everything",
    )
    guide: Literal["divergence", "metric"] = Field(
        default="divergence",
        description="what the search is led by; divergence is smoother than a metric and tells close candidates apart, "
        "down to 1e-4 nats, below which none is better than another",
    )

    @model_validator(mode="after")
    def _direction(self) -> Self:
        if ":" in self.metric and self.maximise is None:
            raise ValueError(
                f"must say maximise = true or false for a metric of your own ({self.metric}): is more better?"
            )
        return self


class HardwareSection(Section):
    """Where the model will run."""

    runtime: Text = Field(
        default="onnxruntime",
        min_length=1,
        description="what runs the exported model: torch, torch-compile, onnxruntime, openvino; auto: "
        "the fastest of those here, measured on this model",
    )
    profile: Text | tuple[Text, ...] | None = Field(
        default=None,
        description="name or path of a hardware profile; default x86-64-RUNTIME, "
        "without VNNI x86-64-avx2-RUNTIME. Of a list, the search is led by the "
        "first, and `paredown front --profile` shows the front of each",
    )
    threads: Integer = Field(default=1, ge=1, description="threads of the runtime when latency is measured or modelled")
    latency: Literal["auto", "modelled", "measured"] = Field(
        default="auto",
        description="latency_ms of trials: modelled from the profile; measured: predicted from a few dozen models of "
        "the space that are measured first (minutes); auto: predicted where a table is at hand, else modelled",
    )
    latency_table: Text | None = Field(
        default=None, description="a table that `paredown profile --task` has measured on this machine, to predict from"
    )
    latency_seconds: Number = Field(default=1.0, ge=0, description="how long each model is timed, at least")
    batch: Integer = Field(default=1, ge=1, description="samples at once, for throughput, energy_mj and memory_bytes")
    throughput_p95_ms: Number | None = Field(
        default=None,
        gt=0,
        description="milliseconds that 95 of 100 batches may take at most, when the batch of the highest throughput is "
        "looked for on this machine; default no limit",
    )
    grid_g_per_kwh: Number | None = Field(
        default=None, gt=0, description="grams of CO2 that your grid emits for a kilowatt-hour; default: not reckoned"
    )

    @model_validator(mode="after")
    def _each_profile_once(self) -> Self:
        names = self.profile_names
        if not names:
            raise ValueError("has an empty list of profiles; name one, or leave profile out")
        if len(set(names)) < len(names):
            raise ValueError(f"names a profile twice among {', '.join(names)}; each once")
        return self

    @property
    def profile_names(self) -> tuple[str, ...]:
        """As written; the first leads the search."""
        if isinstance(self.profile, tuple):
            return self.profile
        return (self.profile or f"x86-64-{self.runtime}",)

    @property
    def profile_name(self) -> str:
        return self.profile_names[0]


class OverrideSection(Section):
    """The axes of the layers that a glob matches; an axis that is left out stays as in [space]."""

    weight_bits: WeightBits | None = Field(default=None, description="widths of the weights; 32 is floating point")
    activation_bits: ActivationBits | None = Field(default=None, description="widths of the layer's input: 4, 6, 8, 32")
    sparsity: Sparsities | None = Field(default=None, description="shares of zeros, in [0, 1)")
    rank: Ranks | None = Field(
        default=None, description="shares of the full rank, in (0, 1]; 1.0 leaves the weight whole"
    )
    weight_method: WeightMethods | None = Field(default=None, description="how weights are quantized")
    activation_method: ActivationMethods | None = Field(default=None, description="how activation ranges are chosen")
    sparsity_method: SparsityMethods | None = Field(default=None, description="how the weights that go are chosen")
    rank_method: RankMethods | None = Field(default=None, description="how weights are factorized")
    weight_format: WeightFormats | None = Field(default=None, description="what the codes of weights stand for")
    group_size: GroupSizes | None = Field(default=None, description="how many weights share a scale")
    scale_bits: ScaleBits | None = Field(default=None, description="of the stored scales: 32, 16")
    activation_scheme: ActivationSchemes | None = Field(default=None, description="affine, symmetric, dynamic")
    sparsity_pattern: SparsityPatterns | None = Field(default=None, description="where zeros may stand")
    rank_form: RankForms | None = Field(default=None, description="what weights of a lower rank are split into")
    rank_number: RankNumbers | None = Field(default=None, description="ranks, as numbers")
    rank_energy: RankEnergies | None = Field(default=None, description="ranks, by the share of energy they keep")
    activation_scope: ActivationScopes | None = Field(default=None, description="layer, tensor, product")
    channels: Keeps | None = Field(default=None, description="shares of coupled channels of convolutions that stay")
    heads: Keeps | None = Field(default=None, description="shares of attention heads that stay")
    neurons: Keeps | None = Field(default=None, description="shares of neurons between linear layers that stay")
    width: Keeps | None = Field(default=None, description="shares of the hidden dimension that stay")
    units: Keeps | None = Field(default=None, description="shares of a recurrent layer's units that stay")
    experts: Keeps | None = Field(default=None, description="shares of the experts that stay")


class SpaceSection(Section):
    """What may be done to each layer: every combination of the axes' values that can be applied to it."""

    weight_bits: WeightBits = Field(
        default=(2, 3, 4, 5, 6, 8, 32), description="widths of the weights; 32 is floating point"
    )
    activation_bits: ActivationBits = Field(default=(8, 32), description="widths of each layer's input: 4, 6, 8, 32")
    sparsity: Sparsities = Field(default=(0.0,), description="shares of zeros, in [0, 1)")
    rank: Ranks = Field(default=(1.0,), description="shares of the full rank, in (0, 1]; 1.0 leaves the weight whole")
    weight_method: WeightMethods = Field(
        default=("affine",), description="how weights are quantized: names of registered methods, each tried"
    )
    activation_method: ActivationMethods = Field(
        default=("minmax",),
        description="how the ranges of quantized activations are chosen: minmax, percentile, entropy, or affine (least "
        "squared error)",
    )
    sparsity_method: SparsityMethods = Field(
        default=("magnitude",), description="how the weights that become zero are chosen"
    )
    rank_method: RankMethods = Field(default=("svd",), description="how weights of a lower rank are factorized")
    weight_format: WeightFormats = Field(
        default=("int",),
        description="what the codes of weights stand for: int, int_asym, palette, nf4, pow2, log, apot, fp8_e4m3, "
        "fp8_e5m2, fp16, bf16, or adaptive, which chooses; each at the widths that it has",
    )
    group_size: GroupSizes = Field(
        default=(0,),
        description="how many weights of a row share a scale: 0 (an output channel), 32, 64, 128, …, 'tensor', or a "
        "block of rows by weights, '32x32'",
    )
    scale_bits: ScaleBits = Field(default=(32,), description="of the stored scales and tables: 32, 16")
    activation_scheme: ActivationSchemes = Field(
        default=("affine",),
        description="range of quantized activations: affine or symmetric, calibrated, or dynamic, of each token",
    )
    activation_scope: ActivationScopes = Field(
        default=("auto",),
        description="layer: what a layer reads is rounded for it alone; tensor: for all that read it, and what goes "
        "into a residual sum too, which ONNX Runtime needs to run those convolutions in int8; product: what goes into "
        "a product of attention too, which is then one of integers; auto: tensor for onnxruntime, else layer",
    )
    sparsity_pattern: SparsityPatterns = Field(
        default=("",),
        description="where zeros may stand: '' anywhere, '2:4' or any N:M along the input channels (with the sparsity "
        "that it means, 1 - N/M, among the shares), blocks of outputs x inputs ('1x4', '4x4', '16x1'), 'row', 'column'",
    )
    rank_form: RankForms = Field(
        default=("channel",),
        description="what weights of a lower rank are split into: channel, input, spatial, tucker2 (convolutions), or "
        "residual: two factors beside what they leave over, which is made sparse or quantized",
    )
    rank_number: RankNumbers = Field(default=(), description="ranks to offer as numbers, beside the shares of `rank`")
    rank_energy: RankEnergies = Field(
        default=(),
        description="ranks to offer as the least that keeps this share of the squared singular values, beside `rank`",
    )
    channels: Keeps = Field(
        default=(1.0,),
        description="shares of coupled channels of convolutions that stay, e.g. [1.0, 0.75, 0.5]; needs torch-pruning",
    )
    heads: Keeps = Field(default=(1.0,), description="shares of attention heads that stay (groups of queries whole)")
    neurons: Keeps = Field(default=(1.0,), description="shares of neurons between linear layers that stay")
    width: Keeps = Field(default=(1.0,), description="shares of the hidden dimension that stay")
    units: Keeps = Field(default=(1.0,), description="shares of a recurrent layer's units that stay")
    experts: Keeps = Field(
        default=(1.0,), description="shares of a mixture's experts that stay, those that are asked most often"
    )
    blocks: Flag = Field(default=False, description="whether residual blocks may be dropped")
    keep_method: KeepMethods = Field(
        default=("output",),
        description="which units stay, by score: l1, l2, batch_norm, group, taylor, hessian, hessian_diag, activation, "
        "output, entropy (of heads), random; each tried",
    )
    round_to: Integer | None = Field(
        default=None,
        ge=1,
        description="channels that stay are a multiple of this; default what the profile's alignment says of the "
        "layers that a coupled set goes through, else 1",
    )
    leave: tuple[Text, ...] = Field(default=(), description="globs of layer names to leave alone")
    overrides: dict[str, OverrideSection] = Field(
        default_factory=dict,
        description="glob of layer names -> axes; where several match, the later one wins, axis by axis",
    )


class PrepareSection(Section):
    """What is done to the model before anything is compressed; its outputs stay, but for float32's rounding."""

    scaling: Literal["off", "equalize", "awq"] = Field(
        default="off",
        description="scale channels between layers: equalize makes the ranges of rows and of the next layer's columns "
        "alike (where no norm stands between them), awq makes weights of large inputs larger",
    )
    bits: Integer = Field(default=4, ge=2, le=8, description="of the weights that awq has in mind")


class RepairSection(Section):
    """What is made good after compression, without training and without a byte more; of every candidate alike."""

    bias: Flag = Field(
        default=False,
        description="whether each layer's mean output is put back where it was, in its bias or the batch norm behind",
    )
    batch_norm: Literal["off", "finalists", "trials"] | None = Field(
        default=None,
        description="whether the running statistics of batch norms follow the compressed model's: of what is exported, "
        "or of every trial too (a pass over `samples` each); default trials where [space] removes channels or blocks, "
        "else off",
    )
    block_reconstruction: Flag = Field(
        default=False,
        description="whether the codes of each block's weights go up or down so that its output is the original's "
        "(BRECQ): of what is exported alone, minutes for each point",
    )
    samples: Integer = Field(
        default=256, ge=2, description="calibration samples for batch_norm and block_reconstruction, at most"
    )


class ObjectivesSection(Section):
    """What the front is spread over."""

    names: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        description=f"the metric, divergence, {', '.join((*COSTS, *MORE_COSTS, THROUGHPUT))}; default the metric and "
        "bytes",
    )


class Limit(Section):
    """What a point must keep to; relative limits are against the original."""

    min: Number | None = Field(default=None, description="at least this")
    max: Number | None = Field(default=None, description="at most this")
    max_drop: Number | None = Field(
        default=None, ge=0, description="of the metric: worse than the original by at most this, in the metric's unit"
    )
    max_ratio: Number | None = Field(default=None, gt=0, description="of a cost: at most this share of the original's")


class SearchSection(Section):
    """How candidates are proposed."""

    searcher: Text = Field(
        default="evolution",
        min_length=1,
        description="evolution, random, tpe, nsga2, or an Optuna sampler by its import path",
    )
    seed: Integer = Field(default=0, ge=0, description="of every random choice of the search")
    samples: Integer | None = Field(
        default=None, ge=1, description="samples of the search split for each trial; default all"
    )
    table_samples: Integer = Field(
        default=64,
        ge=1,
        description="samples for the sensitivity table; fewer are used where it would cost over 20 % of the search",
    )
    screen: Integer | None = Field(
        default=None,
        ge=0,
        description="samples that a candidate is seen on first, before those that look best are seen on all; default a "
        "sixteenth of a search split of 1024 and more, at least 128, and of a smaller one all; 0: all",
    )
    race: Flag = Field(
        default=True,
        description="stop a trial as soon as it is clear, on a part of the samples, that another is no dearer and "
        "no worse; what is on the front was always measured on all samples",
    )
    race_margin: Number = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="a trial is stopped too if its divergence is less than the other's, but by less than this share",
    )
    race_error: Number = Field(
        default=0.05, gt=0, lt=1, description="probability, at most, that a trial is stopped that should not have been"
    )
    params: Arguments = Field(default_factory=dict, description="parameters of the searcher")
    plans: tuple[Literal["uniform", "sensitivity", "performance", "energy", "fp16-mse"], ...] = Field(
        default=(),
        description="configs of `paredown plan` to propose first, within the limits on costs, else of 4 mean bits",
    )


class BudgetSection(Section):
    """When to stop: at whichever comes first."""

    trials: Integer = Field(default=150, ge=1, description="candidates to evaluate")
    time: Duration = Field(
        default=None, description="wall-clock time: '30m', '2h', '1h30m', or seconds; default no limit"
    )
    core_hours: Number | None = Field(default=None, gt=0, description="workers times hours; default no limit")
    trial_timeout_s: Seconds = Field(
        default=120.0, description="a trial that takes longer is a failed one: seconds, or '2m'"
    )


class MlflowSection(Section):
    """What is mirrored to MLflow."""

    enabled: Flag = Field(default=True, description="whether anything is written to MLflow at all")
    children: Literal["pareto", "all", "none"] = Field(
        default="pareto", description="which trials get a child run: the front and the baselines, all, or none"
    )
    experiment: Text | None = Field(default=None, description="name of the experiment; default the run folder's parent")
