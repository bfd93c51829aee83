"""A compressed model as one file: exact bytes, exact weights, and nothing believed that is not in order."""

import base64
import contextlib
import json
import pickle
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from paredown.compressors import (
    FORMAT_BITS,
    CompressedModel,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    describe_file,
    fixed_bytes,
    forward,
    layer_bytes,
    load_model,
    module_at,
    save_model,
    stored_bytes,
    trace_anatomy,
    weight_at,
)
from paredown.compressors.files import read_container, write_container
from paredown.compressors.sparse_formats import made
from paredown.errors import ConfigError, IntegrityError, ParedownError
from paredown.testing._models import AWKWARD

SPECS = (
    LayerSpec(),
    LayerSpec(weight_bits=3),
    LayerSpec(weight_bits=8, activation_bits=8),
    LayerSpec(sparsity=0.5),
    LayerSpec(rank=0.3),
    LayerSpec(rank=0.3, sparsity=0.6, weight_bits=4, activation_bits=8),
)


class Case:
    """A model, compressed everywhere where `spec` applies, and its file."""

    def __init__(self, name, spec, folder):
        self.name = name
        self.model, self.inputs = AWKWARD[name]()
        self.anatomy = trace_anatomy(self.model, self.inputs)
        self.calibration = calibrate(self.model, [self.inputs], self.anatomy)
        self.assignment, self.variants = {}, {}
        for group in self.anatomy.groups:
            layers = [self.anatomy[fqn] for fqn in group]
            weight = spec.weight_only
            if any(applicable(weight, layer) for layer in layers):
                weight = LayerSpec(weight_bits=spec.weight_bits)
            variant = compress(weight_at(self.model, group[0]), weight, layers[0])
            for layer in layers:
                both = LayerSpec.from_dict({**weight.to_dict(), "activation_bits": spec.activation_bits})
                self.assignment[layer.fqn] = weight if applicable(both, layer) else both
                self.variants[layer.fqn] = variant
        self.path = folder / "model.safetensors"
        self.n_bytes = save_model(self.path, self.model, self.assignment, self.variants, self.calibration)

    def fresh(self):
        """Model of the same architecture with other weights."""
        model, _ = AWKWARD[self.name]()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        return model


@pytest.fixture
def case(tmp_path):
    return Case("convolutions", SPECS[-1], tmp_path)


@pytest.mark.parametrize("name", [name for name in AWKWARD if name != "nothing"])
@pytest.mark.parametrize("spec", SPECS, ids=LayerSpec.label)
def test_what_is_loaded_is_what_was_searched(name, spec, tmp_path):
    case = Case(name, spec, tmp_path)
    loaded = case.fresh()
    specs = load_model(case.path, loaded)
    assert {fqn: specs[fqn] for fqn in case.assignment} == case.assignment
    compressed = CompressedModel(case.model, case.anatomy, case.calibration)
    with torch.no_grad(), compressed.apply(case.assignment, case.variants):
        assert torch.equal(forward(loaded, case.inputs), forward(case.model, case.inputs))

    assert case.n_bytes == case.path.stat().st_size
    assert case.n_bytes == stored_bytes(case.model, case.anatomy, case.assignment, case.variants)
    shares = [layer_bytes(layer, case.assignment[layer.fqn], case.variants[layer.fqn]) for layer in case.anatomy.layers]
    assert case.n_bytes == fixed_bytes(case.model, case.anatomy) + sum(shares)
    assert set(loaded.state_dict()) == set(case.model.state_dict())


def test_the_share_of_a_layer_is_what_the_file_grows_by(case):
    layer = case.anatomy["3"]
    for bits in (2, 5, 8):
        spec = LayerSpec(weight_bits=bits)
        variant = compress(case.model[3].weight, spec, layer)
        length = save_model(case.path, case.model, {"3": spec}, {"3": variant})
        neutral = save_model(case.path, case.model, {}, {})
        assert length - neutral == layer_bytes(layer, spec, variant) - layer_bytes(layer, LayerSpec(), None)


