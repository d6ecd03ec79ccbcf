"""Makes tests/fixtures/animations: GIF, WebP and PNG animations, and what Pillow makes of them.

    pip install pillow
    python crates/dinov2-io/tests/make_animations.py

NAME.png has the composed frames of NAME under each other, NAME.txt their times in milliseconds.
"""

import pathlib

import numpy
from PIL import Image, ImageDraw, ImageSequence

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
FOLDER = FIXTURES / "animations"
DELAYS = [40, 100, 250, 70]


def save(name, frames, delays=DELAYS, **options):
    path = FOLDER / name
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=delays, **options)
    read = Image.open(path)
    shown = [numpy.asarray(frame.convert("RGBA").convert("RGB")) for frame in ImageSequence.Iterator(read)]
    # Pillow gives a picture that is only shown by programs without animation as a frame of its own.
    shown = shown[1:] if options.get("default_image") else shown
    if len(shown) < 2:
        return
    Image.fromarray(numpy.concatenate(shown)).save(FOLDER / f"{name}.png", optimize=True)
    delays = [delay if delay > 10 else 100 for delay in delays]
    times = [sum(delays[:index]) for index in range(len(shown))]
    (FOLDER / f"{name}.txt").write_text(" ".join(map(str, times)))


def main():
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    photo = Image.open(FIXTURES / "photo.png").convert("RGB").crop((40, 30, 88, 66))
    frames = []
    for step in range(4):
        frames.append(photo.copy())
        ImageDraw.Draw(frames[-1]).rectangle((5 + 8 * step, 8, 14 + 8 * step, 20), fill=(250, 20 * step, 10))
    palette = [frame.quantize(32) for frame in frames]
    save("whole.gif", palette, disposal=1)
    save("restored.gif", palette, disposal=[1, 3, 2, 1])
    save("hurried.gif", palette, delays=[0, 10, 20, 0])
    save("lossless.webp", frames, lossless=True)
    save("composed.png", frames)
    save("hurried.png", frames, delays=[0, 5, 20, 30])
    save("thumbnail.png", [photo.rotate(180), *frames], default_image=True)
    save("still.gif", palette[:1])
    save("still.webp", frames[:1], lossless=True)
    print(f"{sum(path.stat().st_size for path in FOLDER.iterdir())} bytes in {FOLDER.name}")


if __name__ == "__main__":
    main()
