"""Variants on disk: made once, found again, never believed when damaged."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import paredown
from paredown.compressors import LayerInfo, LayerSpec, VariantStore, compress, tensor_digest
from paredown.compressors.registry import _registry as registry
from paredown.compressors.variants import _store
from paredown.errors import IntegrityError, SpecError

LAYER = LayerInfo(fqn="conv", kind="conv2d", weight_shape=(8, 4, 3, 3))
W4 = LayerSpec(weight_bits=4)


@pytest.fixture
def weight():
    return torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def store(tmp_path):
    return VariantStore(tmp_path / "store")


@pytest.mark.parametrize(
    "spec",
    [W4, LayerSpec(sparsity=0.6), LayerSpec(rank=0.25), LayerSpec(rank=0.25, sparsity=0.5, weight_bits=3)],
    ids=LayerSpec.label,
)
def test_what_comes_from_disk_is_what_was_made(store, weight, spec):
    made = compress(weight, spec, LAYER)
    store.get(weight, spec, LAYER)
    found = VariantStore(store.root).get(weight, spec, LAYER)
    assert torch.equal(found.effective, made.effective)
    assert found.tensors.keys() == made.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in made.tensors.items())
    assert found.effective.data_ptr() % 64 == 0
    assert (found.spec, found.weight_error, found.n_bytes) == (made.spec, made.weight_error, made.n_bytes)


def test_it_is_made_once(store, weight, monkeypatch):
    assert not store.has(weight, W4, LAYER)
    store.get(weight, W4, LAYER)
    assert store.has(weight, W4, LAYER)
    monkeypatch.setattr(_store, "compress", lambda *_: pytest.fail("compressed a second time"))
    assert store.get(weight, W4, LAYER) is store.get(weight, W4, LAYER)
    fresh = VariantStore(store.root)
    fresh.get(weight, W4, LAYER, weight_digest=tensor_digest(weight))
    fresh.get(weight, LayerSpec(weight_bits=4, activation_bits=8), LAYER)  # the activation is not the weight's business


def test_the_address_depends_on_what_the_variant_is_made_from(store, weight, monkeypatch):
    from dataclasses import replace

    keys = [store.key(weight, W4, LAYER)]
    assert len(keys[0]) == 64
    assert store.key(weight, W4, replace(LAYER, fqn="elsewhere", macs=5)) == keys[0]
    keys += [
        store.key(weight + 1, W4, LAYER),
        store.key(weight.reshape(8, 36, 1, 1), W4, LAYER),
        store.key(weight, LayerSpec(weight_bits=5), LAYER),
        store.key(weight, W4, replace(LAYER, kind="linear")),
        store.key(weight, W4, replace(LAYER, groups=2)),
    ]
    monkeypatch.setattr(_store, "CODE_VERSION", 999)
    keys.append(store.key(weight, W4, LAYER))
    assert len(set(keys)) == len(keys)


def test_the_version_of_a_method_is_part_of_the_address(store, weight):
    spec = LayerSpec(weight_bits=4, weight_method="mine")
    keys = set()
    for version in ("1", "2"):
        registry.WEIGHT.register("mine", registry.WEIGHT["affine"], version=version)
        keys.add(store.key(weight, spec, LAYER))
        del registry.WEIGHT._entries["mine"]
    assert len(keys) == 2


def test_the_neutral_variant_needs_no_file(store, weight):
    assert torch.equal(store.get(weight, LayerSpec(), LAYER).effective, weight)
    assert not store.root.exists()


def test_every_flipped_byte_is_found(store, weight):
    store.get(weight, W4, LAYER)
    path = store.path(store.key(weight, W4, LAYER))
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(IntegrityError, match=path.name):
            VariantStore(store.root).get(weight, W4, LAYER)
    path.write_bytes(content)
    VariantStore(store.root).get(weight, W4, LAYER)


def test_a_damaged_file_says_what_to_do(store, weight):
    store.get(weight, W4, LAYER)
    path = store.path(store.key(weight, W4, LAYER))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"a variant of conv; once deleted, it is built again"):
        VariantStore(store.root).get(weight, W4, LAYER)
    path.unlink()
    VariantStore(store.root).get(weight, W4, LAYER)


def test_a_file_under_anothers_name_is_refused(store, weight):
    for bits in (4, 5):
        store.get(weight, LayerSpec(weight_bits=bits), LAYER)
    four, five = (store.path(store.key(weight, LayerSpec(weight_bits=bits), LAYER)) for bits in (4, 5))
    four.write_bytes(five.read_bytes())
    with pytest.raises(IntegrityError, match="holds another variant than its name states"):
        VariantStore(store.root).get(weight, W4, LAYER)


def test_a_weight_that_cannot_be_compressed_leaves_no_file(store, weight):
    weight[0] = float("nan")
    with pytest.raises(SpecError, match="the weight of conv holds"):
        store.get(weight, W4, LAYER)
    assert not list(store.root.rglob("*"))


def test_a_failed_write_leaves_nothing_behind(store, weight, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.get(weight, W4, LAYER)
    assert not [path for path in store.root.rglob("*") if path.is_file()]


CHILD = """
import sys, torch
from pathlib import Path
from paredown.compressors import LayerInfo, LayerSpec, VariantStore
weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
layer = LayerInfo(fqn="conv", kind="conv2d", weight_shape=(8, 4, 3, 3))
store = VariantStore(Path(sys.argv[1]))
for bits in (2, 3, 4, 5, 6, 8):
    print(float(store.get(weight, LayerSpec(weight_bits=bits, rank=0.25), layer).effective.double().sum()))
"""


def test_processes_may_build_the_same_at_once(store):
    environment = {"PYTHONPATH": str(Path(paredown.__file__).parents[1]), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(store.root)], stdout=subprocess.PIPE, env=environment, text=True
        )
        for _ in range(2)
    ]
    printed = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert printed[0] == printed[1]
    files = [path for path in store.root.rglob("*") if path.is_file()]
    assert len(files) == 6
    assert all(path.suffix == ".safetensors" for path in files)