def test_what_describes_a_layer_takes_few_bytes(case):
    layer = case.anatomy["3"]
    variant = compress(case.model[3].weight, LayerSpec(weight_bits=4), layer)
    assert layer_bytes(layer, LayerSpec(weight_bits=4, activation_bits=8), variant) - variant.n_bytes < 32


def test_a_shared_weight_is_stored_and_paid_for_once(tmp_path):
    case = Case("tied_weights", LayerSpec(weight_bits=4), tmp_path)
    n_bytes = case.variants["embed"].n_bytes
    shares = {
        fqn: layer_bytes(case.anatomy[fqn], case.assignment[fqn], case.variants[fqn]) for fqn in ("embed", "head")
    }
    assert n_bytes < shares["embed"] < n_bytes + 20
    assert shares["head"] < 20
    loaded = case.fresh()
    load_model(case.path, loaded)
    assert loaded.head.weight is loaded.embed.weight


def test_any_safetensors_reader_can_open_it(case):
    with safe_open(case.path, framework="pt") as file:
        assert set(file.keys()) == {"layers", "rest"}
        assert file.metadata()["format"] == "paredown.model"
        assert file.get_tensor("layers").dtype == torch.uint8


def test_it_can_be_described_without_a_model(case):
    described = describe_file(case.path)
    assert json.loads(json.dumps(described)) == described
    assert described["n_bytes"] == case.n_bytes
    assert described["layers"]["3"]["spec"] == case.assignment["3"].to_dict()
    scale, zero_point = case.calibration.qparams("3", case.assignment["3"])
    assert described["layers"]["3"]["activation"] == {"scale": scale, "zero_point": zero_point}
    assert described["rest"]["1.running_mean"] == [8]


def test_loading_again_replaces_the_quantizers(case):
    model = case.fresh()
    load_model(case.path, model)
    load_model(case.path, model)
    assert [len(module._forward_pre_hooks) for module in (model[0], model[3], model[7])] == [1, 1, 1]
    save_model(case.path, case.model, {}, {})
    load_model(case.path, model)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(forward(model, case.inputs), forward(case.model, case.inputs))


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 16
    path.write_bytes(content)


def test_every_flipped_byte_is_refused_and_nothing_is_loaded(case):
    content = case.path.read_bytes()
    model = case.fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for position in range(len(content)):
        flip(case.path, position)
        with pytest.raises(IntegrityError, match=r"model\.safetensors"):
            load_model(case.path, model)
        case.path.write_bytes(content)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


@given(data=st.data())
def test_every_truncation_is_refused(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("truncated")
    case = Case("bare_layer", LayerSpec(weight_bits=4), folder)
    content = case.path.read_bytes()
    length = data.draw(st.integers(0, len(content) - 1))
    case.path.write_bytes(content[:length])
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        load_model(case.path, case.fresh())


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def test_pickles_are_refused_by_name(case):
    model = case.fresh()
    case.path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(IntegrityError, match=r"is a pickle .* runs code .* a safetensors file is expected"):
        load_model(case.path, model)
    torch.save(case.model.state_dict(), case.path)
    with pytest.raises(IntegrityError, match="is a pickle"):
        load_model(case.path, model)


def test_other_safetensors_files_are_refused(case):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, case.path)
    with pytest.raises(IntegrityError, match="was not written by paredown"):
        load_model(case.path, case.fresh())
    write_container(case.path, {"format": "paredown.variant"}, {"codes": torch.zeros(2)})
    with pytest.raises(IntegrityError, match=r"is no compressed model: its format is 'paredown.variant'"):
        load_model(case.path, case.fresh())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m, t: m.update(schema_version="4"), "schema_version '4', this paredown reads 1, 2, 3"),
        (lambda m, t: m.update(layout="AAAA"), "cannot be read"),
        (lambda m, t: t.update(layers=t["layers"][:-1]), "ends in the middle of a record"),
        (lambda m, t: t.update(layers=torch.cat([t["layers"], t["layers"][:2]])), "2 bytes are left over"),
        (lambda m, t: t.update(rest=t["rest"][:-1]), "ends in the middle"),
        (lambda m, t: t.update(layers=torch.full_like(t["layers"], 255)), "ends in the middle"),
        (lambda m, t: t["layers"].__setitem__(slice(2, 5), 65), "spec cannot be read"),
        (lambda m, t: t.pop("rest"), "is no compressed model"),
    ],
)
def test_a_file_that_lies_with_a_right_checksum_is_refused(case, change, complaint):
    metadata, tensors = read_container(case.path)
    del metadata["sha256"]
    change(metadata, tensors)
    write_container(case.path, metadata, tensors)
    with pytest.raises(IntegrityError, match=complaint):
        load_model(case.path, case.fresh())


