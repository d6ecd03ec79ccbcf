"""Reads a recording with the readers of others and compares every field.

    pip install mcap mcap-ros2-support rosbags numpy pillow safetensors
    python tests/check_recording.py RECORDING.mcap [FOLDER] [--images FOLDER] [--cut]

RECORDING.mcap: what `dinov2-edge run --record` wrote. FOLDER: the features of the same frames as `--output FOLDER` wrote
them, in the same order; they must equal the recorded ones after rounding to the stored type. --images: the images that
were recorded, in the order of their names; the JPEGs must decode to nearly the same. --cut: the recording of a process
that was killed, without its end. Exits 1 if anything differs.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from mcap.exceptions import EndOfFile
from mcap.reader import NonSeekingReader, make_reader
from mcap.stream_reader import StreamReader
from mcap_ros2.decoder import DecoderFactory
from PIL import Image
from rosbags.highlevel import AnyReader
from safetensors.numpy import load_file

DTYPES = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "int8": np.dtype("i1")}
# JPEG at quality 90 with chroma at half the size, on photographs.
MEAN_IMAGE_ERROR = 4.0


def require(condition, *words):
    if not condition:
        sys.exit("FAILED: " + " ".join(map(str, words)))


def stamp_ns(message):
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def read_mcap(path):
    """Every message as (topic, log time, message), and the metadata record, by the package `mcap`."""
    with open(path, "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        header, summary = reader.get_header(), reader.get_summary()
        require(header.profile == "ros2", "profile", header.profile)
        require(summary.statistics.message_count > 0, "no messages")
        require(all(schema.encoding == "ros2msg" for schema in summary.schemas.values()), "schema encoding")
        require(all(channel.message_encoding == "cdr" for channel in summary.channels.values()), "message encoding")
        messages = [
            (channel.topic, message.log_time, decoded)
            for _, channel, message, decoded in reader.iter_decoded_messages()
        ]
        require(len(messages) == summary.statistics.message_count, "messages and their count differ")
        metadata = {record.name: record.metadata for record in reader.iter_metadata()}
    with open(path, "rb") as file:
        # Checks the chunks' CRCs on the way.
        list(StreamReader(file, validate_crcs=True).records)
    return messages, metadata["dinov2_edge"]


def read_cut(path):
    """As read_mcap, without asking for a summary, up to where the file breaks off."""
    messages, metadata = [], {}
    with open(path, "rb") as file:
        reader = NonSeekingReader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        try:
            # In file order: by time it would want the end before the first message.
            for _, channel, message, decoded in reader.iter_decoded_messages(log_time_order=False):
                messages.append((channel.topic, message.log_time, decoded))
        except EndOfFile:
            pass
    with open(path, "rb") as file:
        for record in StreamReader(file).records:
            if type(record).__name__ == "Metadata":
                metadata = record.metadata
                break
    return messages, metadata


def fields(message):
    """A message as plain values, whichever package made it."""
    if isinstance(message, (str, bytes, int, float)):
        return message
    if isinstance(message, (list, np.ndarray)):
        return np.asarray(message).tobytes()
    names = getattr(message, "__slots__", None) or vars(message)
    return {name: fields(getattr(message, name)) for name in names if not name.startswith("__")}


def same(left, right, path=""):
    if isinstance(left, dict):
        require(left.keys() == right.keys(), path, left.keys(), right.keys())
        for name in left:
            same(left[name], right[name], f"{path}.{name}")
    elif isinstance(left, float):
        require(np.array_equal(np.float64(left), np.float64(right), equal_nan=True), path, left, right)
    else:
        require(left == right, path)


def compare_with_rosbags(path, messages):
    """rosbags, which shares no code with mcap, must read the same."""
    with AnyReader([Path(path)]) as reader:
        others = [
            (connection.topic, time, reader.deserialize(data, connection.msgtype))
            for connection, time, data in reader.messages()
        ]
    require(len(others) == len(messages), "rosbags reads", len(others), "messages, mcap", len(messages))
    key = lambda entry: (entry[1], entry[0])
    for (topic, time, message), (other_topic, other_time, other) in zip(sorted(messages, key=key), sorted(others, key=key)):
        require((topic, time) == (other_topic, other_time), "order", topic, other_topic)
        plain, other_plain = fields(message), fields(other)
        if "cls" in plain:
            # mcap gives a list of Python floats.
            plain["cls"] = np.asarray(message.cls, "<f4").tobytes()
        same(plain, other_plain, topic)


def features_of(message):
    values = np.frombuffer(bytes(message.data), DTYPES[message.dtype]).astype(np.float32) * np.float32(message.scale)
    return values.reshape(message.rows, message.cols, message.dim)


def check_frame(image, features, pca, metadata):
    require(image.format == "jpeg", "format", image.format)
    picture = Image.open(io.BytesIO(bytes(image.data)))
    require(picture.format == "JPEG", "camera image", picture.format)
    require(picture.size == (features.image_width, features.image_height), "image size", picture.size)
    picture = np.asarray(picture.convert("RGB"), np.float32)
    crop = (features.crop_left + features.crop_width, features.crop_top + features.crop_height)
    require(crop[0] <= features.image_width and crop[1] <= features.image_height, "crop", crop)
    require(features.crop_width > 0 and features.crop_height > 0, "crop is empty")
    require(features.model == metadata["model"] and metadata["model"], "model", features.model)
    require(str(features.patch_size) == metadata["patch_size_px"], "patch size", features.patch_size)
    require(features.dtype == metadata["features"], "dtype", features.dtype)
    require(len(features.cls) == features.dim, "class token of", len(features.cls))
    values = features_of(features)
    require(np.isfinite(values).all() and values.std() > 0, "features")
    for message in [image, features, *([pca] if pca else [])]:
        require(message.header == image.header or stamp_ns(message) == stamp_ns(image), "stamps differ")
        require(message.header.frame_id == image.header.frame_id, "frame ids differ")
    if pca:
        require(pca.format == "png", "format", pca.format)
        colours = np.asarray(Image.open(io.BytesIO(bytes(pca.data))))
        require(colours.shape == (features.rows, features.cols, 3), "picture of", colours.shape)
    return picture, values


def rounded(features, message):
    if message.dtype == "int8":
        return features, message.scale * 0.501
    return features.astype(DTYPES[message.dtype]).astype(np.float32), 0


def compare_with_norms(image, features, values):
    """The map of the head `norm`: a sensor_msgs/Image of one float per patch."""
    require((image.encoding, image.is_bigendian, image.step) == ("32FC1", 0, 4 * image.width), "encoding", image.encoding)
    require(stamp_ns(image) == stamp_ns(features), "stamps differ")
    norms = np.frombuffer(bytes(image.data), "<f4").reshape(image.height, image.width)
    expected = np.linalg.norm(values, axis=2)
    require(norms.shape == expected.shape, "norms", norms.shape)
    # Features are recorded in f16.
    require(np.abs(norms - expected).max() < 2e-3 * expected.max(), "norms", np.abs(norms - expected).max())


def compare_with_file(message, values, path):
    tensors = load_file(path)
    expected, limit = rounded(tensors["patches"], message)
    require(expected.shape == values.shape, path, expected.shape, values.shape)
    require(np.abs(expected - values).max() <= limit, path, np.abs(expected - values).max())
    require(np.array_equal(np.asarray(message.cls, np.float32), tensors["cls"]), path, "cls")


def compare_with_image(picture, path):
    expected = np.asarray(Image.open(path).convert("RGB"), np.float32)
    require(expected.shape == picture.shape, path, expected.shape, picture.shape)
    error = np.abs(expected - picture).mean()
    require(error < MEAN_IMAGE_ERROR, path, "mean error", error)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("recording")
    parser.add_argument("features", nargs="?", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--head-norm", action="store_true", help="expect the output of the head norm")
    parser.add_argument("--cut", action="store_true")
    arguments = parser.parse_args()

    messages, metadata = (read_cut if arguments.cut else read_mcap)(arguments.recording)
    if not arguments.cut:
        compare_with_rosbags(arguments.recording, messages)
    topics = {}
    for topic, _, message in messages:
        topics.setdefault(topic, []).append(message)
    require("/camera/image/compressed" in topics, "topics", *topics)
    images, features = topics["/camera/image/compressed"], topics["/dinov2/features"]
    pictures = topics.get("/dinov2/pca/compressed", [])
    norms = topics.get("/dinov2/norm", [])
    require(not arguments.head_norm or norms, "topics", *topics)
    require(len(images) == len(features) or arguments.cut, len(images), "images,", len(features), "features")
    require(len(pictures) in (0, len(images)) or arguments.cut, len(pictures), "pictures")
    frames = min([len(images), len(features), *([len(pictures)] if pictures else [])])
    feature_files = sorted(arguments.features.glob("*.safetensors")) if arguments.features else []
    image_files = sorted(arguments.images.glob("*.[jp][pn]g")) if arguments.images else []
    for files in (feature_files, image_files):
        require(not files or len(files) == frames, len(files), "files for", frames, "frames")
    for index in range(frames):
        pca = pictures[index] if pictures else None
        picture, values = check_frame(images[index], features[index], pca, metadata)
        if norms:
            compare_with_norms(norms[index], features[index], values)
        if feature_files:
            compare_with_file(features[index], values, feature_files[index])
        if image_files:
            compare_with_image(picture, image_files[index])
    for stats in topics.get("/dinov2/stats", []):
        require(stats.frames >= 0 and stats.uptime_s >= 0 and stats.throttled in (-1, 0, 1), "stats")
    compared = f"{len(feature_files)} feature files and {len(image_files)} images compared"
    print(f"{arguments.recording}: {frames} frames, {len(messages)} messages on {len(topics)} topics; {compared}")


main()
