"""Makes tests/fixtures: images and streams, and what PIL, ffmpeg and numpy make of them.

    python crates/dinov2-io/tests/make_fixtures.py

Needs pillow 13 or later, numpy and scikit-image from PyPI and ffmpeg. The photograph is "coffee" of scikit-image
(CC0, Rachel Michetti).
"""

import pathlib
import subprocess

import numpy
import skimage.data
from PIL import Image, ImageOps

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
# Sizes of the resized photograph: down and up, odd ratios, one side only, extreme (rows before columns since
# Pillow 13).
RESIZED = [(98, 70), (70, 126), (196, 154), (151, 70), (42, 113), (14, 14), (210, 14)]
CHROMA = {"420jpeg": "yuvj420p", "420mpeg2": "yuv420p", "422": "yuv422p", "444": "yuv444p", "mono": "gray"}


def save_png(image, name):
    image.save(FIXTURES / name, optimize=True)


def photographs():
    photo = Image.fromarray(skimage.data.coffee()[100:313, 180:331])
    photo = photo.crop((0, 0, 151, 113))
    save_png(photo, "photo.png")
    for size in RESIZED:
        save_png(photo.resize(size, Image.Resampling.BICUBIC), f"photo_{size[0]}x{size[1]}.png")
    for name, mode, options in [
        ("420", "RGB", {"subsampling": "4:2:0"}),
        ("444", "RGB", {"subsampling": "4:4:4"}),
        ("progressive", "RGB", {"progressive": True}),
        ("grey", "L", {}),
        ("restart", "RGB", {"restart_marker_blocks": 5}),
        ("cmyk", "CMYK", {}),
    ]:
        path = FIXTURES / f"jpeg_{name}.jpg"
        photo.convert(mode).save(path, quality=90, **options)
        save_png(Image.open(path).convert("RGB"), f"jpeg_{name}.png")
    return photo


def orientations(photo):
    small = photo.crop((20, 20, 68, 52))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = FIXTURES / f"exif_{orientation}.jpg"
        small.save(path, quality=95, subsampling="4:4:4", exif=exif)
        save_png(ImageOps.exif_transpose(Image.open(path)).convert("RGB"), f"exif_{orientation}.png")


def formats(photo):
    small = photo.crop((40, 30, 73, 55))
    save_png(small, "small.png")
    small.save(FIXTURES / "small.webp", lossless=True)
    small.save(FIXTURES / "small.bmp")
    small.save(FIXTURES / "small.tiff", compression="tiff_deflate")
    small.save(FIXTURES / "small.ppm")
    small.save(FIXTURES / "misnamed.txt", format="PNG")

    alpha = small.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(small.size))
    save_png(alpha, "alpha.png")
    save_png(alpha.convert("RGB"), "alpha_rgb.png")
    palette = small.quantize(32)
    palette.save(FIXTURES / "palette.png", transparency=3, optimize=True)
    save_png(Image.open(FIXTURES / "palette.png").convert("RGB"), "palette_rgb.png")
    frames = [palette, small.rotate(180).quantize(32)]
    frames[0].save(FIXTURES / "two_frames.gif", save_all=True, append_images=frames[1:])
    save_png(Image.open(FIXTURES / "two_frames.gif").convert("RGB"), "two_frames_rgb.png")
    deep = numpy.asarray(small.convert("L")).astype(numpy.uint16) * 257
    Image.fromarray(deep).save(FIXTURES / "grey16.png")
    save_png(small.convert("L").convert("RGB"), "grey16_rgb.png")


