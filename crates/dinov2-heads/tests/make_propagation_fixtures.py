"""Makes the fixtures of tests/label_propagation.rs and tests/ridge.rs: labels carried on as DINO does it, in numpy, and a ridge
regression by scikit-learn.

    python crates/dinov2-heads/tests/make_propagation_fixtures.py

Raw little-endian f32. propagation.f32: patches [6, 4, 5, 7], labels of the first frame [4, 5, 3], labels of the others
[5, 4, 5, 3]. ridge.f32: features [240, 9], targets [240], weights [240], predictions [240].
"""

import pathlib

import numpy
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
CONTEXT, RADIUS, NEIGHBOURS, TEMPERATURE = 2, 2, 4, 0.1
L2 = 1e-2


def write(name, *parts):
    (FIXTURES / name).write_bytes(b"".join(numpy.asarray(part).astype("<f4").tobytes() for part in parts))


def propagation(random):
    frames, rows, cols, dim, classes = 6, 4, 5, 7, 3
    patches = (random.normal(size=(rows, cols, dim)) + 0.6 * random.normal(size=(frames, rows, cols, dim))).astype("<f4")
    labels = random.dirichlet(numpy.ones(classes), (rows, cols)).astype("<f4")
    labels[1, 1] = 0  # nothing is known there

    unit = patches.astype(numpy.float64)
    unit /= numpy.linalg.norm(unit, axis=-1, keepdims=True)
    unit = unit.reshape(frames, rows * cols, dim)
    row, col = numpy.divmod(numpy.arange(rows * cols), cols)
    near = (abs(row[:, None] - row) <= RADIUS) & (abs(col[:, None] - col) <= RADIUS)
    known = [labels.reshape(-1, classes).astype(numpy.float64)]
    for frame in range(1, frames):
        sources = [0] + [index for index in range(max(1, frame - CONTEXT), frame)]
        affinity = numpy.concatenate([numpy.exp(unit[index] @ unit[frame].T / TEMPERATURE) * near for index in sources])
        least = numpy.sort(affinity, axis=0)[-NEIGHBOURS]
        affinity[affinity < least] = 0
        affinity /= affinity.sum(axis=0)
        known.append(affinity.T @ numpy.concatenate([known[index] for index in sources]))
    write("propagation.f32", patches, labels, *known[1:])


def ridge(random):
    count, dim = 240, 9
    features = (random.normal(size=(count, dim)) @ random.normal(size=(dim, dim)) + 20 * random.normal(size=dim)).astype("<f4")
    features[:, 4] = 1.5  # a dimension without variance
    targets = (features @ random.normal(size=dim) / 10 + random.normal(size=count)).astype("<f4")
    weights = random.uniform(0, 1, count).astype("<f4")
    weights[::5] = 0  # without a target
    exact, weight = features.astype(numpy.float64), weights.astype(numpy.float64)
    scaler = StandardScaler().fit(exact, sample_weight=weight)
    standard = scaler.transform(exact)
    regression = Ridge(alpha=L2 * weight.sum(), solver="cholesky").fit(standard, targets.astype(numpy.float64), weight)
    write("ridge.f32", features, targets, weights, regression.predict(standard))


propagation(numpy.random.default_rng(5))
ridge(numpy.random.default_rng(6))
