"""Reads the metrics of a training run with TensorBoard's own readers and compares them with `metrics.jsonl`.

    pip install tbparse tensorboard pandas pillow
    python tests/check_events.py RUN_FOLDER [--pictures]

RUN_FOLDER: what `training distill` or the example `metrics` wrote. --pictures: expect at least one. Exits 1 if anything differs.
"""

import argparse
import io
import json
import math
import sys
from pathlib import Path

from PIL import Image
from tbparse import SummaryReader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def require(condition, *words):
    if not condition:
        sys.exit("FAILED: " + " ".join(map(str, words)))


def same(left, right):
    """Events hold f32; JSON has no NaN."""
    left, right = (math.nan if value is None else value for value in (left, right))
    return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-37)


def compare(expected, got, reader):
    require(expected.keys() == got.keys(), reader, "reads names", sorted(got), "not", sorted(expected))
    for name, numbers in expected.items():
        require(list(numbers) == list(got[name]), reader, name, "has steps", list(got[name]), "not", list(numbers))
        for step, number in numbers.items():
            require(same(number, got[name][step]), reader, name, "at step", step, got[name][step], "not", number)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", action="store_true")
    arguments = parser.parse_args()

    expected = {}
    for line in (arguments.run / "metrics.jsonl").read_text().splitlines():
        told = json.loads(line)
        require(told.pop("unix_s") > 1.7e9, "time")
        step = told.pop("step")
        for name, number in told.items():
            require(step > max(expected.get(name, {0: 0})), "steps of", name, "do not rise at", step)
            expected.setdefault(name, {})[step] = number
    require(expected, "no numbers")

    # Every event: nothing is thinned out.
    everything = {"scalars": 0, "images": 0}
    accumulator = EventAccumulator(str(arguments.run / "tensorboard"), size_guidance=everything)
    accumulator.Reload()
    tags = accumulator.Tags()
    got = {tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in tags["scalars"]}
    compare(expected, got, "tensorboard")

    frame = SummaryReader(str(arguments.run / "tensorboard")).scalars
    got = {tag: dict(zip(rows["step"], rows["value"])) for tag, rows in frame.groupby("tag")}
    compare(expected, got, "tbparse")

    pictures = 0
    for tag in tags["images"]:
        for event in accumulator.Images(tag):
            picture = Image.open(io.BytesIO(event.encoded_image_string))
            picture.load()
            require(picture.format == "PNG" and picture.size == (event.width, event.height), "picture", tag, event.step)
            file = arguments.run / "pictures" / f"{tag.replace('/', '_')}-{event.step:08}.png"
            require(file.read_bytes() == event.encoded_image_string, file, "is another picture")
            pictures += 1
    require(pictures or not arguments.pictures, "no pictures")
    print(f"{sum(map(len, expected.values()))} numbers of {len(expected)} names, {pictures} pictures: all equal")


main()
