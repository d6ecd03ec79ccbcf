"""Makes the fixtures of tests/linear_probe.rs: a logistic regression by scikit-learn, and a scored label map by PyTorch.

    python crates/dinov2-heads/tests/make_probe_fixtures.py

Raw little-endian f32. probe.f32: features [300, 10], targets [300, 3], logits [300, 3] (mean of each row 0).
segmentation.f32: logits [3, 4, 5], labels [37, 50], patch shares [3, 4, 5], pixels per label and prediction [5, 5],
IoU [5], accuracy.
"""

import pathlib

import numpy
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from sklearn.preprocessing import StandardScaler

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
L2 = 1e-3
IGNORE = 255


def write(name, *parts):
    (FIXTURES / name).write_bytes(b"".join(numpy.asarray(part).astype("<f4").tobytes() for part in parts))


def probe(random):
    count, dim, classes = 300, 10, 3
    centres = random.normal(size=(classes, dim))
    label = random.integers(0, classes, count)
    features = (centres[label] + random.normal(size=(count, dim))) * numpy.arange(1, dim + 1) + 5
    features[:, 3] = 2.5  # a dimension without variance
    features = features.astype("<f4")
    targets = 0.7 * numpy.eye(classes)[label] + 0.3 * random.dirichlet(numpy.ones(classes), count)
    targets *= random.uniform(0.2, 1, (count, 1))
    targets[::7] = 0  # not labelled
    targets = targets.astype("<f4")

    standard = StandardScaler().fit_transform(features.astype(numpy.float64))
    # A soft target is one sample per class with the share as its weight.
    weight = targets.astype(numpy.float64).T.reshape(-1)
    regression = LogisticRegression(C=1 / (L2 * weight.sum()), tol=1e-10, max_iter=100_000)
    regression.fit(numpy.tile(standard, (classes, 1)), numpy.repeat(numpy.arange(classes), count), weight)
    logits = regression.decision_function(standard)
    write("probe.f32", features, targets, logits - logits.mean(axis=1, keepdims=True))


def segmentation(random):
    (rows, cols), (height, width), classes = (3, 4), (37, 50), 5
    logits = random.normal(size=(rows, cols, classes)).astype("<f4")
    logits[:, :, 4] -= 100  # never predicted
    planes = torch.from_numpy(logits).permute(2, 0, 1)[None]
    predicted = torch.nn.functional.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)
    predicted = predicted[0].argmax(dim=0).numpy()
    labels = numpy.where(random.random((height, width)) < 0.6, predicted, random.integers(0, classes, (height, width)))
    labels[random.random((height, width)) < 0.1] = IGNORE
    counted = labels != IGNORE

    shares = numpy.zeros((rows, cols, classes))
    row = numpy.floor((numpy.arange(height) + 0.5) * rows / height).astype(int)
    col = numpy.floor((numpy.arange(width) + 0.5) * cols / width).astype(int)
    for r in range(rows):
        for c in range(cols):
            patch = labels[row == r][:, col == c]
            shares[r, c] = [(patch == label).mean() for label in range(classes)]
    known = numpy.arange(classes)
    pair = (labels[counted], predicted[counted])
    iou = jaccard_score(*pair, labels=known, average=None)
    matrix = confusion_matrix(*pair, labels=known)
    write("segmentation.f32", logits, labels, shares, matrix, iou, accuracy_score(*pair))


def main():
    random = numpy.random.default_rng(3)
    probe(random)
    segmentation(random)


if __name__ == "__main__":
    main()
