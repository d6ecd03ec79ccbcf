"""Trains on shards in an S3 server that others wrote, and makes the mistakes that people make.

    pip install 'moto[server]' boto3 numpy pillow
    python tests/check_object_store.py target/debug/training

The program must have the feature object-store. Shards are made by Python's tarfile and put into a bucket of moto; training on
them must give the same student, bit for bit, as training on the same shards on the disk: by S3, by plain HTTP, from a manifest
of `curate`, and over a line that breaks all the time. A wrong address or credential must end the program with one line and exit
code 1, within seconds; a server that is gone while a run is under way must do so after the retries, which takes two minutes, and
the run must go on from its checkpoint when the server is back. Exits 1 if anything differs.
"""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TEACHER = ROOT / "models/vits14-focus-int8.safetensors"
RECIPE = """
seed = 1
validation_images = 2
student = { start = "scratch", dim = 32, depth = 1, heads = 1, mlp_hidden = 32 }
loss = { statistics_images = 8, masked = 0.0 }
[[stages]]
steps = STEPS
batch = 4
views = { sizes_px = [28], scale = [0.5, 1.0], ratio = [0.8, 1.25], flip = 0.5, grey = 0.0, mixup = 0.0 }
"""
BUCKET, FOLDER = "photos", "set one"
SHARDS, IMAGES_PER_SHARD = 3, 8
# Longest that a wrong address may take, and that a run may hold on to a server that is gone, on a slow machine.
HASTY_S, PATIENT_S = 60, 300


