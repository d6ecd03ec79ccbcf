#!/usr/bin/env python3
"""Measures dinov2-edge against onnxruntime, OpenVINO, PyTorch and tract in one run on one machine.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    cargo build --release -p dinov2-cli --features tract
    venv/bin/python compare.py --binary ../../target/release/dinov2-edge --model MODEL.safetensors \
        --sizes 224 518 --threads 2 --output ../../docs/benchmarks.md

Peers run a static ONNX file that our own `dinov2-edge export` writes from the same model file (PyTorch: the same
weights in `tests/fixtures/official_vit.py` with fused attention), one image, the same number of threads. Before
anything is timed, everybody's patch tokens must agree with our f32 engine's (without a binary: the first f32 peer's):
in f32 the least cosine over patches must reach 0.999, in reduced precision the median 0.99; what was reached is in the
table. Then everybody is measured in turn, round after round, each in its own process; the ratio in the table is the
median over rounds of (our median / the peer's median in the same round), so that a machine that slows down slows
everybody.

The int8 peers (`--peers onnxruntime-int8 openvino-int8`, --precision int8 for ours) quantize the same ONNX file:
onnxruntime dynamically, per channel, the constant matrices; OpenVINO by NNCF after training, for transformers, on 64
photographs of --calibration DIR. With that option agreement is judged on 8 other photographs of the folder.

--onnx FILE measures the peers alone on any ONNX file of that size (no binary needed; not PyTorch). The result is a
Markdown table; --output also writes it to a file (.json: every sample). Close other programs first.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from workers import CALIBRATION_PHOTOGRAPHS, PEERS, calibration_files, cosines, spread

OURS = "dinov2-edge"
TRACT = "tract"
LEAST_COSINE_F32 = 0.999
LEAST_MEDIAN_REDUCED = 0.99
AGREEMENT_PHOTOGRAPHS = 8


class Worker:
    """A Python peer in its own process."""

    def __init__(self, job):
        environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
        command = [sys.executable, str(Path(__file__).with_name("workers.py")), json.dumps(job)]
        self.name = job["peer"]
        self.precision = PEERS[self.name][2]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.version = self.answer()["version"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the worker ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def features(self, image, folder):
        target = folder / f"{self.name}.npy"
        self.ask(f"features {image['npy']} {target}")
        return np.load(target)

    def measure(self, iterations, warmup):
        self.ask(f"run {warmup}")
        times = sorted(self.ask(f"run {iterations}")["ms"])
        return {"median": statistics.median(times), "min": times[0], "samples": times}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Binary:
    """One of our own engines: started per round, warms up by itself."""

    def __init__(self, name, backend, precision, options, size, version):
        self.name, self.backend, self.precision, self.options = name, backend, precision, options
        self.size, self.version = size, version

    def command(self, verb, *arguments):
        engine = ["--backend", self.backend, "--precision", self.precision, "--threads", str(self.options.threads)]
        command = [str(self.options.binary), verb, "--model", str(self.options.model), *engine, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def features(self, image, folder):
        from safetensors.numpy import load_file

        target = folder / f"{self.name}.safetensors"
        self.command("run", "--input", str(image["png"]), "--size", "native", "--output", str(target))
        patches = load_file(target)["patches"]
        return patches.reshape(-1, patches.shape[-1])

    def measure(self, iterations, warmup):
        size = ["--size", f"{self.size}x{self.size}", "--iterations", str(iterations), "--warmup", str(warmup)]
        facts = json.loads(self.command("bench", *size, "--json").strip().splitlines()[-1])
        return {"median": facts["latency_ms"]["median"], "min": facts["latency_ms"]["min"]}

    def close(self):
        pass


def test_images(options, size, folder):
    """Each as PNG for our binary and as npy for the workers: photographs, else a smooth picture with some texture."""
    from PIL import Image, ImageOps

    if options.calibration:
        files = spread(calibration_files(options.calibration)[1::2], AGREEMENT_PHOTOGRAPHS)
        opened = (Image.open(file).convert("RGB") for file in files)
        pictures = [np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)) for picture in opened]
    else:
        rng = np.random.default_rng(7)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.int16)
        pictures = [np.clip(pixels + rng.integers(-20, 21, pixels.shape), 0, 255).astype(np.uint8)]
    images = []
    for index, pixels in enumerate(pictures):
        image = {"png": folder / f"image-{size}-{index}.png", "npy": folder / f"image-{size}-{index}.npy"}
        Image.fromarray(pixels).save(image["png"])
        np.save(image["npy"], pixels)
        images.append(image)
    return images


def check_agreement(reference, contenders, images, folder):
    """Every contender's patch tokens against the reference's: quantiles of the cosine over all images' patches."""
    expected = [reference.features(image, folder) for image in images]
    agreement = {}
    for contender in contenders:
        got = [contender.features(image, folder) for image in images]
        if got[0].shape != expected[0].shape:
            raise SystemExit(f"{contender.name}: expected tokens {expected[0].shape}, got {got[0].shape}")
        reached = np.concatenate([cosines(want, have) for want, have in zip(expected, got)])
        least, p5, median = (float(value) for value in np.quantile(reached, (0, 0.05, 0.5)))
        agreement[contender.name] = {"least": least, "p5": p5, "median": median}
        exact = contender.precision == "f32"
        name, value, limit = ("least", least, LEAST_COSINE_F32) if exact else ("median", median, LEAST_MEDIAN_REDUCED)
        if not value >= limit:
            raise SystemExit(
                f"{contender.name}: {name} patch cosine with {reference.name} f32: "
                f"expected at least {limit}, got {value}"
            )
    return agreement