@pytest.mark.parametrize("entry", ["shape", "data_offsets", "dtype"])
def test_a_header_that_contradicts_itself_is_refused(case, entry):
    import hashlib

    content = case.path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["rest"][entry] = {"shape": [10**9], "data_offsets": [0, 4], "dtype": "F33"}[entry]
    header["__metadata__"]["sha256"] = "0" * 64
    raw = json.dumps(header, separators=(",", ":")).encode()
    digest = hashlib.sha256(raw + content[8 + length :]).hexdigest()
    raw = raw.replace(b"0" * 64, digest.encode())
    case.path.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])
    with pytest.raises(IntegrityError, match="the header's entry of 'rest'"):
        load_model(case.path, case.fresh())


def test_another_model_is_refused_by_names(case):
    other, _ = AWKWARD["mlp"]()
    with pytest.raises(
        ConfigError, match=r"belongs to another model: the model has no 3.weight, 7.weight.* the file has no"
    ):
        load_model(case.path, other)
    wider = case.fresh()
    wider[7] = nn.Linear(12, 5)
    with pytest.raises(
        ConfigError, match=r"7.weight is float32 \[4, 12\] in the file and float32 \[5, 12\] in the model"
    ):
        load_model(case.path, wider)


def test_an_untied_model_is_not_the_same_model(tmp_path):
    case = Case("tied_weights", LayerSpec(), tmp_path)
    untied = case.fresh()
    untied.head.weight = nn.Parameter(untied.head.weight.detach().clone())
    with pytest.raises(ConfigError, match=r"belongs to another model: .*head.weight"):
        load_model(case.path, untied)


def test_no_such_file_and_a_folder(case, tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        load_model(tmp_path / "missing.safetensors", case.model)
    with pytest.raises(ConfigError, match="is a folder"):
        load_model(tmp_path, case.model)


def test_what_cannot_be_saved_is_named(case):
    spec = LayerSpec(weight_bits=4)
    with pytest.raises(ConfigError, match=r"names nonsense, no layer of this model"):
        save_model(case.path, case.model, {"nonsense": spec}, {})
    with pytest.raises(ConfigError, match="3 is to become w4, but no variant"):
        save_model(case.path, case.model, {"3": spec}, {})
    with pytest.raises(ConfigError, match="needs a calibration"):
        save_model(case.path, case.model, {"3": LayerSpec(activation_bits=8)}, {})
    assert load_model(case.path, case.fresh())["3"] == case.assignment["3"]  # the old file is untouched


def test_state_that_is_no_tensor_is_refused(tmp_path):
    class Stateful(nn.Linear):
        def get_extra_state(self):
            return {"step": 3}

        def set_extra_state(self, state):
            pass

    with pytest.raises(ConfigError, match=r"holds '_extra_state', a dict; only tensors can be stored safely"):
        save_model(tmp_path / "m.safetensors", Stateful(2, 2), {}, {})


def test_a_model_in_half_precision_is_stored_so_and_loaded_as_fp32(tmp_path):
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)).to(torch.bfloat16)
    anatomy = trace_anatomy(model, torch.randn(2, 8, dtype=torch.bfloat16))
    spec = LayerSpec(weight_bits=4)
    variants = {"0": compress(model[0].weight, spec, anatomy["0"])}
    n_bytes = save_model(tmp_path / "m.safetensors", model, {"0": spec}, variants)
    assert n_bytes == stored_bytes(model, anatomy, {"0": spec}, variants)
    loaded = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)).to(torch.bfloat16)
    load_model(tmp_path / "m.safetensors", loaded)
    assert torch.equal(loaded[0].weight, variants["0"].effective), "BF16 would round the effective weights"
    assert torch.equal(loaded[1].weight, model[1].weight.float())


