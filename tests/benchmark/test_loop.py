import cv2
import numpy as np
import pytest

from mmseg_ext.datasets import generate_mine
from mmseg_ext.geo import read_raster
from mmseg_ext.metrics.pixels import confusion, region_scores

SIZE, TILE_A, TILE_B, MARGIN = 1280, 256, 128, 32
# one of five tiles, a knight's move from the next
CORRECTED = [(row * TILE_B, column * TILE_B) for row in range(10) for column in range(2 * row % 5, 10, 5)]


def road_iou(found, truth):
    return 100 * region_scores(confusion(found, truth, 2))["IoU"][1]


def read_labels(folder):
    """The masks of a data set by the row and column of their tiles."""
    masks = {}
    for file in sorted((folder / "SegmentationClass").glob("*.png")):
        row, column = (int(part[1:]) for part in file.stem.split("_")[-2:])
        masks[row, column] = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    return masks


@pytest.fixture(scope="module")
def loop(run_tool, tmp_path_factory):
    """The folder of a measurement with networks that learn nearly nothing, and what it printed."""
    out = tmp_path_factory.mktemp("loop") / "out"
    done = run_tool(*("benchmark/loop.py", "--out", out, "--size", SIZE, "--iters", 40, "--tune-iters", 2), timeout=900)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.slow
def test_the_networks_learn_the_truth_of_the_corrected_tiles_alone(loop):
    out, _ = loop
    a, b = (generate_mine(seed, SIZE).mask for seed in (101, 202))
    learned = read_labels(out / "data_a")
    within = {place: labels[: SIZE - place[0], : SIZE - place[1]] for place, labels in learned.items()}
    truth = [a[row : row + TILE_A, column : column + TILE_A] for row, column in within]
    assert road_iou(*(np.concatenate([part.ravel() for part in parts]) for parts in (within.values(), truth))) > 95
    corrected = read_labels(out / "data_b")
    assert sorted(corrected) == CORRECTED
    truth = np.stack([b[row : row + TILE_B, column : column + TILE_B] for row, column in corrected])
    assert road_iou(np.stack(list(corrected.values())), truth) > 95


@pytest.mark.slow
def test_the_table_says_what_the_maps_show(loop):
    out, printed = loop
    mask = generate_mine(202, SIZE).mask
    inside, near = np.zeros((2, SIZE, SIZE), bool)
    for top, left in CORRECTED:
        inside[top : top + TILE_B, left : left + TILE_B] = True
        rows, columns = (slice(max(start - MARGIN, 0), start + TILE_B + MARGIN) for start in (top, left))
        near[rows, columns] = True
    table = (out / "loop.md").read_text()
    assert table in printed
    rows = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in table.splitlines()[2:]]
    names = ["before", "fine-tuned on 20 tiles of B, seed 0", "control: as long on A again"]
    assert [row[0] for row in rows] == names
    for (_, rest, tiles), folder in zip(rows, ("before", "data_b_seed0", "data_a_seed0"), strict=True):
        found = read_raster(str(out / f"maps_{folder}" / "mine_b_roads.tif"))[0][:, :, 0]
        assert [rest, tiles] == [f"{road_iou(found[where], mask[where]):.1f}" for where in (~near, inside)]


def test_a_measurement_does_not_mix_with_one_that_is_there(run_tool, tmp_path):
    done = run_tool("benchmark/loop.py", "--out", tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "exists already; choose another --out" in done.stderr
