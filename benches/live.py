"""What a live run costs beside the bare engine: `python benches/live.py PROGRAM [ROUNDS]`. Needs no camera and no packages.

Rounds alternate between `bench` (the bare engine) and live runs of a synthetic 640x480 camera, so that a slow phase of the
machine meets both. Medians over rounds:

- engine: how long a frame takes the engine, beside bare
- share: part of the time from frame to frame in which the engine works; the rest is the pipeline's doing
- throughput: frames per second beside bare = share / engine
- wait: from capture to features less the engine's time, where the engine is faster than the camera (no frame waits for it)
"""

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

SECONDS, PORT = 8, 18_123
SIZE = "294x224"


def bare(program):
    words = [program, "bench", "--size", SIZE, "--iterations", "60", "--json"]
    return json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["latency_ms"]["median"]


def live(program, *words, path=None):
    """Runs a camera; with a path, someone watches the page's stream."""
    view = [] if path is None else ["--view", str(PORT)]
    words = [program, "run", "--camera", "test:640x480@30", "--duration", str(SECONDS), "--json", *view, *words]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if path is not None:
        threading.Thread(target=watch, args=[path], daemon=True).start()
    times, frames = [], []
    for line in process.stdout:
        times.append(time.monotonic())
        frames.append(json.loads(line)["latency_ms"])
    # The first frame of a size sizes the engine's buffers.
    times, frames = times[2:], frames[2:]
    step_ms = (times[-1] - times[0]) / (len(times) - 1) * 1e3
    median = {key: statistics.median(frame[key] for frame in frames) for key in frames[0]}
    share = statistics.mean(frame["extract"] for frame in frames[1:]) / step_ms
    return {"engine": median["extract"], "share": share, "wait": median["to_features"] - median["extract"]} | median


def watch(path):
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/{path}", timeout=5) as answer:
                while answer.read(1 << 16):
                    pass
            return
        except http.client.HTTPException:
            # The run ended in the middle of a picture.
            return
        except OSError:
            time.sleep(0.1)


def main():
    program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    kinds = {"camera": {}, "page, nobody looks": {"path": "healthz"}, "page, one stream": {"path": "stream.mjpg"}}
    rows = {kind: [] for kind in kinds}
    waits = []
    for _ in range(rounds):
        for kind, options in kinds.items():
            base = bare(program)
            run = live(program, **options)
            rows[kind].append((run["engine"] / base, run["share"], run["share"] * base / run["engine"]))
        waits.append(live(program, "--size", "70"))
    print("| | engine / bare | share | throughput / bare |\n|---|---:|---:|---:|")
    for kind, samples in rows.items():
        medians = [statistics.median(column) for column in zip(*samples)]
        print(f"| {kind} | " + " | ".join(f"{value:.3f}" for value in medians) + " |")
    median = {key: statistics.median(run[key] for run in waits) for key in ["wait", "read", "fit"]}
    print(f"wait {median['wait']:.2f} ms, of it read {median['read']:.2f} and fit {median['fit']:.2f}")


if __name__ == "__main__":
    main()
