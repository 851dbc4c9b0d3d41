import os

import pytest

from mmseg_ext.datasets.raw_mask import find_folders, match_files, pair_files
from mmseg_ext.errors import DataError


@pytest.fixture()
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    ("files", "images", "masks"),
    [
        (["images/a.png", "masks/a.png"], "images", "masks"),
        (["Img/a.png", "GT/a.gif", "notes/b.png"], "Img", "GT"),
        (["JPEGImages/a.jpg", "SegmentationClass/a.png", "ImageSets/x.txt"], "JPEGImages", "SegmentationClass"),
        (["a_sat.jpg", "a_mask.png", "read.me"], "", ""),
    ],
)
def test_folders_are_told_by_their_names(folder, files, images, masks):
    root = folder(*files)
    assert find_folders(root) == tuple(os.path.join(root, sub) if sub else root for sub in (images, masks))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.png", "b.png"], "holds no folder of images beside a folder of masks"),
        (["images/a.png", "sat/a.png", "masks/a.png"], "images, sat may each hold the images; keep one of them there"),
        (["images/a.png"], "holds no folder of images beside a folder of masks"),
    ],
)
def test_what_cannot_be_told_is_refused(folder, files, message):
    with pytest.raises(DataError, match=message) as error:
        find_folders(folder(*files))
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="no such folder"):
        find_folders("nowhere")


def test_matching_goes_on_where_pairing_stops(folder):
    root = folder("i/a_sat.png", "i/b.png", "i/b.jpg", "i/c.tif", "m/a_mask.bmp", "m/b_road.png", "m/d.png")
    images, masks = os.path.join(root, "i"), os.path.join(root, "m")
    matching = match_files(images, masks)
    assert [(stem, os.path.basename(i), os.path.basename(m)) for stem, i, m in matching.pairs] == [
        ("a", "a_sat.png", "a_mask.bmp"),
        ("b", "b.jpg", "b_road.png"),
    ]
    assert [os.path.basename(path) for path in matching.lone_images] == ["c.tif"]
    assert [(stem, os.path.basename(other)) for stem, _, other in matching.clashes] == [("b", "b.png")]
    with pytest.raises(DataError, match="b.jpg and b.png both stand for 'b'; keep one of them"):
        pair_files(images, masks)
    os.remove(os.path.join(images, "b.png"))
    with pytest.raises(DataError, match="c.tif: no mask named like it in"):
        pair_files(images, masks)
    os.remove(os.path.join(images, "c.tif"))
    assert [pair[0] for pair in pair_files(images, masks)] == ["a", "b"]
