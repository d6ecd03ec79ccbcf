#!/usr/bin/env python3
"""Measures dinov2-edge against onnxruntime, OpenVINO, PyTorch and tract in one run on one machine.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    cargo build --release -p dinov2-edge --features tract
    venv/bin/python compare.py --binary ../../target/release/dinov2-edge --model MODEL.safetensors \
        --sizes 224 518 --threads 2 --output ../../docs/benchmarks.md

Peers run a static ONNX file that our own `dinov2-edge export` writes from the same model file (PyTorch: the same
weights in `tests/fixtures/official_vit.py` with fused attention), f32, one image, the same number of threads. Before
anything is timed, every peer's patch tokens must agree with ours (cosine per patch at least 0.999). Then everybody is
measured in turn, round after round, each in its own process; the ratio in the table is the median over rounds of
(our median / the peer's median in the same round), so that a machine that slows down slows everybody.

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

from workers import PEERS

OURS = "dinov2-edge"
TRACT = "tract"
LEAST_COSINE = 0.999


class Worker:
    """A Python peer in its own process."""

    def __init__(self, job):
        environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
        command = [sys.executable, str(Path(__file__).with_name("workers.py")), json.dumps(job)]
        self.name = job["peer"]
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

    def __init__(self, name, backend, options, size, version):
        self.name, self.backend, self.options, self.size, self.version = name, backend, options, size, version

    def command(self, verb, *arguments):
        engine = ["--backend", self.backend, "--precision", "f32", "--threads", str(self.options.threads)]
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


def test_image(size, folder):
    """A smooth picture with some texture, as PNG for our binary and as npy for the workers."""
    from PIL import Image

    rng = np.random.default_rng(7)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.int16)
    pixels = np.clip(pixels + rng.integers(-20, 21, pixels.shape), 0, 255).astype(np.uint8)
    image = {"png": folder / "image.png", "npy": folder / "image.npy"}
    Image.fromarray(pixels).save(image["png"])
    np.save(image["npy"], pixels)
    return image


def check_agreement(contenders, image, folder):
    """Every contender's patch tokens against the first one's."""
    expected = contenders[0].features(image, folder).astype(np.float64)
    agreement = {}
    for contender in contenders:
        got = contender.features(image, folder).astype(np.float64)
        if got.shape != expected.shape:
            raise SystemExit(f"{contender.name}: expected tokens {expected.shape}, got {got.shape}")
        norms = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
        agreement[contender.name] = float(((got * expected).sum(axis=1) / norms).min())
        if not agreement[contender.name] >= LEAST_COSINE:
            raise SystemExit(
                f"{contender.name}: patch cosine with {contenders[0].name}: expected at least {LEAST_COSINE}, "
                f"got {agreement[contender.name]}"
            )
    return agreement


def contenders_for(options, size, folder):
    """Ours first, where there is a binary."""
    onnx = options.onnx or folder / f"model-{size}.onnx"
    contenders = []
    if options.onnx is None:
        export = [str(options.binary), "export", str(options.model), "--size", f"{size}x{size}", "-o", str(onnx)]
        subprocess.run(export, check=True)
        said = subprocess.run([str(options.binary), "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
        contenders.append(Binary(OURS, "cpu", options, size, said.split()[-1]))
    side = size // options.patch_size
    for peer in options.peers:
        if peer == TRACT:
            contenders.append(Binary(TRACT, "onnx", options, size, "in " + OURS))
        else:
            job = {"peer": peer, "onnx": str(onnx), "model": str(options.model), "threads": options.threads}
            contenders.append(Worker(job | {"rows": side, "cols": side}))
    return contenders


def measure_size(options, size, folder):
    contenders = contenders_for(options, size, folder)
    agreement = check_agreement(contenders, test_image(size, folder), folder)
    rounds = {contender.name: [] for contender in contenders}
    for index in range(options.rounds):
        for contender in contenders:
            rounds[contender.name].append(contender.measure(options.iterations, options.warmup))
        medians = "  ".join(f"{name} {values[-1]['median']:.1f}" for name, values in rounds.items())
        print(f"{size} px, round {index + 1}/{options.rounds}: {medians}", file=sys.stderr)
    for contender in contenders:
        contender.close()
    versions = {contender.name: contender.version for contender in contenders}
    return {"size": size, "rounds": rounds, "least_patch_cosine": agreement, "versions": versions}


def table(result):
    """One size as Markdown."""
    first = next(iter(result["rounds"]))
    ours = [one["median"] for one in result["rounds"][first]]
    lines = [
        f"### {result['size']} x {result['size']}",
        "",
        f"| | version | median ms | min ms | {first} / peer | least patch cosine |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, values in result["rounds"].items():
        medians = [one["median"] for one in values]
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, medians))
        shown = "" if name == first else f"{ratio:.2f}"
        lines.append(
            f"| {name} f32 | {result['versions'][name]} | {statistics.median(medians):.1f} | "
            f"{min(one['min'] for one in values):.1f} | {shown} | {result['least_patch_cosine'][name]:.6f} |"
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
    parser.add_argument("--peers", nargs="+", choices=[*PEERS, TRACT], default=[*PEERS, TRACT])
    parser.add_argument("--output", type=Path, help="file for the result: .md, or .json with every sample")
    options = parser.parse_args()
    if (options.model is None) == (options.onnx is None):
        parser.error("expected either --model or --onnx")
    if options.onnx:
        options.peers = [peer for peer in options.peers if peer in ("onnxruntime", "openvino")]
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
