"""The peers that `compare.py` measures, each in a process of its own that stays warm between rounds.

A worker reads commands from stdin and answers each with one JSON line: `features IN.npy OUT.npy` (pixels u8
[height, width, 3] in, final patch tokens [patches, dim] out) or `run N` (milliseconds of N frames).
What is timed starts at normalised f32 pixels [1, 3, height, width] and ends at tokens in main memory; our own engine
is timed from u8 pixels, its normalisation included.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

# ImageNet mean and standard deviation, RGB order, inputs in 0..=1 (DINOv2 eval transform).
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def normalise(image):
    pixels = (image.astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def onnxruntime_peer(job):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def openvino_peer(job):
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": job["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        # Without this, CPUs with bf16 units would compute in bf16.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(job["onnx"]), "CPU", settings).create_infer_request()

    def forward(pixels):
        request.infer([pixels])
        return request.get_output_tensor(0).data

    return forward


def pytorch_peer(job):
    import torch

    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "fixtures"))
    from official_vit import OfficialVit

    torch.set_num_threads(job["threads"])
    state, spec = read_model(job["model"])
    shape = OfficialVit.shape_of(state, spec["heads"])
    vit = OfficialVit(shape, fused=True)
    vit.load_state_dict(state, strict=False)
    table = positions(state["pos_embed"], spec, job["rows"], job["cols"])
    vit.positions = lambda rows, cols: table
    vit.eval()

    def forward(pixels):
        with torch.inference_mode():
            return vit(torch.from_numpy(pixels)).numpy()

    return forward


def read_model(path):
    """Our model file as an official f32 state dict, and its VitSpec."""
    import torch
    from safetensors import safe_open

    state = {}
    with safe_open(path, "pt") as file:
        spec = json.loads(file.metadata()["dinov2_edge"])["spec"]
        for name in file.keys():
            if name.endswith(".scale"):
                continue
            tensor = file.get_tensor(name)
            if tensor.dtype == torch.int8:
                scale = file.get_tensor(f"{name}.scale").float().reshape(-1, *[1] * (tensor.dim() - 1))
                tensor = tensor.float() * scale
            state[name] = tensor.float()
    patch = spec["patch_size"]
    weight = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = weight.reshape(weight.shape[0], 3, patch, patch)
    state.setdefault("mask_token", torch.zeros(1, spec["dim"]))
    return state, spec


def positions(table, spec, rows, cols):
    """The position table of a grid by the convention of the model file."""
    import torch
    from torch.nn.functional import interpolate

    stored = spec["position_table"]
    if (stored["rows"], stored["cols"]) == (rows, cols):
        return table
    grid = table[:, 1:].reshape(1, stored["rows"], stored["cols"], -1).permute(0, 3, 1, 2)
    match spec["position_convention"]:
        case "official_scale_factor":
            factor = ((rows + 0.1) / stored["rows"], (cols + 0.1) / stored["cols"])
            grid = interpolate(grid, scale_factor=factor, mode="bicubic")
        case "exact_size":
            grid = interpolate(grid, size=(rows, cols), mode="bicubic")
        case "exact_size_antialias":
            grid = interpolate(grid, size=(rows, cols), mode="bicubic", antialias=True)
        case other:
            raise ValueError(f"position convention {other!r}")
    return torch.cat((table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)


PEERS = {
    "onnxruntime": (onnxruntime_peer, "onnxruntime"),
    "openvino": (openvino_peer, "openvino"),
    "pytorch": (pytorch_peer, "torch"),
}


def milliseconds(forward, pixels, count):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        forward(pixels)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def main():
    job = json.loads(sys.argv[1])
    make, package = PEERS[job["peer"]]
    forward = make(job)
    patches = job["rows"] * job["cols"]
    pixels = None
    answer = sys.stdout
    # Whatever a library prints must not mix with the answers.
    sys.stdout = sys.stderr
    print(json.dumps({"ready": True, "version": version(package)}), file=answer, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["features", source, target]:
                pixels = normalise(np.load(source))
                np.save(target, np.asarray(forward(pixels))[0, -patches:])
                print(json.dumps({"done": True}), file=answer, flush=True)
            case ["run", count]:
                print(json.dumps({"ms": milliseconds(forward, pixels, int(count))}), file=answer, flush=True)
            case other:
                raise ValueError(f"command {other}")


if __name__ == "__main__":
    main()
