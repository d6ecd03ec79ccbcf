"""Makes what the tests of training/src/eval compare with.

    pip install numpy pillow scikit-image opencv-python-headless imagecorruptions setuptools
    python training/tests/make_eval_fixtures.py corruptions     writes training/tests/fixtures/{clean,corrupted}.png
    python training/tests/make_eval_fixtures.py davis           prints the cases of davis.rs
    python training/tests/make_eval_fixtures.py knn             prints the case of knn.rs

corrupted.png holds, below each other, the clean picture after brightness, contrast, defocus blur, motion blur (at 30 degrees),
pixelate, JPEG, zoom blur, glass blur, snow (at -100 degrees) and elastic transform, each at severities 1 to 5. What is random in
the last three is drawn from `hashed`, as in the tests.
"""

import pathlib
import sys

import numpy
from PIL import Image

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
WIDTH, HEIGHT = 64, 48
DEGREES = 30
SNOW_DEGREES = -100


def hashed(indices):
    """Numbers in 0..997 without an obvious pattern."""
    return (7919 * indices + 13 * indices * indices) % 997


def corruptions():
    import types

    # Packages that imagecorruptions imports for what is not used here.
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda *names: "/".join(names)
    sys.modules.setdefault("pkg_resources", resources)
    import scipy.ndimage

    interpolation = types.ModuleType("scipy.ndimage.interpolation")
    interpolation.map_coordinates = scipy.ndimage.map_coordinates
    sys.modules.setdefault("scipy.ndimage.interpolation", interpolation)
    from imagecorruptions import corruptions as reference

    random = numpy.random.default_rng(3)
    y, x = numpy.mgrid[:HEIGHT, :WIDTH]
    waves = [120 + 100 * numpy.sin(x / (5 + channel) + y / (9 - channel)) for channel in range(3)]
    clean = numpy.stack(waves, axis=-1) + random.normal(0, 6, (HEIGHT, WIDTH, 3))
    clean[8:20, 10:30] = [255, 40, 0]
    clean[30:40, 40:60] = 0
    clean = numpy.clip(clean, 0, 255).astype(numpy.uint8)
    Image.fromarray(clean).save(FIXTURES / "clean.png")

    picture = Image.fromarray(clean)
    reference.np.random.uniform = lambda low, high: DEGREES
    pictures = []
    for kind in ["brightness", "contrast", "defocus_blur", "motion_blur", "pixelate", "jpeg_compression", "zoom_blur"]:
        for severity in range(1, 6):
            corrupted = getattr(reference, kind)(picture, severity)
            pictures.append(numpy.uint8(corrupted))
    for kind in ["glass_blur", "snow", "elastic_transform"]:
        for severity in range(1, 6):
            draw_from_hashes(reference)
            corrupted = getattr(reference, kind)(picture, severity)
            pictures.append(numpy.uint8(corrupted))
    Image.fromarray(numpy.concatenate(pictures)).save(FIXTURES / "corrupted.png")


def draw_from_hashes(reference):
    """Replaces what the reference draws at random; its filter has lost an argument since."""
    import skimage.filters

    taken = 0

    def take(size):
        nonlocal taken
        first, taken = taken, taken + int(numpy.prod(size))
        return hashed(numpy.arange(first, taken, dtype=numpy.int64)).reshape(size)

    def gaussian(image, sigma, multichannel=False, **settings):
        return skimage.filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **settings)

    random = reference.np.random
    random.randint = lambda low, high, size: low + take(size) % (high - low)
    random.normal = lambda size, loc, scale: loc + scale * (take(size) / 249.25 - 2)
    random.uniform = lambda low, high, size=None: SNOW_DEGREES if size is None else high * (take(size) / 498.5 - 1)
    reference.gaussian = gaussian


def boundary(mask):
    """seg2bmap of davis2017-evaluation, for masks at full size."""
    east, south, both = (numpy.zeros_like(mask) for _ in range(3))
    east[:, :-1], south[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edges = mask ^ east | mask ^ south | mask ^ both
    edges[-1], edges[:, -1] = mask[-1] ^ east[-1], mask[:, -1] ^ south[:, -1]
    edges[-1, -1] = 0
    return edges


def boundary_measure(found, truth):
    from skimage.morphology import dilation, disk

    reach = int(numpy.ceil(0.008 * numpy.linalg.norm(found.shape)))
    found, truth = boundary(found), boundary(truth)
    near_found, near_truth = (dilation(edges.astype(numpy.uint8), disk(reach)) > 0 for edges in (found, truth))
    precision, recall = (found & near_truth).sum() / found.sum(), (truth & near_found).sum() / truth.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def davis():
    y, x = numpy.mgrid[:90, :160]
    mask = lambda centre, radius: (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    for found, truth in [
        (((40, 60), 25), ((41, 62), 25)),
        (((40, 60), 25), ((44, 66), 22)),
        (((40, 60), 10), ((44, 120), 22)),
        (((0, 0), 30), ((3, 2), 30)),
        (((89, 159), 40), ((85, 150), 45)),
        (((45, 80), 200), ((45, 80), 60)),
    ]:
        left, right = mask(*found), mask(*truth)
        region = (left & right).sum() / (left | right).sum()
        with numpy.errstate(all="ignore"):
            edge = boundary_measure(left, right) if boundary(left).any() else 0.0
        print(f"            (disk({found[0]}, {found[1]}), disk({truth[0]}, {truth[1]}), [{region}, {float(edge)}]),")


def knn():
    """The arithmetic of DINO's eval_knn.py, in numpy; features as in the test."""
    features = lambda count, shift: numpy.array(
        [[((i * 31 + j * 17 + shift + i * j * 7) % 29) - 14 for j in range(6)] for i in range(count)], float
    )
    unit = lambda rows: rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
    bank, queries = unit(features(40, 0)), unit(features(25, 5))
    classes = numpy.array([(i * i + i // 3) % 4 for i in range(40)])

    def votes(cosines, k):
        order = numpy.argsort(-cosines, axis=1, kind="stable")[:, :k]
        weights = numpy.exp(numpy.take_along_axis(cosines, order, 1) / 0.07)
        return [int(numpy.argmax(numpy.bincount(classes[o], w, 4))) for o, w in zip(order, weights)]

    apart = queries @ bank.T
    own = bank @ bank.T
    numpy.fill_diagonal(own, -numpy.inf)
    for k in (1, 5, 20):
        print(f"            ({k}, {votes(apart, k)}, {votes(own, k)}),")


for name in sys.argv[1:]:
    {"corruptions": corruptions, "davis": davis, "knn": knn}[name]()
