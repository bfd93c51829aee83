"""Cards of the runtimes and of the formats of artifacts."""

from __future__ import annotations

from ..._cards import Card

_ELSEWHERE = "nothing here measures its speed: latency is modelled"

CARDS: dict[str, dict[str, Card]] = {
    "runtime": {
        "torch": Card(
            does="Eager PyTorch: weights are decoded on loading, products run in FP32",
            cost="always there",
            good_for="what the other runtimes cannot export; wide linear layers of dynamic activations run in integers",
            did_not_help="latency: ResNet-20 4.18 ms, ONNX Runtime 1.10 (one core)",
            paper="Ansel 2024, PyTorch 2",
        ),
        "torch-compile": Card(
            does="PyTorch's compiler on the same files",
            cost="a C++ compiler; each new shape is compiled first, seconds to minutes",
            good_for="models that stay in PyTorch and run long",
            paper="Ansel 2024, PyTorch 2",
        ),
        "onnxruntime": Card(
            does="ONNX Runtime on the CPU, with int8 products where weights and activations are int8; the default",
            cost="paredown[onnxruntime]",
            good_for="CNNs: ResNet-20 in int8 0.73 ms, FP32 1.10",
            did_not_help="transformers in int8: KWT-1 5.30 ms, FP32 4.87; odd numbers of depthwise channels",
            paper="none",
        ),
        "openvino": Card(
            does="OpenVINO on the CPU, with int8 products, and weights alone of 4 and 8 bits in wide layers",
            cost="paredown[openvino]",
            good_for="FP32 transformers (KWT-1 3.07 ms, ONNX Runtime 4.87) and CNNs in int8",
            did_not_help="KWT-1 in int8: 6.23 ms, FP32 3.07",
            paper="none",
        ),
    },
    "format": {
        "paredown": Card(
            does="One safetensors file of packed codes, and structure.json where something was removed",
            cost="decoded to FP32 on loading",
            good_for="bytes, and whatever has numpy (docs/artifact.md); every kind of point",
            did_not_help="latency: products run in FP32",
            paper="Duda 2013, Asymmetric Numeral Systems (for --entropy)",
        ),
        "onnx": Card(
            does="An ONNX graph with QuantizeLinear and DequantizeLinear",
            cost="weights below 8 bits are written dense, but for wide linear layers",
            good_for="ONNX Runtime and whatever reads ONNX; every kind of point",
            did_not_help="bytes below 8 bits of convolutions and embeddings",
            paper="none",
        ),
        "openvino": Card(
            does="OpenVINO's .xml and .bin",
            cost="weights below 8 bits are written dense, but for wide linear layers",
            good_for="OpenVINO on Intel's CPUs; every kind of point",
            did_not_help="bytes of embedding tables, which stay FP32",
            paper="none",
        ),
        "pt2": Card(
            does="A program of torch.export with the effective weights in FP32",
            cost="as many bytes as the original",
            good_for="models handed in from Python, which no other process can build; every kind of point",
            did_not_help="bytes and latency: weights are dense",
            paper="Ansel 2024, PyTorch 2",
        ),
        "tensorrt-onnx": Card(
            does="An ONNX graph with explicit quantization as TensorRT 10 reads it",
            cost=_ELSEWHERE,
            good_for="NVIDIA GPUs: int8, INT4 blocks, 2:4; every kind of point",
            did_not_help="activations with zero points: they become symmetric",
            paper="none",
        ),
        "compressed-tensors": Card(
            does="A Hugging Face folder with a quantization_config",
            cost=_ELSEWHERE,
            good_for="vLLM and transformers: linear layers of 2 to 8 bits",
            did_not_help="removed structure, and int8 activations of convolutions: refused by name",
            paper="none",
        ),
        "torchao-config": Card(
            does="torchao's config for each linear layer, without numbers",
            cost="no manifest and no claim: torchao rounds again, so measure again",
            good_for="models that are quantized by torchao anyway",
            did_not_help="removed structure, zeros, rank, palettes, calibrated ranges: refused by name",
            paper="none",
        ),
        "executorch": Card(
            does="A .pte program lowered to XNNPACK, with the effective weights in FP32",
            cost="paredown[executorch], 200 MB; " + _ELSEWHERE,
            good_for="phones, as a first try",
            did_not_help="bytes and latency: no integer kernels yet",
            paper="none",
        ),
        "config": Card(
            does="The JSON config of a point alone, without weights",
            cost="none",
            good_for="reading, editing, and paredown apply",
            paper="none",
        ),
    },
}
"""Kind -> name -> card."""
