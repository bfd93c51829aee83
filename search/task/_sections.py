"""The sections of a task except [space]: every key with its type, default and description.

`paredown schema task` prints them.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from ...errors import InputError
from ._field_types import (
    Arguments,
    Duration,
    Flag,
    FlagOrAuto,
    Integer,
    MetricName,
    Number,
    Reference,
    SearcherName,
    Seconds,
    Share,
    Text,
)
from ._section import Section

COSTS = ("bytes", "macs", "bops", "latency_ms")
"""Names of objectives and limits beside the task's metric and "divergence"; less is better."""

CARBON = "co2_g_per_million"
"""Grams of CO2 for a million samples; takes `hardware.grid_g_per_kwh`."""

MORE_COSTS = ("energy_mj", "ms_per_sample", "peak_activation_bytes", "memory_bytes", CARBON)
"""Likewise; modelled, and reckoned only where an objective or a limit names them."""

THROUGHPUT = "throughput"
"""Samples a second at `hardware.batch`, more is better: inside the search it is 1000 / ms_per_sample."""


class ModelSection(Section):
    """The source of the model: exactly one of `factory`, `huggingface` and `export`."""

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
        description="safetensors file whose keys and shapes fit the factory's model, or the index of a sharded one "
        "(model.safetensors.index.json); relative to the task file",
    )
    unused_weights: tuple[Text, ...] = Field(
        default=(),
        description="globs of stored weights that the model may leave out (of weights or huggingface), such as "
        "'cls.seq_relationship.*'; any other that it has no use for is refused",
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

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave an empty `unused_weights` out: tasks of runs from before that key keep their digest."""
        stored: dict[str, Any] = handler(self)
        return {key: value for key, value in stored.items() if key != "unused_weights" or value}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("factory", "huggingface", "export") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"must name exactly one of factory, huggingface and export, got {' and '.join(given) or 'none of them'}"
            )
        if self.weights is not None and given != ["factory"]:
            raise ValueError(f"has weights beside {given[0]}, which brings its own; leave weights out")
        if self.unused_weights and (given == ["export"] or (given == ["factory"] and self.weights is None)):
            raise ValueError("has unused_weights beside neither weights nor huggingface; leave unused_weights out")
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
    batch_size: Integer = Field(default=256, ge=1, description="samples in a forward pass, at most")
    mask: Text | None = Field(
        default=None,
        description="entry of dict inputs (or place in a tuple, as '1') that says which positions are real: (N, T) "
        "with 1 for real, or (N, T, T) or (N, 1, T, T); what it hides counts nowhere; default attention_mask, and "
        "decoder_attention_mask for the outputs of an encoder-decoder",
    )

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave an unset `mask` out: tasks of runs from before that key keep their digest."""
        stored: dict[str, Any] = handler(self)
        return {key: value for key, value in stored.items() if key != "mask" or value is not None}


class QualitySection(Section):
    """The metric by which a model is judged."""

    metric: MetricName = Field(
        default="accuracy",
        description="accuracy, perplexity (mean over tokens), perplexity_per_sequence, mse, cosine, mean_iou, f1, "
        "f1_micro, average_precision, psnr, spearman, wer, hit_rate_at_10, ndcg_at_10 (or any other number), a "
        "registered metric, or your own: 'file.py:function' of (outputs, targets) -> (N,), or a class with update, "
        "compute and reset (torchmetrics)",
    )
    args: Arguments = Field(
        default_factory=dict,
        description="settings of the metric: data_range of psnr, blank and space of wer, threshold of f1 for labels, "
        "and the keyword arguments of a class of your own",
    )
    targets: Literal["auto", "aligned", "ids"] = Field(
        default="auto",
        description="of perplexity: aligned: the target at t is that of the output at t (shifted already, masked "
        "tokens); ids: the targets are the input ids, as labels of transformers; auto: told apart by the ids",
    )
    maximise: Flag | None = Field(
        default=None, description="whether more is better; needed for a metric of your own, known for the others"
    )
    divergence: Literal["auto", "kl", "mse"] = Field(
        default="auto",
        description="how far a candidate's outputs are from the original's: kl for logits, mse otherwise; "
        "auto chooses by the metric",
    )
    class_axis: Integer | None = Field(
        default=None,
        description="axis of the outputs on which the classes lie, for accuracy, kl and 'the same answer': 1 for maps "
        "(N, C, H, W), -1 for the last; default: by the shape of the targets",
    )
    outputs: tuple[Text, ...] | dict[str, Number] | None = Field(
        default=None,
        description="of a model with several outputs, those that are compared with the original's: names in order, or "
        "name = weight; a metric of one output reads the first. Default: all of floating point, each by its own "
        "variance",
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

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave later keys out where they are unset: tasks of runs from before them keep their digest."""
        stored: dict[str, Any] = handler(self)
        unset: dict[str, Any] = {"class_axis": None, "outputs": None, "args": {}, "targets": "auto"}
        return {key: value for key, value in stored.items() if key not in unset or value != unset[key]}

    @field_validator("outputs")
    @classmethod
    def _some_outputs(
        cls, outputs: tuple[str, ...] | dict[str, float] | None
    ) -> tuple[str, ...] | dict[str, float] | None:
        if outputs is None:
            return None
        names = tuple(outputs)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"must name each output once, and at least one, got {list(names)}")
        if isinstance(outputs, dict) and (low := [name for name, weight in outputs.items() if not weight > 0]):
            raise ValueError(f"must have weights above 0, got {outputs[low[0]]:g} for {low[0]}; leave that output out")
        return outputs

    @field_validator("class_axis")
    @classmethod
    def _no_sample_axis(cls, axis: int | None) -> int | None:
        if axis == 0:
            raise ValueError("must be an axis of classes, 1 or more, or -1 for the last; axis 0 is the sample")
        return axis

    @model_validator(mode="after")
    def _direction(self) -> Self:
        if ":" in self.metric and self.maximise is None:
            raise ValueError(
                f"must say maximise = true or false for a metric of your own ({self.metric}): is more better?"
            )
        return self


class HardwareSection(Section):
    """The runtime and the device that the model will run on."""

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
    runtime_options: Arguments = Field(
        default_factory=dict,
        description="options of the runtime's sessions, over those of the profile (docs/hardware.md)",
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

    @model_validator(mode="after")
    def _options_are_of_the_runtime(self) -> Self:
        if not self.runtime_options:
            return self
        from ...evaluators.runtimes import options_from

        if self.runtime == "auto":
            raise ValueError("has runtime_options, which are of one runtime: name it as runtime, or leave them out")
        try:
            options_from(self.runtime, self.runtime_options)
        except InputError as error:
            raise ValueError(f"has wrong options: {error}") from None
        return self

    @property
    def profile_names(self) -> tuple[str, ...]:
        """Names of the profiles, as they are written. The first one has the plain metric names."""
        if isinstance(self.profile, tuple):
            return self.profile
        return (self.profile or f"x86-64-{self.runtime}",)

    @property
    def profile_name(self) -> str:
        return self.profile_names[0]


class PrepareSection(Section):
    """Preparation of the model before anything is compressed. Its outputs stay, but for the rounding of float32."""

    scaling: Literal["off", "equalize", "awq"] = Field(
        default="off",
        description="scale channels between layers: equalize makes the ranges of rows and of the next layer's columns "
        "alike (where no norm stands between them), awq makes weights of large inputs larger",
    )
    bits: Integer = Field(default=4, ge=2, le=8, description="of the weights that awq has in mind")


class RepairSection(Section):
    """Repairs after compression, without training and without a byte more. Every candidate gets the same repairs."""

    bias: FlagOrAuto = Field(
        default="auto",
        description="whether each layer's mean output is put back where it was, in its bias or the batch norm behind; "
        "auto: if calibration samples that it did not see say that it helps uniform settings of low bits",
    )
    batch_norm: Literal["auto", "off", "finalists", "trials"] | None = Field(
        default="auto",
        description="whether the running statistics of batch norms follow the compressed model's: of what is exported, "
        "or of every trial too (a pass over `samples` each); auto: trials where [space] removes channels or blocks, "
        "and where calibration samples say so as for `bias`, else off; null, of older tasks: the first of these alone",
    )
    block_reconstruction: Flag = Field(
        default=False,
        description="whether the codes of each block's weights go up or down so that its output is the original's "
        "(BRECQ): of what is exported alone, minutes for each point",
    )
    samples: Integer = Field(
        default=256,
        ge=2,
        description="calibration samples for batch_norm and block_reconstruction, at most; where batch_norm is auto "
        "and there are no blocks to reconstruct, also at most a sixteenth of the search samples, or 64",
    )


class ObjectivesSection(Section):
    """The metrics that the front is spread over."""

    names: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        description=f"the metric, divergence, {', '.join((*COSTS, *MORE_COSTS, THROUGHPUT))}; default the metric and "
        "bytes",
    )


class Limit(Section):
    """Bounds that a point must keep. Relative limits are resolved against the original."""

    min: Number | None = Field(default=None, description="at least this")
    max: Number | None = Field(default=None, description="at most this")
    max_drop: Number | None = Field(
        default=None, ge=0, description="of the metric: worse than the original by at most this, in the metric's unit"
    )
    max_ratio: Number | None = Field(default=None, gt=0, description="of a cost: at most this share of the original's")


class SearchSection(Section):
    """The searcher that proposes candidates, and its options."""

    searcher: SearcherName = Field(
        default="evolution",
        min_length=1,
        description="evolution, genetic, policy, random, or a sampler of Optuna's: tpe, nsga2, nsga3, gp, qmc, or its "
        "class or import path (optuna.samplers.CmaEsSampler)",
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
    least_gain: Number | None = Field(
        default=None,
        ge=0,
        description="least lead of a recommended point over the best baseline, in the metric's unit where its range is "
        "bounded (default 0.002: .2 points of accuracy), else as a share of the baseline's figure (default 0.01: 1 % "
        "of a perplexity); it need not be reached where the point costs 5 % less than a baseline that is as good",
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
    """The copy of the run in MLflow."""

    enabled: Flag = Field(default=True, description="whether anything is written to MLflow at all")
    children: Literal["pareto", "all", "none"] = Field(
        default="pareto", description="which trials get a child run: the front and the baselines, all, or none"
    )
    experiment: Text | None = Field(default=None, description="name of the experiment; default the run folder's parent")