def streams(photo):
    """Three frames in each chroma layout, and what ffmpeg makes of them."""
    frames = [photo.crop((10 + 5 * step, 20 + 3 * step, 44 + 5 * step, 46 + 3 * step)) for step in range(3)]
    raw = b"".join(frame.tobytes() for frame in frames)
    ffmpeg = ["ffmpeg", "-v", "error", "-y"]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "34x26", "-r", "30000/1001", "-i", "-"]
    exact = ["-sws_flags", "accurate_rnd+full_chroma_int+neighbor", "-bitexact"]
    for name, pixels in CHROMA.items():
        y4m = FIXTURES / f"clip_{name}.y4m"
        output = ["-pix_fmt", pixels, "-strict", "-1", "-f", "yuv4mpegpipe", y4m]
        subprocess.run(ffmpeg + source + exact + output, input=raw, check=True)
        decode = ffmpeg + ["-i", y4m] + exact + ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        decoded = subprocess.run(decode, capture_output=True, check=True).stdout
        decoded = numpy.frombuffer(decoded, numpy.uint8).reshape(3 * 26, 34, 3)
        save_png(Image.fromarray(decoded), f"clip_{name}.png")

    # Lossless RGB for ffmpeg to decode again, and one that says it must be turned.
    rgb = ["-c:v", "ffv1", "-pix_fmt", "bgr0", "-f", "matroska", FIXTURES / "clip.mkv"]
    subprocess.run(ffmpeg + source + exact + rgb, input=raw, check=True)
    save_png(Image.fromarray(numpy.frombuffer(raw, numpy.uint8).reshape(3 * 26, 34, 3)), "clip_rgb.png")
    # The same clip as dinov2-io asks ffmpeg for it: first columns and frames in NUT.
    split = "[0:V:0]format=rgb24,split[frames][all];[all]crop=1:ih:0:0[columns]"
    maps = ["-filter_complex", split, "-map", "[columns]", "-map", "[frames]", "-enc_time_base", "1:1000000000"]
    nut = ["-fps_mode", "passthrough", "-c:v", "rawvideo", "-f", "nut", FIXTURES / "clip.nut"]
    subprocess.run(ffmpeg + ["-i", FIXTURES / "clip.mkv"] + maps + nut, check=True)
    upright, turned = FIXTURES / "upright.mp4", FIXTURES / "turned.mp4"
    subprocess.run(ffmpeg + source + exact + ["-c:v", "mpeg4", upright], input=raw, check=True)
    subprocess.run(ffmpeg + ["-i", upright, "-c", "copy", "-metadata:s:v", "rotate=90", turned], check=True)
    upright.unlink()

    jpegs, decoded = [], []
    for index, frame in enumerate(frames):
        path = FIXTURES / "frame.jpg"
        # A thumbnail inside a segment holds start and end markers of its own.
        exif = b"Exif\0\0" + b"\xff\xd8\xff\xd9" * 3 if index == 1 else b""
        frame.save(path, quality=90, subsampling="4:4:4", exif=exif)
        jpegs.append(path.read_bytes())
        decoded.append(numpy.asarray(Image.open(path).convert("RGB")))
        path.unlink()
    (FIXTURES / "clip.mjpeg").write_bytes(b"".join(jpegs))
    save_png(Image.fromarray(numpy.concatenate(decoded)), "clip_mjpeg.png")


def arrays():
    numpy.save(FIXTURES / "patches.npy", (numpy.arange(24, dtype=numpy.float32) / 7 - 1).reshape(2, 3, 4))


def labels():
    """Class ids (3 x + 5 y) mod 11 of 13x9 pixels, as tests/labels.rs knows them."""
    y, x = numpy.mgrid[:9, :13]
    classes = ((3 * x + 5 * y) % 11).astype(numpy.uint8)
    Image.fromarray(classes).save(FIXTURES / "labels_grey.png")
    palette = Image.fromarray(classes, mode="P")
    palette.putpalette(numpy.random.default_rng(4).integers(0, 256, 48, dtype=numpy.uint8).tobytes())
    palette.save(FIXTURES / "labels_palette4.png", bits=4)
    Image.fromarray(classes % 2 == 1).save(FIXTURES / "labels_odd1.png")


def main():
    FIXTURES.mkdir(exist_ok=True)
    for old in filter(pathlib.Path.is_file, FIXTURES.iterdir()):
        old.unlink()
    photo = photographs()
    orientations(photo)
    formats(photo)
    streams(photo)
    arrays()
    labels()
    print(f"{sum(path.stat().st_size for path in FIXTURES.iterdir() if path.is_file())} bytes in {FIXTURES.name}")


if __name__ == "__main__":
    main()