def require(condition, *words):
    if not condition:
        sys.exit("FAILED: " + " ".join(map(str, words)))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def jpeg(random):
    """Noise, so that files are some 17 KB and no two are alike."""
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize((160, 120), Image.BICUBIC)
    pixels = np.asarray(coarse, np.int16) + random.integers(-60, 60, (120, 160, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def make_shards(folder):
    random = np.random.default_rng(5)
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as archive:
            members = [(f"{shard}-{index}.jpg", jpeg(random)) for index in range(IMAGES_PER_SHARD)]
            members += [(f"{shard}-0.txt", b"a caption"), (f"{shard}-broken.jpg", b"no image")]
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


class Server:
    """moto in a process of its own, with the shards in a bucket."""

    def __init__(self, shards, port=None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-c", "from moto.server import main; main()", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait()
        self.s3 = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
        )
        self.s3.create_bucket(Bucket=BUCKET)
        for shard in sorted(shards.iterdir()):
            self.put(f"{FOLDER}/{shard.name}", shard.read_bytes())
        self.put(f"{FOLDER}/readme.txt", b"no shard")
        self.put("cut.tar", (shards / "000.tar").read_bytes()[:5_000])
        self.put("text.tar", b"no archive" * 100)
        self.put("empty.tar", b"")

    def wait(self):
        for _ in range(600):
            try:
                return urllib.request.urlopen(self.url + "/moto-api/").close()
            except urllib.error.HTTPError:
                return
            except OSError:
                require(self.process.poll() is None, "moto ended")
                time.sleep(0.1)
        sys.exit("FAILED: moto does not answer")

    def put(self, key, content):
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=content, ACL="public-read")

    def ask_for_keys(self):
        """From now on moto checks who asks."""
        request = urllib.request.Request(self.url + "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request).close()

    def stop(self):
        self.process.kill()
        self.process.wait()


class BrokenLine:
    """Passes bytes on to a server. Of three connections one is closed at once, and one amid the answer."""

    def __init__(self, port):
        self.target, self.cut = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        for count in range(1_000_000):
            client, _ = self.listener.accept()
            if count % 3 == 2:
                self.cut += 1
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.carry, args=(client, server, None), daemon=True).start()
            most_bytes = 10_000 if count % 3 == 0 else None
            threading.Thread(target=self.carry, args=(server, client, most_bytes), daemon=True).start()

    def carry(self, source, target, most_bytes):
        carried = 0
        try:
            while content := source.recv(4_096):
                target.sendall(content)
                carried += len(content)
                if most_bytes and carried > most_bytes:
                    self.cut += 1
                    break
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Program:
    """The program under test, in a folder for what it writes."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def start(self, *words, url=None, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        if url:
            environment |= {"AWS_ENDPOINT": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
            environment |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        # A variable of everyday life, which is not meant for a store.
        environment |= {"TOKEN": "no session token"} | variables
        environment = {name: value for name, value in environment.items() if value is not None}
        return subprocess.Popen(
            [self.binary, *map(str, words)], env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def distill(self, data, name, *words, steps=8, **settings):
        recipe = self.folder / "recipe.toml" if steps == 8 else self.folder / f"recipe-{steps}.toml"
        recipe.write_text(RECIPE.replace("STEPS", str(steps)))
        common = ["distill", "--recipe", recipe, "--teacher", TEACHER, "--workers", 2, "--output", self.folder / name]
        return self.start(*common, *words, "--data", data, **settings)

    def result(self, data, name, *words, **settings):
        """Student, losses and what could not be read, the images under their names in the shards."""
        process = self.distill(data, name, *words, **settings)
        _, told = process.communicate(timeout=600)
        require(process.returncode == 0, data, told)
        folder = self.folder / name
        events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [event for event in events if "loss" in json.dumps(event)]
        for event in losses:
            event.pop("unix_s")
        unreadable = [line.split("\t")[0].rsplit("/", 1)[1] for line in (folder / "unreadable.txt").read_text().splitlines()]
        return (folder / "student.safetensors").read_bytes(), losses, unreadable

    def refusal(self, data, told, **settings):
        """One line and exit code 1."""
        begun = time.monotonic()
        process = self.distill(data, "refused", **settings)
        _, words = process.communicate(timeout=HASTY_S)
        lines = words.splitlines()
        require(process.returncode == 1 and len(lines) == 1, data, "exit code", process.returncode, words)
        require(lines[0].startswith("error: ") and told in lines[0] and len(lines[0]) < 600, data, "expected", told, "got", words)
        require(data in lines[0], "no address in", words)
        print(f"  {time.monotonic() - begun:4.1f} s  {lines[0]}")


def same(results):
    (_, (student, losses, unreadable)), *others = results.items()
    require(len(losses) >= 8 and len(unreadable) == SHARDS, len(losses), "losses,", unreadable)
    for name, (other_student, other_losses, other_unreadable) in others:
        require(other_losses == losses, name, "losses differ")
        require(other_unreadable == unreadable, name, other_unreadable, unreadable)
        require(other_student == student, name, "students differ")


def check_same_students(program, server, shards):
    line = BrokenLine(server.port)
    address = f"s3://{BUCKET}/{FOLDER}"
    results = {
        "disk": program.result(shards, "disk"),
        "folder": program.result(f"{address}/", "folder", url=server.url),
        "braces": program.result(f"{address}/{{000..{SHARDS - 1:03}}}.tar", "braces", url=server.url),
        "http": program.result(f"{server.url}/{BUCKET}/{FOLDER}/{{000..{SHARDS - 1:03}}}.tar", "http"),
        "broken line": program.result(f"{address}/", "line", url=line.url),
    }
    same(results)
    require(line.cut > 5, "only", line.cut, "connections were cut")
    print(f"{len(results)} students are the same, one over a line with {line.cut} cut connections")


def check_manifest(program, server):
    """A manifest of `curate` names shards by their addresses."""
    curated = program.folder / "curated"
    words = ["curate", f"s3://{BUCKET}/{FOLDER}/", "--output", curated, "--model", TEACHER, "--side", 28, "--levels", 2]
    # To this model noise is noise.
    words += ["--duplicate-cosine", 1, "--hashed-cosine", 1, "--chained-cosine", 1]
    process = program.start(*words, url=server.url)
    _, told = process.communicate(timeout=600)
    require(process.returncode == 0, "curate", told)
    entries = [json.loads(line) for line in (curated / "manifest.jsonl").read_text().splitlines()]
    shards = {entry["member"]["shard"] for entry in entries}
    require(shards == {f"s3://{BUCKET}/{FOLDER}/{shard:03}.tar" for shard in range(SHARDS)}, *shards)
    require(sum(entry["kept"] for entry in entries) > 4, "curate has kept too few")
    process = program.distill(curated / "manifest.jsonl", "manifest", "--stop-after", 2, url=server.url)
    _, told = process.communicate(timeout=600)
    require(process.returncode == 0, "distill on a manifest", told)
    print(f"a manifest of {len(entries)} images by address was trained on")


def check_refusals(program, server):
    print("mistakes:")
    good = {"url": server.url}
    program.refusal(f"s3://{BUCKET}/absent.tar", "NoSuchKey", **good)
    program.refusal("s3://nobucket/a.tar", "NoSuchBucket", **good)
    program.refusal("s3://nobucket/folder/", "NoSuchBucket", **good)
    program.refusal(f"s3://{BUCKET}/nothing here/", "got none in", **good)
    program.refusal(f"s3://{BUCKET}/{FOLDER}/readme.txt", ".tar shard", **good)
    program.refusal(f"s3://{BUCKET}/cut.tar", "tar archive: expected an entry within the archive", **good)
    program.refusal(f"s3://{BUCKET}/text.tar", "tar archive: expected a header with the check sum", **good)
    program.refusal(f"s3://{BUCKET}/empty.tar", "object store: ", **good)
    program.refusal(f"s3://{BUCKET}/a.tar", "Connection refused", url=f"http://127.0.0.1:{free_port()}")
    nobody = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    nobody["AWS_METADATA_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    program.refusal(f"s3://{BUCKET}/a.tar", "no credentials: expected AWS_ACCESS_KEY_ID", **good, **nobody)
    server.ask_for_keys()
    program.refusal(f"s3://{BUCKET}/{FOLDER}/", "InvalidAccessKeyId", **good)


def check_server_that_goes(program, shards):
    """Also tells that the run goes on from its checkpoint when the server is back."""
    server = Server(shards)
    folder = program.folder / "gone"
    settings = {"steps": 1_000_000, "url": server.url}
    process = program.distill(f"s3://{BUCKET}/{FOLDER}/", "gone", "--checkpoint-every", 5, **settings)
    while not list((folder / "checkpoints").glob("*.safetensors")):
        require(process.poll() is None, "the run has ended before it began")
        time.sleep(0.1)
    server.stop()
    begun = time.monotonic()
    _, told = process.communicate(timeout=PATIENT_S)
    waited = time.monotonic() - begun
    errors = [line for line in told.splitlines() if line.startswith("error")]
    require(process.returncode == 1 and len(errors) == 1, "exit code", process.returncode, told)
    require(errors[0].startswith("error: object store: ") and told.splitlines()[-1] == errors[0], told)
    unreadable = folder / "unreadable.txt"
    require(not unreadable.exists() or len(unreadable.read_text().splitlines()) <= SHARDS, "good images are called unreadable")
    kept = max(int("".join(filter(str.isdigit, path.stem))) for path in (folder / "checkpoints").glob("*.safetensors"))
    server = Server(shards, server.port)
    words = ["--resume", "--stop-after", kept + 3]
    process = program.distill(f"s3://{BUCKET}/{FOLDER}/", "gone", *words, **settings)
    _, told = process.communicate(timeout=600)
    server.stop()
    require(process.returncode == 0, "resume", told)
    print(f"a server that went ended the run after {waited:.0f} s; it went on from step {kept}:\n  {errors[0]}")


def main():
    require(len(sys.argv) == 2, "usage: check_object_store.py BINARY")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shards = folder / "shards"
        make_shards(shards)
        program = Program(Path(sys.argv[1]).resolve(), folder)
        server = Server(shards)
        try:
            check_same_students(program, server, shards)
            check_manifest(program, server)
            check_refusals(program, server)
        finally:
            server.stop()
        check_server_that_goes(program, shards)


main()
