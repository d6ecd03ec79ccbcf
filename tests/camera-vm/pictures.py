"""Pixels of the PNG files that the program writes, and whether files are whole."""

import json
import struct
import zlib


def read_png(path):
    """Rows of (red, green, blue), of an RGB picture of 8 bits (PNG specification, 9.2: the filters)."""
    data, at, packed = path.read_bytes(), 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colours = struct.unpack(">IIBB", body[:10])
            assert (depth, colours) == (8, 2), f"expected RGB of 8 bits: {path}"
        packed += body if kind == b"IDAT" else b""
        at += length + 12
    raw, stride, above, rows = zlib.decompress(packed), width * 3, bytes(width * 3), []
    for start in range(0, height * (stride + 1), stride + 1):
        above = unfilter(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), above)
        rows.append([tuple(above[i : i + 3]) for i in range(0, stride, 3)])
    return rows


def unfilter(kind, row, above):
    for i in range(len(row)):
        left, up, corner = (row[i - 3] if i > 2 else 0), above[i], (above[i - 3] if i > 2 else 0)
        guess = left + up - corner
        nearest = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
        row[i] = (row[i] + (0, left, up, (left + up) // 2, nearest)[kind]) & 0xFF
    return row


def mean_colour(rows, left, right, top, bottom):
    pixels = [pixel for row in rows[top:bottom] for pixel in row[left:right]]
    return [sum(pixel[channel] for pixel in pixels) / len(pixels) for channel in range(3)]


def assert_whole(path):
    """A safetensors file that ends where its header says."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {name: of for name, of in json.loads(data[8 : 8 + length]).items() if name != "__metadata__"}
    assert tensors and len(data) == 8 + length + max(of["data_offsets"][1] for of in tensors.values()), f"not whole: {path}"
