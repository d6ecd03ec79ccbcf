"""The peers that `compare.py` measures, each in a process of its own that stays warm between rounds.

A worker reads commands from stdin and answers each with one JSON line: `features IN.npy OUT.npy` (pixels u8
[height, width, 3] in, final patch tokens [patches, dim] out) or `run N` (milliseconds of N frames).
What is timed starts at normalised f32 pixels [1, 3, height, width] and ends at tokens in main memory; our own engine
is timed from u8 pixels, its normalisation included. The int8 peers quantize the same f32 ONNX file when they start,
each with its own vendor's tool.
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

CALIBRATION_PHOTOGRAPHS = 64


def normalise(image):
    pixels = (image.astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def photographs(job, count):
    """`count` photographs spread over the calibration folder, middle crops: normalised, [1, 3, height, width] each."""
    from PIL import Image, ImageOps

    size = (job["cols"] * job["patch_size"], job["rows"] * job["patch_size"])
    for path in spread(calibration_files(job["calibration"])[::2], count):
        yield normalise(np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), size, Image.Resampling.BICUBIC)))


def calibration_files(folder):
    """Calibration takes every other photograph, the agreement check those between."""
    return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def spread(things, count):
    return things[:: max(1, len(things) // count)][:count]


def onnxruntime_peer(job):
    return onnxruntime_session(job["onnx"], job)


def onnxruntime_session(path, job):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def onnxruntime_int8_peer(job):
    """Dynamic int8 of the constant matrices. Kernels of CPUs without VNNI saturate unless weights have 7 bits only
    (`reduce_range`), on others 8 bits are better: the closer of the two to f32 on photographs runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    wanted = onnxruntime_peer(job)
    best = None
    for bits in (7, 8):
        path = str(Path(job["scratch"], f"{job['rows']}x{job['cols']}-{bits}bit.onnx"))
        quantize_dynamic(
            job["onnx"],
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=bits == 7,
            weight_type=QuantType.QInt8,
        )
        forward = onnxruntime_session(path, job)
        closeness = np.median([cosines(wanted(pixels)[0], forward(pixels)[0]) for pixels in photographs(job, 4)])
        print(f"onnxruntime-int8, {bits}-bit weights: median cosine to f32 {closeness:.5f}", file=sys.stderr)
        if best is None or closeness > best[0]:
            best = (closeness, forward, f"{bits}-bit weights")
    return best[1:]


def openvino_peer(job):
    import openvino

    # Without the hint, CPUs with bf16 units would compute in bf16.
    return openvino_request(openvino.Core().read_model(job["onnx"]), job, {"INFERENCE_PRECISION_HINT": "f32"})


def openvino_request(model, job, settings):
    import openvino

    settings = settings | {"INFERENCE_NUM_THREADS": job["threads"], "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def forward(pixels):
        request.infer([pixels])
        return request.get_output_tensor(0).data

    return forward


def openvino_bf16_peer(job):
    import openvino

    return openvino_request(openvino.Core().read_model(job["onnx"]), job, {"INFERENCE_PRECISION_HINT": "bf16"})


def openvino_int8_peer(job):
    """Post-training quantization by NNCF; what stays in floating point runs in OpenVINO's own choice for this CPU."""
    import nncf
    import openvino

    nncf.set_log_level(30)
    model = nncf.quantize(
        openvino.Core().read_model(job["onnx"]),
        nncf.Dataset(list(photographs(job, CALIBRATION_PHOTOGRAPHS))),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=CALIBRATION_PHOTOGRAPHS,
    )
    return openvino_request(model, job, {}), f"nncf {version('nncf')}"


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


def cosines(want, got):
    """Cosine per token, [tokens, dim] each."""
    want, got = want.astype(np.float64), got.astype(np.float64)
    return (want * got).sum(axis=1) / (np.linalg.norm(want, axis=1) * np.linalg.norm(got, axis=1))


# Name: (maker, package whose version is told, arithmetic). A maker gives pixels -> tokens, or that and a note.
PEERS = {
    "onnxruntime": (onnxruntime_peer, "onnxruntime", "f32"),
    "openvino": (openvino_peer, "openvino", "f32"),
    "pytorch": (pytorch_peer, "torch", "f32"),
    "openvino-bf16": (openvino_bf16_peer, "openvino", "bf16"),
    "onnxruntime-int8": (onnxruntime_int8_peer, "onnxruntime", "int8"),
    "openvino-int8": (openvino_int8_peer, "openvino", "int8"),
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
    make, package, _ = PEERS[job["peer"]]
    answer = sys.stdout
    # Whatever a library prints must not mix with the answers.
    sys.stdout = sys.stderr
    made = make(job)
    forward, note = made if isinstance(made, tuple) else (made, None)
    told = version(package) + (f", {note}" if note else "")
    patches = job["rows"] * job["cols"]
    pixels = None
    print(json.dumps({"ready": True, "version": told}), file=answer, flush=True)
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
