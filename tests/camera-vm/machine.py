"""What the scenarios do with the guest: its cameras, and the program under test."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import uvc_camera

MODULES = os.environ["MODULES"]
DEVICE = "/dev/video0"
# Emulated, everything takes ten to thirty times as long, and the host may be busy.
PATIENCE_S = 60
VIVID = pathlib.Path("/sys/bus/platform/drivers/vivid")
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(*words, check=True):
    """Runs a program; returns what it said."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: exit status {done.returncode}: {done.stdout}")
    return done.stdout


def wait_for(what, condition, seconds=PATIENCE_S):
    """Until it is true; returns what it is."""
    deadline = time.monotonic() + seconds
    while not (outcome := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"expected {what} within {seconds} s")
        time.sleep(0.02)
    return outcome


def load(module, *options):
    run("modprobe", "-d", MODULES, module, *options)


def plug_vivid(cameras=1):
    """Loads vivid with nothing but video capture: /dev/video0 and so on."""
    load("vivid", f"n_devs={cameras}", "node_types=" + ",".join(["0x1"] * cameras))
    wait_for("vivid's devices", lambda: os.path.exists(f"/dev/video{cameras - 1}"))


def unplug_vivid():
    """Unloads it; whoever still streams is told that the device is gone."""
    for device in VIVID.glob("vivid.*"):
        bind(device.name, False)
    wait_for("vivid to be unused", lambda: subprocess.run(["rmmod", "vivid"], stderr=subprocess.DEVNULL).returncode == 0)


def bind(name, there):
    """The driver takes the device, or is made to let go of it, whatever runs: /dev/video appears and vanishes."""
    (VIVID / ("bind" if there else "unbind")).write_text(name)


def set_control(name, value=1, device=DEVICE):
    run("v4l2-ctl", "-d", device, "--set-ctrl", f"{name}={value}")


def control(name, device=DEVICE):
    return int(run("v4l2-ctl", "-d", device, "--get-ctrl", name).split(":")[1])


def usb_camera():
    """A USB camera that gives the cat; not plugged in yet."""
    load("vhci-hcd")
    load("uvcvideo")
    jpegs = uvc_camera.split_jpegs((ROOT / "examples/media/cat.mjpeg").read_bytes())
    return uvc_camera.UvcCamera(jpegs, 448, 336, fps=15)


class Program:
    """`dinov2-edge run` with the small model; as a context it is killed at the end."""

    binary = model = None

    def __init__(self, *words):
        size = [] if "--size" in words else ["--size", "56x56"]
        # One thread leaves a processor to the emulated camera.
        words = [self.binary, "run", *map(str, words), *size, "--model", self.model, "--threads", "1", "--json"]
        self.line = " ".join(words)
        environment = dict(os.environ, RUST_BACKTRACE="1")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.frames, self.notes, self.out = [], [], []
        self.readers = [threading.Thread(target=work) for work in (self._read_frames, self._read_notes)]
        for reader in self.readers:
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.kill()
        self._join()
        if kind is not None:
            print(f"    {self.line}\n    {len(self.frames)} frames; stderr:", *self.notes, sep="\n    ")

    def _read_frames(self):
        for line in self.process.stdout:
            self.out.append(line)
            if line.startswith("{"):
                self.frames.append(json.loads(line))

    def _read_notes(self):
        for line in self.process.stderr:
            self.notes.append(line.rstrip())

    def _join(self):
        status = self.process.wait(PATIENCE_S)
        for reader in self.readers:
            reader.join(PATIENCE_S)
        return status

    def wait_frames(self, more):
        """Until so many more frames have come than have now."""
        goal = len(self.frames) + more
        wait_for(f"{more} more frames", lambda: len(self.frames) >= goal or self.process.poll() is not None)
        assert len(self.frames) >= goal, f"expected {more} more frames, got the end of the program"

    def wait_note(self, pattern):
        return wait_for(f"a line like {pattern!r}", lambda: self.note(pattern))

    def note(self, pattern):
        return next((line for line in list(self.notes) if re.search(pattern, line)), None)

    def finish(self, expected=0):
        """Waits for its end; returns its last line."""
        status = self._join()
        assert status == expected, f"expected exit status {expected}, got {status}"
        assert not self.note("panicked"), self.note("panicked")
        return self.notes[-1] if self.notes else ""

    def stop(self, how=signal.SIGTERM):
        """Asks it to end; returns the summary and how many milliseconds it took."""
        start = time.monotonic()
        self.process.send_signal(how)
        status = self.process.wait(PATIENCE_S)
        took_ms = (time.monotonic() - start) * 1e3
        self._join()
        assert status == 0, f"expected exit status 0 after {how.name}, got {status}"
        return self.notes[-1], took_ms


def counted(summary, what):
    """A number of the last line, such as of `3 corrupt`."""
    found = re.search(rf"(\d+) {what}", summary)
    return int(found[1]) if found else 0
