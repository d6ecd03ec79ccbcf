"""Checks `dinov2-edge export` against onnxruntime.

    pip install numpy onnx onnxruntime pillow safetensors
    python tests/check_onnxruntime.py target/release/dinov2-edge

For every fixture of crates/dinov2-onnx (models that torch exported, with what torch computes): convert, export in each
form, run by onnxruntime, and compare with torch's numbers and with what `dinov2-edge run` gives for the same picture.
Exits 1 if anything is further off than its limit.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from safetensors.numpy import load_file

FIXTURES = Path(__file__).parent.parent / "crates/dinov2-onnx/tests/fixtures"
# Relative L2 distance from torch's f32; the half fixture was computed by torch in f16.
LIMITS = {"hugging_face": 1e-5, "registers_swiglu": 1e-5, "timm_registers": 1e-5, "half_decoder": 5e-3}
F16_LIMIT = 5e-3


def distance(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def session(path):
    onnx.checker.check_model(str(path), full_check=True)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def numbers(text):
    return np.array([float(word) for word in text.split()], np.float32).reshape(3, 1, 1)


def pixels_for(path, image):
    """The normalised input, by the mean and standard deviation that the file's metadata states."""
    facts = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    pixels = image.transpose(2, 0, 1).astype(np.float32) / 255
    return ((pixels - numbers(facts["dinov2_edge.mean"])) / numbers(facts["dinov2_edge.std"]))[None]


def baked_positions(path):
    constants = onnx.load(path).graph.initializer
    return next(onnx.numpy_helper.to_array(tensor) for tensor in constants if tensor.name == "pos_embed")


def check(program, name, folder):
    def call(*words):
        subprocess.run([program, *map(str, words)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    expected = load_file(FIXTURES / f"{name}.safetensors")
    image = expected["image"]
    height, width = image.shape[:2]
    model, picture, features = folder / "model.safetensors", folder / "picture.png", folder / "features.safetensors"
    call("convert", FIXTURES / f"{name}.onnx", "-o", model)
    fixed, dynamic, half = folder / "static.onnx", folder / "dynamic.onnx", folder / "half.onnx"
    call("export", model, "-o", fixed, "--size", f"{width}x{height}")
    call("export", model, "-o", dynamic, "--size", "dynamic")
    call("export", model, "-o", half, "--size", f"{width}x{height}", "--precision", "f16")
    pixels = pixels_for(fixed, image)
    table = {"position_embedding": baked_positions(fixed)}
    tokens = {
        "static": session(fixed).run(["last_hidden_state"], {"pixel_values": pixels})[0][0],
        "dynamic": session(dynamic).run(["last_hidden_state"], {"pixel_values": pixels} | table)[0][0],
        "half": session(half).run(["last_hidden_state"], {"pixel_values": pixels})[0][0],
    }
    Image.fromarray(image).save(picture)
    call("run", "--model", model, "--input", picture, "--size", "native", "--output", features)
    own = load_file(features)
    parts = [own["cls"][None], own.get("registers", np.zeros((0, own["cls"].size), np.float32))]
    tokens["run"] = np.concatenate([*parts, own["patches"].reshape(-1, own["cls"].size)])
    passed = True
    for form, got in tokens.items():
        off = distance(got, expected["tokens"])
        limit = max(LIMITS[name], F16_LIMIT) if form == "half" else LIMITS[name]
        passed &= off <= limit
        print(f"{name:18} {form:8} {off:.1e} (limit {limit:.0e}){'' if off <= limit else '  FAILED'}")
    return passed


def main():
    program = Path(sys.argv[1]).resolve()
    passed = []
    for name in LIMITS:
        with tempfile.TemporaryDirectory() as folder:
            passed.append(check(program, name, Path(folder)))
    sys.exit(0 if all(passed) else 1)


main()