def test_a_network_of_four_bits_is_an_eighth_and_a_little(tmp_path):
    model = nn.Sequential(*(nn.Linear(128, 128) for _ in range(6)))
    anatomy = trace_anatomy(model, torch.randn(1, 128))
    spec = LayerSpec(weight_bits=4)
    variants = {layer.fqn: compress(weight_at(model, layer.fqn), spec, layer) for layer in anatomy.layers}
    n_bytes = save_model(tmp_path / "m.safetensors", model, dict.fromkeys(anatomy.fqns, spec), variants)
    codes, scales, biases = 6 * 128 * 64, 6 * 128 * 4, 6 * 128 * 4
    assert codes + scales + biases < n_bytes < codes + scales + biases + 1000


DATA = Path(__file__).parents[1] / "data"


def test_a_file_of_schema_1_is_read():
    """Written by the code before schema 2: bitmaps without a header, low rank with bitmaps in both factors."""
    model, _ = AWKWARD["convolutions"]()
    specs = load_model(DATA / "schema1.safetensors", model)
    assert specs["3"] == LayerSpec(rank=0.3, sparsity=0.7, weight_bits=3)
    expected = load_file(DATA / "schema1-effective.safetensors")
    for fqn, effective in expected.items():
        assert torch.equal(weight_at(model, fqn), effective)
    assert describe_file(DATA / "schema1.safetensors")["layers"]["0"]["stored"] == ["bitmap"]


STRUCTURES = ("random", "blocks", "rows", "banded")


@st.composite
def candidates(draw):
    """A spec for each layer, any format and width, and zeros of some structure laid over its weight."""
    name = draw(st.sampled_from(("mlp", "convolutions", "tied_weights", "transformer")))
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    assignment = {}
    for group in anatomy.groups:
        format = draw(st.sampled_from([f for f in FORMAT_BITS if f != "adaptive"]))
        spec = LayerSpec(
            weight_bits=draw(st.sampled_from((*FORMAT_BITS[format], 32))),
            weight_format=format,
            group_size=0 if format in ("fp16", "bf16") else draw(st.sampled_from((0, 8, "tensor"))),
            scale_bits=32 if format in ("fp16", "bf16") else draw(st.sampled_from((16, 32))),
            sparsity=draw(st.sampled_from((0.0, 0.4, 0.7, 0.95))),
            rank=draw(st.sampled_from((1.0, 1.0, 0.3))),
        )
        layers = [anatomy[fqn] for fqn in group]
        if any(applicable(spec, layer) for layer in layers):
            spec = LayerSpec()
        weight = module_at(model, group[0]).weight
        mask = made(draw(st.sampled_from(STRUCTURES)), (weight.shape[0], weight[0].numel()), 0.3) != 0
        if draw(st.booleans()):
            with torch.no_grad():
                weight.mul_(torch.from_numpy(mask).reshape(weight.shape))
        assignment |= dict.fromkeys(group, spec)
    return name, model, anatomy, assignment


@settings(max_examples=40)
@given(candidate=candidates())
def test_the_foreseen_bytes_are_the_file_and_the_file_is_the_weights(candidate, tmp_path_factory):
    """The length of the file is exactly the count that the search uses; the entropy-coded file is no longer, and equal
    in content.
    """
    name, model, anatomy, assignment = candidate
    folder = tmp_path_factory.mktemp("candidate")
    variants = {fqn: compress(weight_at(model, fqn), spec, anatomy[fqn]) for fqn, spec in assignment.items()}
    length = save_model(folder / "plain.safetensors", model, assignment, variants)
    assert length == stored_bytes(model, anatomy, assignment, variants)
    assert length == (folder / "plain.safetensors").stat().st_size
    assert save_model(folder / "coded.safetensors", model, assignment, variants, entropy=True) <= length
    for file in ("plain", "coded"):
        loaded, _ = AWKWARD[name]()
        load_model(folder / f"{file}.safetensors", loaded)
        for fqn, variant in variants.items():
            stored = weight_at(loaded, fqn).detach()
            assert stored.numpy().tobytes() == variant.effective.numpy().tobytes(), (file, fqn)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), entropy=st.booleans())
