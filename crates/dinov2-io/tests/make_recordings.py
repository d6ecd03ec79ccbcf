"""Makes tests/fixtures/recordings: recordings as others write them, and the images that are in them.

    pip install mcap mcap-ros2-support rosbags numpy pillow
    python crates/dinov2-io/tests/make_recordings.py

The images are parts of fixtures/photo.png. NAME.png has the images of NAME.mcap under each other, in the order of their
log times, which are 1,700,000,000 s + 40 ms x index; their stamps are 3 ms earlier.
"""

import io
import pathlib
import shutil
import tempfile

import numpy
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from mcap_ros2.writer import Writer as Ros2Writer
from PIL import Image
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter
from rosbags.typesys import Stores, get_typestore

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
RECORDINGS = FIXTURES / "recordings"
WIDTH, HEIGHT = 34, 26
START_NS = 1_700_000_000_000_000_000
HEADER = """
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
COMPRESSED_IMAGE = "std_msgs/Header header\nstring format\nuint8[] data" + HEADER
IMAGE = """std_msgs/Header header
uint32 height
uint32 width
string encoding
uint8 is_bigendian
uint32 step
uint8[] data""" + HEADER


def photos(count):
    photo = Image.open(FIXTURES / "photo.png").convert("RGB")
    return [photo.crop((7 * step, 5 * step, 7 * step + WIDTH, 5 * step + HEIGHT)) for step in range(count)]


def encoded(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 90, "subsampling": "4:4:4"} if kind == "JPEG" else {}))
    return buffer.getvalue()


def decoded(data):
    return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def log_ns(index):
    return START_NS + index * 40_000_000


def header(index):
    stamp = log_ns(index) - 3_000_000
    return {"stamp": {"sec": stamp // 10**9, "nanosec": stamp % 10**9}, "frame_id": "front"}


def save_stack(name, images):
    Image.fromarray(numpy.concatenate(images)).save(RECORDINGS / f"{name}.png", optimize=True)


def zstd():
    """Compressed images among other messages, in several chunks, written in another order than that of their times."""
    name = "zstd"
    data = [encoded(image, "PNG" if index % 3 == 2 else "JPEG") for index, image in enumerate(photos(9))]
    with open(RECORDINGS / f"{name}.mcap", "wb") as file, Ros2Writer(file, chunk_size=1500) as writer:
        text = writer.register_msgdef("std_msgs/msg/String", "string data")
        image = writer.register_msgdef("sensor_msgs/msg/CompressedImage", COMPRESSED_IMAGE)
        for index in [1, 0, 2, 5, 3, 4, 6, 8, 7]:
            writer.write_message("/chatter", text, {"data": f"frame {index} " * 9}, log_time=log_ns(index))
            message = {"header": header(index), "format": "bgr8; jpeg compressed bgr8", "data": data[index]}
            writer.write_message("/front/image_raw/compressed", image, message, log_time=log_ns(index))
    save_stack(name, [decoded(image) for image in data])


def yuv(image):
    """Luma and chroma of ITU-R BT.601, limited range, at half the columns, and the RGB that they stand for."""
    rgb = numpy.asarray(image).astype(float)
    y = 16 + (rgb @ [65.481, 128.553, 24.966]) / 255
    u = 128 + (rgb @ [-37.797, -74.203, 112.0]) / 255
    v = 128 + (rgb @ [112.0, -93.786, -18.214]) / 255
    y, u, v = (plane.round().astype(numpy.uint8) for plane in (y, u[:, ::2], v[:, ::2]))
    return y, u, v


def rgb_of(y, u, v):
    luma = (y.astype(float) - 16) * 255 / 219
    u, v = ((plane.astype(float) - 128) * 255 / 224 for plane in (u, v))
    rgb = [luma + 1.402 * v, luma - 0.344136 * u - 0.714136 * v, luma + 1.772 * u]
    return numpy.stack(rgb, -1).round().clip(0, 255).astype(numpy.uint8)


def repeat(plane, rows, cols):
    return plane.repeat(rows, 0).repeat(cols, 1)


def raw_images():
    """An image in each encoding: (encoding, bytes [rows, row bytes], big-endian, RGB)."""
    photo = iter(photos(14))
    rgb = lambda: numpy.asarray(next(photo))
    grey = lambda: numpy.asarray(next(photo).convert("L"))
    flat = lambda array: array.reshape(len(array), -1)
    threefold = lambda array: array[:, :, None].repeat(3, 2)
    opaque = numpy.full((HEIGHT, WIDTH, 1), 200, numpy.uint8)
    for encoding in ["rgb8", "bgr8", "rgba8", "bgra8"]:
        image = rgb()
        channels = image if encoding.startswith("rgb") else image[:, :, ::-1]
        yield encoding, flat(numpy.concatenate([channels, opaque], 2) if "a" in encoding else channels), 0, image
    image = grey()
    yield "mono8", image, 0, threefold(image)
    for big_endian in (0, 1):
        image = grey()
        deep = (image.astype(numpy.uint16) << 8 | 77).astype(">u2" if big_endian else "<u2")
        yield "mono16", deep.view(numpy.uint8), big_endian, threefold(image)
    for encoding in ["yuv422", "yuv422_yuy2", "uyvy", "yuyv"]:
        y, u, v = yuv(next(photo))
        order = [y[:, ::2], u, y[:, 1::2], v] if "yuy" in encoding else [u, y[:, ::2], v, y[:, 1::2]]
        yield encoding, flat(numpy.stack(order, -1)), 0, rgb_of(y, repeat(u, 1, 2), repeat(v, 1, 2))
    for encoding in ["nv12", "nv21"]:
        y, u, v = yuv(next(photo))
        u, v = u[::2], v[::2]
        chroma = flat(numpy.stack([u, v] if encoding == "nv12" else [v, u], -1))
        yield encoding, numpy.concatenate([y, chroma]), 0, rgb_of(y, repeat(u, 2, 2), repeat(v, 2, 2))


def lz4():
    """Raw images in every encoding that is read, every other with padded rows, behind a depth image of another topic."""
    name, images = "lz4", []
    with open(RECORDINGS / f"{name}.mcap", "wb") as file:
        with Ros2Writer(file, chunk_size=8000, compression=CompressionType.LZ4) as writer:
            schema = writer.register_msgdef("sensor_msgs/msg/Image", IMAGE)
            depth = {"header": header(0), "height": 2, "width": 2, "encoding": "16UC1", "is_bigendian": 0, "step": 4}
            writer.write_message("/depth/image_raw", schema, depth | {"data": bytes(8)}, log_time=log_ns(0) - 1)
            for index, (encoding, rows, big_endian, image) in enumerate(raw_images()):
                rows = numpy.pad(rows, ((0, 0), (0, 6 * (index % 2))), constant_values=99)
                message = {"header": header(index), "height": HEIGHT, "width": WIDTH, "encoding": encoding}
                message |= {"is_bigendian": big_endian, "step": rows.shape[1], "data": rows.tobytes()}
                writer.write_message("/color/image_raw", schema, message, log_time=log_ns(index))
                images.append(image)
    save_stack(name, images)


def rosbags_messages(count):
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    for index, image in enumerate(photos(count)):
        stamp = types["builtin_interfaces/msg/Time"](**header(index)["stamp"])
        head = types["std_msgs/msg/Header"](stamp=stamp, frame_id="front")
        yield store, types["sensor_msgs/msg/Image"](
            header=head,
            height=HEIGHT,
            width=WIDTH,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * WIDTH,
            data=numpy.asarray(image).reshape(-1),
        )


def rosbags():
    """As rosbag2 records with the preset `zstd_small`."""
    name, kind = "rosbags", "sensor_msgs/msg/Image"
    folder = pathlib.Path(tempfile.mkdtemp())
    writer = RosbagsWriter(folder / name, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = None
        for index, (store, message) in enumerate(rosbags_messages(4)):
            connection = connection or writer.add_connection("/camera/image_raw", kind, typestore=store)
            writer.write(connection, log_ns(index), store.serialize_cdr(message, kind))
    shutil.copy(next((folder / name).glob("*.mcap")), RECORDINGS / f"{name}.mcap")
    shutil.rmtree(folder)
    save_stack(name, [numpy.asarray(image) for image in photos(4)])


def plain():
    """Without chunks, index and checksums, and every other message big-endian."""
    name, kind = "plain", "sensor_msgs/msg/Image"
    with open(RECORDINGS / f"{name}.mcap", "wb") as file:
        writer = McapWriter(file, use_chunking=False, enable_crcs=False)
        writer.start(profile="ros2")
        schema = writer.register_schema(kind, "ros2msg", IMAGE.encode())
        channel = writer.register_channel("/camera/image_raw", "cdr", schema)
        messages = list(enumerate(rosbags_messages(4)))
        for index, (store, message) in messages[1:] + messages[:1]:
            data = bytes(store.serialize_cdr(message, kind, little_endian=index % 2 == 0))
            writer.add_message(channel, log_ns(index), data, log_ns(index))
        writer.finish()
    save_stack(name, [numpy.asarray(image) for image in photos(4)])


def main():
    shutil.rmtree(RECORDINGS, ignore_errors=True)
    RECORDINGS.mkdir()
    for make in (zstd, lz4, rosbags, plain):
        make()
    print(f"{sum(path.stat().st_size for path in RECORDINGS.iterdir())} bytes in {RECORDINGS.name}")


if __name__ == "__main__":
    main()
