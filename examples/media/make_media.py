"""Makes the sample media of this folder from the photographs that scikit-image bundles (see README.md for licences).

    python examples/media/make_media.py

Needs pillow, numpy and scikit-image from PyPI. The clip is MJPEG: JPEG images one after the other.
"""

import io
import math
import pathlib

import skimage.data
from PIL import Image

MEDIA = pathlib.Path(__file__).parent
FRAMES = 45
CLIP_SIZE = (448, 336)
CLIP_QUALITY = 65


def jpeg(image, quality):
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, optimize=True)
    return encoded.getvalue()


def clip_frame(photo, index):
    """The camera swings once around the photograph: pan, zoom and a slight roll, the first frame following the last."""
    turn = 2 * math.pi * index / FRAMES
    width, height = photo.size
    zoom = 0.80 + 0.08 * math.cos(turn)
    across, down = zoom * height * CLIP_SIZE[0] / CLIP_SIZE[1], zoom * height
    center = (width * (0.48 + 0.09 * math.sin(turn)), height * (0.5 + 0.04 * math.sin(2 * turn)))
    roll = math.radians(4) * math.sin(turn + 1)
    cosine, sine = math.cos(roll), math.sin(roll)
    # Affine map from pixels of the clip to pixels of the photograph.
    scale_x, scale_y = across / CLIP_SIZE[0], down / CLIP_SIZE[1]
    a, b = cosine * scale_x, -sine * scale_y
    d, e = sine * scale_x, cosine * scale_y
    c = center[0] - a * CLIP_SIZE[0] / 2 - b * CLIP_SIZE[1] / 2
    f = center[1] - d * CLIP_SIZE[0] / 2 - e * CLIP_SIZE[1] / 2
    return photo.transform(CLIP_SIZE, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)


def main():
    photos = {
        "cat": skimage.data.chelsea(),
        "coffee": skimage.data.coffee(),
        "rocket": skimage.data.rocket(),
    }
    photos = {name: Image.fromarray(pixels) for name, pixels in photos.items()}
    for name, photo in photos.items():
        (MEDIA / f"{name}.jpg").write_bytes(jpeg(photo, 90))
    frames = [jpeg(clip_frame(photos["cat"], index), CLIP_QUALITY) for index in range(FRAMES)]
    (MEDIA / "cat.mjpeg").write_bytes(b"".join(frames))


if __name__ == "__main__":
    main()
