import logging

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.checks import check_datasets
from mmseg_ext.converters import VocWriter
from mmseg_ext.datasets import RoadDataset
from mmseg_ext.errors import DataError

STEPS = [dict(type="LoadRoadImage"), dict(type="LoadRoadMask")]


def dataset_with(tmp_path, *masks, classes=("background", "road")):
    with VocWriter(str(tmp_path / "voc")) as writer:
        for i, mask in enumerate(masks):
            writer.add(f"t{i}", np.zeros((8, 9, 3), np.uint8), np.asarray(mask, np.uint8), "train")
    palette = [[i, 0, 0] for i in range(len(classes))]
    root = str(tmp_path / "voc")
    return RoadDataset(
        STEPS, split="ImageSets/Segmentation/train.txt", data_root=root, classes=classes, palette=palette
    )


def grid(*values):
    return np.resize(values, (8, 9))


def test_labels_and_ignore_pass(tmp_path):
    check_datasets(test=dataset_with(tmp_path, grid(0, 1), grid(0, 255), grid(0, 0)))


def test_no_road_anywhere_passes_without_ignore(tmp_path):
    check_datasets(test=dataset_with(tmp_path, grid(0), grid(0)))


def test_other_values_are_named_with_file_and_converter(tmp_path):
    with pytest.raises(DataError) as error:
        check_datasets(test=dataset_with(tmp_path, grid(0, 1), grid(0, 128, 200)))
    line = str(error.value)
    assert "t1.png: label values 128, 200 are none of the 2 classes (0 to 1) nor 255 (ignore)" in line
    assert line.endswith("python tools/convert_dataset.py pair SOURCE DEST")


def test_road_written_as_255_is_not_taken_for_ignore(tmp_path):
    with pytest.raises(DataError, match=r"t0.png: values 0 and 255 but no class .*check_dataset.py DATASET --fix DEST"):
        check_datasets(test=dataset_with(tmp_path, grid(0, 255), grid(0)))


def test_more_classes_have_more_labels(tmp_path):
    check_datasets(test=dataset_with(tmp_path, grid(0, 1, 2), classes=("ground", "ramp", "pad")))


def test_sizes_and_unreadable_images(tmp_path):
    dataset = dataset_with(tmp_path, grid(0, 1), grid(0, 1))
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(dataset.mask_path(1))
    with pytest.raises(DataError, match="t1.png: the mask is 10x8 px but its image .*t1.png is 9x8 px"):
        check_datasets(test=dataset)
    open(dataset.image_path(0), "wb").write(b"\x89PNG nothing")
    with pytest.raises(DataError, match="t0.png: cannot be read as an image"):
        check_datasets(test=dataset)


def split_of(tmp_path, stems, name="train"):
    root = tmp_path / "voc"
    (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return RoadDataset(STEPS, split=f"ImageSets/Segmentation/{name}.txt", data_root=str(root))


def test_training_without_a_road_is_refused_and_measuring_without_one_is_logged(tmp_path, caplog):
    dataset_with(tmp_path, grid(0, 1), grid(0))
    road, empty = split_of(tmp_path, ["t0"]), split_of(tmp_path, ["t1"], "val")
    with pytest.raises(DataError, match=r"val.txt: not one of its 1 masks holds a road pixel; choose"):
        check_datasets(train=empty, val=road)
    with caplog.at_level(logging.WARNING):
        check_datasets(train=road, val=empty)
    assert [record.getMessage().split(": ")[1][:10] for record in caplog.records] == ["not one of"]


def test_an_image_that_trains_and_validates_is_refused(tmp_path):
    dataset_with(tmp_path, grid(0, 1), grid(0, 1), grid(1, 0))
    train, val = split_of(tmp_path, ["t0", "t1"]), split_of(tmp_path, ["t2", "t1", "t0"], "val")
    with pytest.raises(DataError, match=r"t1.png: listed in .*val.txt and for training; leave it in one") as error:
        check_datasets(train=train, val=val)
    assert str(error.value).endswith("; and 1 more, see: python tools/check_dataset.py CONFIG")
    check_datasets(train=train, val=None)