def contenders_for(options, size, folder):
    """The reference of the agreement check, and the contenders: ours first, where there is a binary."""
    onnx = options.onnx or folder / f"model-{size}.onnx"
    contenders = []
    reference = None
    if options.onnx is None:
        export = [str(options.binary), "export", str(options.model), "--size", f"{size}x{size}", "-o", str(onnx)]
        subprocess.run(export, check=True)
        said = subprocess.run([str(options.binary), "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
        contenders.append(Binary(OURS, "cpu", options.precision, options, size, said.split()[-1]))
        reference = Binary(OURS, "cpu", "f32", options, size, said.split()[-1])
    side = size // options.patch_size
    for peer in options.peers:
        if peer == TRACT:
            contenders.append(Binary(TRACT, "onnx", "f32", options, size, "in " + OURS))
        else:
            job = {"peer": peer, "onnx": str(onnx), "model": str(options.model), "threads": options.threads}
            job |= {"rows": side, "cols": side, "patch_size": options.patch_size}
            contenders.append(Worker(job | {"calibration": str(options.calibration), "scratch": str(folder)}))
    return reference or next(peer for peer in contenders if peer.precision == "f32"), contenders


def measure_size(options, size, folder):
    reference, contenders = contenders_for(options, size, folder)
    agreement = check_agreement(reference, contenders, test_images(options, size, folder), folder)
    rounds = {contender.name: [] for contender in contenders}
    for index in range(options.rounds):
        for contender in contenders:
            rounds[contender.name].append(contender.measure(options.iterations, options.warmup))
        medians = "  ".join(f"{name} {values[-1]['median']:.1f}" for name, values in rounds.items())
        print(f"{size} px, round {index + 1}/{options.rounds}: {medians}", file=sys.stderr)
    for contender in contenders:
        contender.close()
    versions = {contender.name: contender.version for contender in contenders}
    precisions = {contender.name: contender.precision for contender in contenders}
    return {"size": size, "rounds": rounds, "patch_cosine": agreement, "versions": versions, "precisions": precisions}


def table(result):
    """One size as Markdown."""
    first = next(iter(result["rounds"]))
    ours = [one["median"] for one in result["rounds"][first]]
    lines = [
        f"### {result['size']} x {result['size']}",
        "",
        f"| | version | median ms | min ms | {first} / peer | patch cosine: median | p5 | least |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, values in result["rounds"].items():
        medians = [one["median"] for one in values]
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, medians))
        shown = "" if name == first else f"{ratio:.2f}"
        precision = result["precisions"][name]
        label = name if name.endswith(precision) else f"{name} {precision}"
        cosine = result["patch_cosine"][name]
        lines.append(
            f"| {label} | {result['versions'][name]} | {statistics.median(medians):.1f} | "
            f"{min(one['min'] for one in values):.1f} | {shown} | "
            f"{cosine['median']:.5f} | {cosine['p5']:.5f} | {cosine['least']:.5f} |"
        )
    return "\n".join(lines)


def machine():
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}


def report(options, results):
    facts = machine()
    described = options.onnx.name if options.onnx else options.model.name
    command = shlex.join(["python3", Path(sys.argv[0]).name, *sys.argv[1:]])
    heading = [
        f"Date: {datetime.date.today().isoformat()}. Machine: {facts['cpu']}, {facts['cores']} cores, {facts['system']}.",
        f"Model: {described}; {options.threads} threads; {options.rounds} rounds of {options.iterations} frames, in turn.",
        f"Command: `{command}`",
    ]
    return "\n\n".join(["\n".join(heading), *map(table, results)]) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("../../target/release/dinov2-edge"))
    parser.add_argument("--model", type=Path, help="model file of dinov2-edge")
    parser.add_argument("--onnx", type=Path, help="measure the peers alone on this ONNX file")
    parser.add_argument("--patch-size", type=int, default=14)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 518])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=20, help="frames per round")
    parser.add_argument("--warmup", type=int, default=3, help="frames before each round")
    exact = [name for name, (_, _, precision) in PEERS.items() if precision == "f32"]
    parser.add_argument("--peers", nargs="+", choices=[*PEERS, TRACT], default=[*exact, TRACT])
    parser.add_argument("--precision", default="f32", help="arithmetic of our side, as --precision of dinov2-edge")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="photographs for the int8 peers")
    parser.add_argument("--output", type=Path, help="file for the result: .md, or .json with every sample")
    options = parser.parse_args()
    if (options.model is None) == (options.onnx is None):
        parser.error("expected either --model or --onnx")
    if options.onnx:
        options.peers = [peer for peer in options.peers if peer not in ("pytorch", TRACT)]
        if not set(options.peers) & {"onnxruntime", "openvino"}:
            parser.error("--onnx: expected onnxruntime or openvino among the peers, as the f32 reference")
    if any(peer.endswith("int8") for peer in options.peers):
        least = 2 * CALIBRATION_PHOTOGRAPHS
        if options.calibration is None or len(calibration_files(options.calibration)) < least:
            parser.error(f"int8 peers: expected --calibration DIR with at least {least} photographs")
    if any(size <= 0 or size % options.patch_size for size in options.sizes):
        parser.error(f"--sizes: expected multiples of {options.patch_size}, got {options.sizes}")
    if options.rounds < 1 or options.iterations < 1 or not options.peers:
        parser.error("expected at least one round, one iteration and one peer")
    return options


def main():
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        results = [measure_size(options, size, Path(folder)) for size in options.sizes]
    text = report(options, results)
    if options.output and options.output.suffix == ".json":
        everything = {"machine": machine(), "threads": options.threads, "results": results}
        options.output.write_text(json.dumps(everything, indent=1))
    elif options.output:
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{shlex.join(map(str, error.cmd))}: exit status {error.returncode}") from None
