"""Makes tests/fixtures/similarity_24x70.f32: patch features and their cosine similarities by numpy in f64.

    python crates/dinov2-heads/tests/make_similarity_fixture.py

Raw little-endian f32: patches [24, 70], query [70], similarities [24].
"""

import pathlib

import numpy


def main():
    random = numpy.random.default_rng(5)
    # Lengths from 1e-3 to 1e3 and a common part, so that the cosines spread.
    scales = numpy.logspace(-3, 3, 24)[:, None]
    patches = ((random.normal(size=(24, 70)) + random.normal(size=70)) * scales).astype("<f4")
    query = patches[7]
    wide = patches.astype(numpy.float64)
    lengths = numpy.linalg.norm(wide, axis=1)
    similarities = wide @ wide[7] / (lengths * lengths[7])
    path = pathlib.Path(__file__).parent / "fixtures" / "similarity_24x70.f32"
    path.write_bytes(b"".join(part.astype("<f4").tobytes() for part in (patches, query, similarities)))


if __name__ == "__main__":
    main()
