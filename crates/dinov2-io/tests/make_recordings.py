"""Makes tests/fixtures/recordings: recordings as others write them, and the images that are in them.

    pip install mcap mcap-ros2-support rosbags numpy opencv-python-headless pillow
    python crates/dinov2-io/tests/make_recordings.py

The images are parts of fixtures/photo.png. NAME.png has the images of NAME.mcap under each other, in the order of their
log times, which are 1,700,000,000 s + 40 ms x index; their stamps are 3 ms earlier.
"""

import io
import pathlib
import shutil
import tempfile

import cv2
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


# OpenCV names a mosaic by its second row and column.
OPENCV = {"rggb": "BayerBG", "bggr": "BayerRG", "gbrg": "BayerGR", "grbg": "BayerGB"}
RED = {"rggb": (0, 0), "grbg": (0, 1), "gbrg": (1, 0), "bggr": (1, 1)}


def mosaic(image, pattern):
    """One colour per pixel."""
    row, column = RED[pattern]
    rows, columns = numpy.indices(image.shape[:2])
    is_red_row, is_red_column = rows % 2 == row, columns % 2 == column
    return numpy.where(is_red_row & is_red_column, image[:, :, 0], numpy.where(~is_red_row & ~is_red_column, image[:, :, 2], image[:, :, 1]))


def demosaicked(bayer, pattern):
    return cv2.cvtColor(bayer, getattr(cv2, f"COLOR_{OPENCV[pattern]}2RGB"))


def deep(image):
    """16 bits that are no multiples of the 8 bits."""
    noise = numpy.random.default_rng(7).integers(0, 256, image.shape)
    return (image.astype(numpy.uint16) << 8 | noise).astype(numpy.uint16)


def as_bytes(image):
    """cv_bridge's scale from 16 to 8 bits."""
    return (image * (255 / 65535)).round().astype(numpy.uint8)


def more_raw_images():
    """(encoding, rows, big-endian, RGB): mosaics by OpenCV, 16 bits by cv_bridge's formula."""
    image = numpy.asarray(photos(1)[0])
    rows = lambda array, big_endian=0: array.astype(">u2" if big_endian else "<u2").view(numpy.uint8).reshape(len(array), -1)
    for pattern in OPENCV:
        bayer = mosaic(image, pattern)
        yield f"bayer_{pattern}8", bayer, 0, demosaicked(bayer, pattern)
        bayer, big_endian = deep(bayer), int(pattern.startswith("g"))
        yield f"bayer_{pattern}16", rows(bayer, big_endian), big_endian, as_bytes(demosaicked(bayer, pattern))
    colours, grey = deep(image), deep(image[:, :, 1])
    yield "rgb16", rows(colours), 0, as_bytes(colours)
    yield "bgr16", rows(colours[:, :, ::-1], 1), 1, as_bytes(colours)
    alpha = numpy.full((HEIGHT, WIDTH, 1), 999, numpy.uint16)
    yield "rgba16", rows(numpy.concatenate([colours, alpha], 2)), 0, as_bytes(colours)
    yield "bgra16", rows(numpy.concatenate([colours[:, :, ::-1], alpha], 2)), 0, as_bytes(colours)
    yield "mono16", rows(grey, 1), 1, as_bytes(grey)[:, :, None].repeat(3, 2)
    yield "8UC1", image[:, :, 0], 0, image[:, :, :1].repeat(3, 2)
    yield "8UC3", image[:, :, ::-1].reshape(HEIGHT, -1), 0, image
    y, u, v = yuv(photos(1)[0])
    u, v = repeat(u, 1, 2), repeat(v, 1, 2)
    chroma = numpy.stack([u, v], -1).reshape(2 * HEIGHT, WIDTH)
    yield "nv24", numpy.concatenate([y, chroma]), 0, rgb_of(y, u, v)


