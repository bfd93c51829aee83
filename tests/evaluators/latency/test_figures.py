"""Facts of the machine: read from the system's files, and measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from paredown.errors import InputError
from paredown.evaluators import Pinning
from paredown.evaluators.latency import (
    FORMS,
    CacheFacts,
    LayerShape,
    caches,
    cpu_model,
    graph_of,
    instruction_sets,
    machine_facts,
    machine_profile,
    measure_machine,
    nearest_profile,
    one_layer_ms,
    reason_against,
)
from paredown.hardware_profiles import load_profile


def test_the_machine_is_read_from_its_files(tmp_path: Path) -> None:
    core = tmp_path / "cpu" / "cpu3"
    for n, (level, kind, size) in enumerate((("1", "Data", "48K"), ("2", "Unified", "2M"))):
        (core / "cache" / f"index{n}").mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (core / "cache" / f"index{n}" / name).write_text(f"{text}\n")
    (core / "cache" / "index1" / "shared_cpu_list").write_text("0-3,8\n")
    assert caches(3, tmp_path) == [
        CacheFacts(name="L1d", bytes=49152, shared_by=1), CacheFacts(name="L2", bytes=2097152, shared_by=5)
    ]  # fmt: skip
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU"
    assert instruction_sets(tmp_path / "cpuinfo") == ["avx2", "avx512_vnni"]


def test_threads_are_those_that_the_runtime_reports() -> None:
    class OneThread:
        def reported_threads(self) -> int:
            return 1

    facts = machine_facts(OneThread(), threads=4, pinning=Pinning(asked=(0,), got=(0,), nodes=(1,), memory_node=1))
    assert (facts["threads"], facts["runtime_threads"]) == (4, 1)
    assert (facts["cores"], facts["numa_nodes"], facts["memory_node"]) == ([0], [1], 1)
    assert "runtime_threads" not in machine_facts(threads=4)


SHAPES = (
    LayerShape(operator="linear", weight=(32, 32), input=(3, 32), n=2),
    LayerShape(operator="conv2d", weight=(8, 8, 3, 3), input=(8, 6, 6), n=2),
    LayerShape(operator="conv2d", weight=(8, 1, 3, 3), input=(8, 6, 6), groups=8),
)


def test_macs_by_hand() -> None:
    assert [shape.macs for shape in SHAPES] == [3 * 32 * 32, 8 * 8 * 9 * 36, 8 * 9 * 36]


def test_every_form_is_a_valid_graph_with_the_zeros_that_it_says() -> None:
    onnx = pytest.importorskip("onnx")
    for shape in SHAPES:
        for form in FORMS:
            if reason_against(shape, form) is None:
                onnx.checker.check_model(onnx.load_from_string(graph_of(shape, form)))
    model = onnx.load_from_string(graph_of(SHAPES[1], "2:4"))
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    assert ((weight.reshape(-1, 4) != 0).sum(axis=1) == 2).all()
    model = onnx.load_from_string(graph_of(SHAPES[0], "zeros90"))
    assert np.mean(onnx.numpy_helper.to_array(model.graph.initializer[0]) == 0) == pytest.approx(0.9, abs=0.05)


def test_a_layer_that_is_lost_beside_the_session_keeps_half_of_its_time() -> None:
    assert one_layer_ms(0.010, 2.0, 4) == pytest.approx(0.002)
    # the session alone took longer than a session with layers: noise, and no layer is infinitely fast
    assert one_layer_ms(0.010, 12.0, 2) == pytest.approx(0.0025)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_machine_is_measured(runtime: str) -> None:
    pytest.importorskip(runtime)
    pytest.importorskip("onnx")
    found = measure_machine(runtime, shapes=SHAPES, seconds=0.0)
    assert found.runtime_threads == 1
    json.dumps(found.to_dict(), allow_nan=False)
    assert machine_profile(found, load_profile(nearest_profile(found))).cpu == cpu_model()
    by_form = {(k.shape, k.form): k for k in found.kernels}
    assert len(by_form) == len(SHAPES) * len(FORMS)
    linear = SHAPES[0].label
    assert by_form[linear, "int8"].kernel != by_form[linear, "fp32"].kernel != ""
    # an integer kernel ran, and of zeros no runtime here makes anything
    assert any(mark in by_form[linear, "int8"].kernel for mark in ("I8", "QLinear", "Integer"))
    assert by_form[linear, "zeros90"].kernel == by_form[linear, "fp32"].kernel
    assert by_form[SHAPES[1].label, "w4"].ms is None
    assert by_form[SHAPES[1].label, "w4"].note
    assert all(figure.value > 0 for figure in (*found.rates_gmac_s.values(), *found.bandwidth_gb_s.values()))


def test_a_runtime_that_reads_no_onnx_is_refused() -> None:
    with pytest.raises(InputError, match="measured with openvino or onnxruntime, got 'torch'"):
        measure_machine("torch")
