"""Clips of a camera that stands still: a photograph, a second one pasted small and moving, sensor noise."""
import sys, numpy as np
from pathlib import Path
from PIL import Image
scene, thing, out, frames, sigma = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
out.mkdir(parents=True, exist_ok=True)
base = np.asarray(Image.open(scene).convert("RGB").resize((480, 360)), np.float32)
small = np.asarray(Image.open(thing).convert("RGB").resize((64, 48)), np.float32)
random = np.random.default_rng(0)
for index in range(frames):
    image = base.copy()
    x, y = (20 + 5 * index) % (480 - 64), 150 + round(40 * np.sin(index / 12))
    image[y:y + 48, x:x + 64] = small
    image += random.normal(0, sigma, image.shape) if sigma else 0
    Image.fromarray(np.clip(np.round(image), 0, 255).astype(np.uint8)).save(out / f"{index:04}.png")