def test_whatever_a_file_says_it_is_loaded_or_refused(data, entropy, tmp_path):
    """Bytes are changed and the checksum made right again: the model is loaded, or a clear error raised; no other."""
    path = tmp_path / f"fuzz-{entropy}.safetensors"
    original = tmp_path / f"original-{entropy}.safetensors"
    if not original.exists():
        model, inputs = AWKWARD["convolutions"]()
        anatomy = trace_anatomy(model, inputs)
        specs = {
            "0": LayerSpec(weight_bits=3, sparsity=0.7, weight_format="palette"),
            "3": LayerSpec(weight_bits=4, sparsity=0.9, activation_bits=8),
            "7": LayerSpec(weight_bits=4, weight_format="int_asym", group_size=8),
        }
        variants = {fqn: compress(weight_at(model, fqn), spec, anatomy[fqn]) for fqn, spec in specs.items()}
        save_model(original, model, specs, variants, calibrate(model, [inputs], anatomy), entropy=entropy)
    metadata, tensors = read_container(original)
    del metadata["sha256"]
    which = data.draw(st.sampled_from(("layers", "rest", "layout", "length")))
    if which == "layout":
        text = data.draw(st.sampled_from(LAYOUTS))
        metadata["layout"] = base64.b64encode(zlib.compress(text.encode())).decode()
    elif which == "length":
        tensors["layers"] = tensors["layers"][: data.draw(st.integers(0, len(tensors["layers"])))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(tensors[which]) - 1))
            tensors[which][at] = data.draw(st.integers(0, 255))
    write_container(path, metadata, tensors)
    fresh, _ = AWKWARD["convolutions"]()
    for read in (lambda: load_model(path, fresh), lambda: describe_file(path)):
        with contextlib.suppress(ParedownError):
            read()


LAYOUTS = (
    "[" * 50_000,
    "{}",
    '{"weights": [], "layers": {}, "rest": [], "ties": {}}',
    '{"weights": [["0.weight", [4000000, 4000000], "float32"]], "layers": {"0": 0}, "rest": [], "ties": {}}',
    '{"weights": [["0.weight", [3, -2], "float32"]], "layers": {"0": 0}, "rest": [], "ties": {}}',
    '{"weights": [["0.weight", [3, 2], "quint8"]], "layers": {"0": 0}, "rest": [], "ties": {}}',
    '{"weights": [["0.weight", [3, 2], "nn"]], "layers": {"0": 7}, "rest": [["a", [2], "no_grad"]], "ties": {}}',
    '{"weights": [["0.weight", [true, 2.5], 7]], "layers": {"0": null}, "rest": 3, "ties": []}',
)


def test_a_small_file_that_claims_to_be_huge_is_not_believed(case):
    metadata, tensors = read_container(case.path)
    del metadata["sha256"]
    metadata["layout"] = base64.b64encode(zlib.compress(LAYOUTS[3].encode())).decode()
    write_container(case.path, metadata, tensors)
    with pytest.raises(IntegrityError, match=r"0\.weight is said to have 16000000000000 entries, in a file of"):
        describe_file(case.path)
    with pytest.raises(ConfigError, match="belongs to another model"):
        load_model(case.path, case.fresh())


@pytest.mark.parametrize("length", [0x280, 0x4B50])
def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(length, tmp_path):
    """A file begins with its header's length: 80 02, as a pickle of protocol 2 does, or "PK", as an archive does."""
    path = tmp_path / "file.safetensors"

    def header(filler):
        write_container(path, {"format": "x", "filler": "y" * filler}, {"values": torch.ones(1)})
        return int.from_bytes(path.read_bytes()[:8], "little")

    assert header(length - header(0)) == length
    assert path.read_bytes()[:2] in (b"\x80\x02", b"PK")
    assert torch.equal(read_container(path)[1]["values"], torch.ones(1))
