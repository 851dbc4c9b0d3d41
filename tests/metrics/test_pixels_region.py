import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from mmseg.core.evaluation.metrics import eval_metrics, intersect_and_union

from mmseg_ext.errors import DataError
from mmseg_ext.metrics.pixels import confusion, region_scores

LABELS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]))


def test_scores_by_hand():
    truth = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 0, 1]], np.uint8)
    # of 6 true 0 one is called 1, of 5 true 1 two are called 0; the last pixel is ignored
    counts = confusion(prediction, truth, 2)
    assert counts.tolist() == [[5, 1], [2, 3]] and counts.dtype == np.int64
    scores = region_scores(counts)
    np.testing.assert_allclose(scores["IoU"], [5 / 8, 3 / 6])
    np.testing.assert_allclose(scores["F1"], [10 / 13, 6 / 9])
    np.testing.assert_allclose(scores["precision"], [5 / 7, 3 / 4])
    np.testing.assert_allclose(scores["recall"], [5 / 6, 3 / 5])
    np.testing.assert_allclose(scores["accuracy"], [5 / 6, 3 / 5])


def test_nothing_to_score():
    none = np.full((3, 3), 255, np.uint8)
    scores = region_scores(confusion(none, none, 2))
    assert np.isnan([*scores["IoU"], *scores["F1"], *scores["accuracy"]]).all()
    ground = np.zeros((3, 3), np.uint8)
    scores = region_scores(confusion(ground, ground, 2))  # no road, none found
    np.testing.assert_array_equal(scores["IoU"], [1, np.nan])
    np.testing.assert_array_equal(scores["F1"], [1, np.nan])
    scores = region_scores(confusion(ground, ground + 1, 2))  # all road, none found
    np.testing.assert_array_equal(scores["IoU"], [0, 0])
    np.testing.assert_array_equal(scores["F1"], [0, 0])
    np.testing.assert_array_equal(scores["precision"], [0, np.nan])
    np.testing.assert_array_equal(scores["recall"], [np.nan, 0])


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_are_those_of_mmsegmentation(classes):
    random = np.random.default_rng(classes)
    truths = random.integers(0, classes, (4, 60, 50)).astype(np.uint8)
    predictions = np.where(random.random(truths.shape) < 0.6, truths, random.integers(0, classes, truths.shape))
    truths[random.random(truths.shape) < 0.1] = 255
    theirs = eval_metrics(list(predictions), list(truths), classes, 255, metrics=["mIoU", "mDice", "mFscore"])
    images = [confusion(*pair, classes) for pair in zip(predictions, truths, strict=True)]
    ours = region_scores(sum(images))
    names = dict(IoU="IoU", F1="Dice", precision="Precision", recall="Recall", accuracy="Acc")
    for our_name, their_name in names.items():
        np.testing.assert_allclose(ours[our_name], theirs[their_name], rtol=1e-6)
    np.testing.assert_allclose(ours["F1"], theirs["Fscore"], rtol=1e-6)
    for prediction, truth, image in zip(predictions, truths, images, strict=True):
        areas = np.stack(intersect_and_union(prediction, truth, classes, 255))
        hits, true, predicted = np.diag(image), image.sum(axis=1), image.sum(axis=0)
        np.testing.assert_array_equal(areas, [hits, true + predicted - hits, predicted, true])


@given(LABELS, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_scores_do_not_depend_on_where_pixels_are(truth, random):
    prediction = np.array([[random.randrange(3) for _ in row] for row in truth])
    counts = confusion(prediction, truth, 3)
    assert counts.sum() == (truth != 255).sum()
    np.testing.assert_array_equal(confusion(prediction[::-1], truth[::-1], 3), counts)
    np.testing.assert_array_equal(confusion(np.rot90(prediction), np.rot90(truth), 3), counts)
    twice = [np.kron(each, np.ones((2, 2), each.dtype)) for each in (prediction, truth)]
    np.testing.assert_array_equal(confusion(*twice, 3), 4 * counts)
    scores, swapped = region_scores(counts), region_scores(counts.T)
    for name, other in (("IoU", "IoU"), ("F1", "F1"), ("precision", "recall")):
        np.testing.assert_array_equal(scores[name], swapped[other])
    same = region_scores(confusion(truth, truth, 3))
    present = np.isin([0, 1, 2], truth)
    np.testing.assert_array_equal(same["IoU"], np.where(present, 1, np.nan))


def test_labels_that_are_no_class_are_named():
    good = np.array([[0, 1]])
    with pytest.raises(DataError, match="the truth has the label 7, but the classes are 0 to 1"):
        confusion(good, np.array([[0, 7]], np.uint8), 2)
    with pytest.raises(DataError, match="the prediction has the label -1"):
        confusion(np.array([[-1, 0]]), good, 2)
    assert confusion(np.array([[9, 1]]), np.array([[255, 1]]), 2).tolist() == [[0, 0], [0, 1]]  # ignored
    with pytest.raises(ValueError, match="shape"):
        confusion(good, good[0], 2)