def raw():
    """Mosaics and deep images, every other with padded rows."""
    name, images = "raw", []
    with open(RECORDINGS / f"{name}.mcap", "wb") as file:
        with Ros2Writer(file, compression=CompressionType.ZSTD) as writer:
            schema = writer.register_msgdef("sensor_msgs/msg/Image", IMAGE)
            for index, (encoding, rows, big_endian, image) in enumerate(more_raw_images()):
                padding = 6 * (index % 2) * (encoding != "nv24")
                rows = numpy.pad(rows, ((0, 0), (0, padding)), constant_values=99)
                message = {"header": header(index), "height": HEIGHT, "width": WIDTH, "encoding": encoding}
                message |= {"is_bigendian": big_endian, "step": rows.shape[1], "data": rows.tobytes()}
                writer.write_message("/color/image_raw", schema, message, log_time=log_ns(index))
                images.append(image)
    save_stack(name, images)


def opencv_encoded(array, kind):
    """As compressed_image_transport encodes: three channels are blue, green, red."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if kind == "jpg" else []
    return cv2.imencode(f".{kind}", array, options)[1].tobytes()


def opencv_rgb(data):
    array = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_UNCHANGED)
    if array.dtype == numpy.uint16:
        array = as_bytes(array)
    return array[:, :, None].repeat(3, 2) if array.ndim == 2 else array[:, :, 2::-1]


def compressed_images():
    """(format, data, RGB). What is not said by the format is in the file."""
    image = numpy.asarray(photos(3)[2])
    bgr, grey, colours = image[:, :, ::-1].copy(), image[:, :, 1].copy(), deep(image)
    for text in ["rgb8; jpeg compressed bgr8", "jpeg", "jpg", "", "bgr8;jpeg  compressed  bgr8", "RGB8; JPEG compressed BGR8",
                 "yuv422; jpeg compressed bgr8", "bayer_rggb8; jpeg compressed bgr8", "8UC3; jpeg compressed "]:
        data = opencv_encoded(bgr, "jpg")
        yield text, data, opencv_rgb(data)
    for text in ["bgr8; png compressed bgr8", "png", "rgba8; png compressed bgr8", "bayer_gbrg8; png compressed rgb8"]:
        yield text, opencv_encoded(bgr, "png"), image
    yield "bgra8; png compressed ", opencv_encoded(cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA), "png"), image
    for text in ["mono8; jpeg compressed ", "bayer_grbg8; jpeg compressed mono8"]:
        data = opencv_encoded(grey, "jpg")
        yield text, data, opencv_rgb(data)
    data = opencv_encoded(deep(grey), "png")
    yield "mono16; png compressed ", data, opencv_rgb(data)
    data = opencv_encoded(colours[:, :, ::-1].copy(), "png")
    yield "rgb16; png compressed bgr16", data, opencv_rgb(data)
    for number, pattern in enumerate(OPENCV):
        # Flat enough for what a JPEG keeps of a mosaic.
        bayer = mosaic(image, pattern)
        data = opencv_encoded(bayer, "jpg")
        lossy = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_UNCHANGED)
        yield f"bayer_{pattern}8" + ["; jpeg compressed ", ";jpeg compressed", "; jpeg compressed", ""][number], data, demosaicked(lossy, pattern)
        yield f"bayer_{pattern}8; png compressed ", opencv_encoded(bayer, "png"), demosaicked(bayer, pattern)
        bayer = deep(bayer)
        yield f"bayer_{pattern}16; png compressed ", opencv_encoded(bayer, "png"), as_bytes(demosaicked(bayer, pattern))


def compressed():
    """What `format` says, in the words of compressed_image_transport and of others."""
    name, images = "compressed", []
    with open(RECORDINGS / f"{name}.mcap", "wb") as file, Ros2Writer(file) as writer:
        schema = writer.register_msgdef("sensor_msgs/msg/CompressedImage", COMPRESSED_IMAGE)
        for index, (text, data, image) in enumerate(compressed_images()):
            message = {"header": header(index), "format": text, "data": data}
            writer.write_message("/front/image_raw/compressed", schema, message, log_time=log_ns(index))
            images.append(image)
    save_stack(name, images)


def refused():
    """A topic for each format that is no picture, and one whose order of colours is in doubt."""
    grey, bgr = numpy.asarray(photos(1)[0].convert("L")), numpy.asarray(photos(1)[0])[:, :, ::-1].copy()
    depth = opencv_encoded(deep(grey), "png")
    with open(RECORDINGS / "refused.mcap", "wb") as file, Ros2Writer(file) as writer:
        schema = writer.register_msgdef("sensor_msgs/msg/CompressedImage", COMPRESSED_IMAGE)
        for topic, text, data in [
            ("depth", "16UC1; png compressed ", depth),
            ("compressed_depth", "16UC1; compressedDepth png", bytes(12) + depth),
            ("rvl", "32FC1; compressedDepth rvl", bytes(12)),
            ("mosaic", "bayer_rggb8; jpeg compressed ", opencv_encoded(bgr, "jpg")),
            ("video", "h264", bytes(12)),
            ("swapped", "rgb8; jpeg compressed rgb8", opencv_encoded(bgr, "jpg")),
        ]:
            writer.write_message(f"/{topic}", schema, {"header": header(0), "format": text, "data": data}, log_time=log_ns(0))


def barren():
    """Recordings without messages of ROS 2: by profile, message encoding and schema encoding."""
    for name, profile, encoding, schema_encoding, schema in [
        ("ros1", "ros1", "ros1", "ros1msg", "sensor_msgs/CompressedImage"),
        ("protobuf", "", "protobuf", "protobuf", "foxglove.CompressedImage"),
        ("json", "", "json", "jsonschema", "foxglove.RawImage"),
        ("flatbuffer", "", "flatbuffer", "flatbuffer", "foxglove.CompressedVideo"),
    ]:
        with open(RECORDINGS / f"barren_{name}.mcap", "wb") as file:
            writer = McapWriter(file)
            writer.start(profile=profile)
            channel = writer.register_channel("/camera/image", encoding, writer.register_schema(schema, schema_encoding, b"x"))
            writer.add_message(channel, log_ns(0), b"nothing that is read", log_ns(0))
            writer.finish()


def messages_compressed():
    """As rosbag2 records with `compression_mode: message`: a folder, each message compressed by itself."""
    kind = "sensor_msgs/msg/Image"
    writer = RosbagsWriter(RECORDINGS / "messages", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        connection = None
        for index, (store, message) in enumerate(rosbags_messages(4)):
            connection = connection or writer.add_connection("/camera/image_raw", kind, typestore=store)
            writer.write(connection, log_ns(index), store.serialize_cdr(message, kind))


def split_bag():
    """A bag in two files, which `metadata.yaml` names in another order than that of their names."""
    folder = RECORDINGS / "split"
    folder.mkdir()
    kind, names = "sensor_msgs/msg/Image", ["run_10.mcap", "run_9.mcap"]
    messages = list(enumerate(rosbags_messages(4)))
    for name, part in zip(names, [messages[:2], messages[2:]]):
        with open(folder / name, "wb") as file:
            writer = McapWriter(file)
            writer.start(profile="ros2")
            channel = writer.register_channel("/camera/image_raw", "cdr", writer.register_schema(kind, "ros2msg", IMAGE.encode()))
            for index, (store, message) in part:
                writer.add_message(channel, log_ns(index), bytes(store.serialize_cdr(message, kind)), log_ns(index))
            writer.finish()
    paths = "".join(f"    - {name}\n" for name in names)
    text = f"rosbag2_bagfile_information:\n  version: 5\n  storage_identifier: mcap\n  relative_file_paths:\n{paths}  message_count: 4\n"
    (folder / "metadata.yaml").write_text(text)


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
    for make in (zstd, lz4, rosbags, plain, raw, compressed, refused, barren, messages_compressed, split_bag):
        make()
    print(f"{sum(path.stat().st_size for path in RECORDINGS.rglob('*'))} bytes in {RECORDINGS.name}")


if __name__ == "__main__":
    main()
