"""Makes tests/fixtures: patch features and their principal components by numpy's SVD.

    python crates/dinov2-heads/tests/make_fixtures.py

Raw little-endian f32, per case: NAME.f32 = patches [n, dim], then mean [dim], directions [3, dim], variances [3],
coordinates [n, 3], colours [n, 3] (0..=255).
"""

import pathlib

import numpy

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


def principal_components(patches, count=3):
    patches = patches.astype(numpy.float64)
    mean = patches.mean(axis=0)
    _, singular, directions = numpy.linalg.svd(patches - mean, full_matrices=False)
    directions, singular = directions[:count], singular[:count]
    largest = numpy.abs(directions).argmax(axis=1)
    directions = directions * numpy.sign(directions[numpy.arange(count), largest])[:, None]
    coordinates = (patches - mean) @ directions.T
    low, high = numpy.percentile(coordinates, [1, 99], axis=0)
    colours = numpy.clip((coordinates - low) / (high - low), 0, 1) * 255
    return mean, directions, singular**2 / (len(patches) - 1), coordinates, colours


def main():
    FIXTURES.mkdir(exist_ok=True)
    random = numpy.random.default_rng(2)
    scales = 1 / numpy.arange(1, 97)
    cases = {
        # Falling variances and a mean, as features have.
        "falling_64x96": random.normal(size=(64, 96)) * scales @ random.normal(size=(96, 96)) + 3,
        # Variances close to each other: nothing converges quickly.
        "flat_120x80": random.normal(size=(120, 80)),
        # Fewer patches than dimensions, and too few dimensions for an iteration.
        "few_5x12": random.normal(size=(5, 12)),
    }
    for name, patches in cases.items():
        patches = patches.astype("<f4")
        parts = [patches, *principal_components(patches)]
        (FIXTURES / f"{name}.f32").write_bytes(b"".join(part.astype("<f4").tobytes() for part in parts))


if __name__ == "__main__":
    main()
