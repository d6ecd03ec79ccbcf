"""Makes tests/fixtures/heif: HEIC and AVIF photographs, and what pillow-heif and Pillow make of them.

    pip install pillow pillow-heif numpy
    apt install libavif-bin
    python crates/dinov2-io/tests/make_heif.py

NAME.png is what NAME shows: whole and upright. HEIC is written and read by pillow-heif (libheif with x265), AVIF written by
avifenc (libavif) and read by Pillow, so the AVIF references come from another library than the program that is tested.
"""

import pathlib
import subprocess

import numpy
import pillow_heif
from PIL import Image, ImageOps

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
FOLDER = FIXTURES / "heif"


def save_reference(name, image):
    image.convert("RGB").save(FOLDER / f"{name}.png", optimize=True)


def heic(name, *images, primary=0, **options):
    file = pillow_heif.HeifFile()
    for image in images:
        file.add_from_pillow(image)
    file.save(FOLDER / name, quality=70, chroma=444, primary_index=primary, **options)
    read = pillow_heif.open_heif(FOLDER / name)
    save_reference(name, read[read.primary_index].to_pillow())


def avif(name, images, *options):
    paths = []
    for index, image in enumerate(images):
        paths.append(FOLDER / f"part{index}.png")
        image.save(paths[-1])
    words = ["avifenc", "--min", "20", "--max", "20", "-y", "444", *options, *paths, FOLDER / name]
    subprocess.run(words, check=True, capture_output=True)
    for path in paths:
        path.unlink()
    if "--grid" in options:
        turn_whole_only(FOLDER / name)
    if "--duration" not in options:
        save_reference(name, ImageOps.exif_transpose(Image.open(FOLDER / name)))


def turn_whole_only(path):
    """avifenc 0.11 turns the tiles as well as the whole, which libavif does not read so: takes it from the tiles."""
    data = bytearray(path.read_bytes())
    properties = data.index(b"ipco") + 4
    names, at = [], properties
    while data[at + 4 : at + 8] != b"ipma":
        names.append(bytes(data[at + 4 : at + 8]))
        at += int.from_bytes(data[at : at + 4], "big")
    at += 16
    for item in range(int.from_bytes(data[at - 4 : at], "big")):
        count = data[at + 2]
        for place in range(at + 3, at + 3 + count):
            if item > 0 and names[(data[place] & 0x7F) - 1] == b"irot":
                data[place] = 0
        at += 3 + count
    path.write_bytes(data)


def main():
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    photo = Image.open(FIXTURES / "photo.png").convert("RGB")
    small = photo.crop((40, 30, 104, 78))
    pillow_heif.register_heif_opener()
    heic("plain.heic", small)
    alpha = small.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(small.size))
    heic("alpha.heic", alpha)
    heic("second.heic", small.rotate(180), small, small.transpose(Image.Transpose.FLIP_LEFT_RIGHT), primary=1)
    deep = pillow_heif.from_bytes("RGB;16", small.size, (numpy.asarray(small).astype(numpy.uint16) << 8).tobytes())
    deep.save(FOLDER / "deep.heic", quality=70)
    save_reference("deep.heic", pillow_heif.open_heif(FOLDER / "deep.heic").to_pillow())
    # EXIF says that the picture is turned, but no property of the file does: then it is not.
    exif = Image.Exif()
    exif[0x0112] = 6
    heic("exif.heic", small, exif=exif.tobytes())

    large = photo.resize((256, 192))
    parts = [large.crop((x, y, x + 128, y + 96)) for y in (0, 96) for x in (0, 128)]
    avif("tiles.avif", parts, "--grid", "2x2")
    avif("tiles_turned.avif", parts, "--grid", "2x2", "--irot", "1")
    for mirror in "01":
        for turn in "0123":
            avif(f"turned_{turn}{mirror}.avif", [small], "--irot", turn, "--imir", mirror)
    avif("deep.avif", [small], "--depth", "10")
    avif("grey.avif", [small.convert("L")])
    avif("sequence.avif", [small, small.rotate(180), small], "--timescale", "10", "--duration", "3")
    print(f"{sum(path.stat().st_size for path in FOLDER.iterdir())} bytes in {FOLDER.name}")


if __name__ == "__main__":
    main()
