"""Frames with random faults for a long time, as root of the guest: `soak.py PROGRAM MODEL MINUTES [SEED]`.

The program runs with page and recording. Exit status 0 if frames never stopped coming for good, and memory, file descriptors
and threads stayed flat.
"""

import pathlib
import random
import subprocess
import sys
import time
import urllib.request

import machine
from machine import Program, bind, plug_vivid, set_control, unplug_vivid, usb_camera, wait_for

SAMPLE_S = 10
# Allocators round, and so does the kernel's count of pages.
MEMORY_SLACK_KIB = 3072


def faults(usb):
    """Things that happen to cameras."""
    once = ["inject_v4l2_buf_flag_error", "inject_vidioc_qbuf_error", "inject_fatal_streaming_error", "disconnect"]
    before_reopening = ["inject_vidioc_reqbufs_error", "inject_vidioc_streamon_error"]

    def driver():
        set_control(random.choice(once))

    def driver_twice():
        set_control(random.choice(before_reopening))
        set_control("inject_fatal_streaming_error")

    def gone():
        bind("vivid.0", False)
        time.sleep(random.uniform(0, 4))
        bind("vivid.0", True)
        wait_for("vivid's device", lambda: pathlib.Path(machine.DEVICE).exists())

    def drops():
        set_control("percentage_of_dropped_buffers", random.choice([0, 10, 50]))

    def pulled_out():
        usb.unplug()
        time.sleep(random.uniform(0, 4))
        usb.plug()

    def stalls():
        usb.stalled = True
        time.sleep(random.uniform(1, 6))
        usb.stalled = False

    def broken_jpegs():
        usb.cut_every, usb.faulty_every = random.choice([(0, 0), (2, 0), (5, 3)])

    return [driver, driver_twice, gone, drops, pulled_out, stalls, broken_jpegs]


def usage(process):
    """Resident memory in KiB, open files, threads."""
    folder = pathlib.Path(f"/proc/{process.pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]), len(list((folder / "fd").iterdir())), int(status["Threads"])


def look():
    """What somebody who has the page open and a monitoring system ask for."""
    for path in ["metrics", "snapshot?camera=0", "snapshot?camera=1"]:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:8080/{path}", timeout=20).read()
        except OSError:
            # A camera that is away has no picture.
            pass


def flat(name, samples, slack):
    """The last third does not need more than the second did."""
    third = len(samples) // 3
    before, after = max(samples[third : 2 * third]), max(samples[2 * third :])
    print(f"{name}: at most {before} in the second third, {after} in the last", flush=True)
    return after <= before + slack


def main():
    Program.binary, Program.model, minutes, *seed = sys.argv[1:]
    seed = int(seed[0]) if seed else int(time.time())
    random.seed(seed)
    print(f"seed {seed}", flush=True)
    plug_vivid()
    usb = usb_camera()
    usb.plug()
    wait_for("the USB camera", lambda: pathlib.Path("/dev/video1").exists())
    cameras = ["--camera", machine.DEVICE, "--camera", "/dev/video1", "--camera-size", "320x180", "--camera-fps", "15"]
    with Program(*cameras, "--view", "127.0.0.1:8080", "--record", "/tmp/soak.mcap") as program:
        program.wait_frames(10)
        samples, happened, end = [], 0, time.monotonic() + 60 * float(minutes)
        while time.monotonic() < end:
            for _ in range(3):
                random.choice(faults(usb))()
                happened += 1
                time.sleep(random.uniform(0, SAMPLE_S / 3))
            look()
            program.wait_frames(5)
            samples.append(usage(program.process))
            # A recording in a guest's memory must not fill it.
            subprocess.run(["truncate", "--size=0", "/tmp/soak.mcap"], check=True)
        summary, _ = program.stop()
    usb.unplug()
    unplug_vivid()
    memory, files, threads = zip(*samples)
    print(f"{happened} faults, {len(samples)} samples; {summary}", flush=True)
    kept = [flat("memory in KiB", memory, MEMORY_SLACK_KIB), flat("open files", files, 0), flat("threads", threads, 0)]
    return 0 if all(kept) and not program.note("panicked") else 1


if __name__ == "__main__":
    sys.exit(main())
