import numpy as np
import pytest
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_ext.checks import splits_of_config
from mmseg_ext.converters import VocWriter
from mmseg_ext.datasets import RoadDataset
from mmseg_ext.datasets.loading import read_mask
from mmseg_ext.engine import load_config
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.imagery import ImageReading

LOAD = [dict(type="LoadRoadImage"), dict(type="LoadRoadMask")]
SPLIT = "ImageSets/Segmentation/train.txt"


@pytest.fixture()
def voc(tmp_path):
    rng = np.random.default_rng(0)
    with VocWriter(str(tmp_path / "voc")) as writer:
        for i in range(3):
            image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            mask = (np.arange(600).reshape(20, 30) % 7 == i).astype(np.uint8)
            writer.add(f"t{i}", image, mask, ("train", "train", "val")[i])
    return tmp_path / "voc"


def make(root, pipeline=LOAD, **more):
    return RoadDataset(pipeline, **{"split": SPLIT, "data_root": str(root), **more})


def test_pairs_are_read_as_they_are(voc):
    dataset = make(voc)
    assert len(dataset) == 2
    item = dataset[1]
    raw = np.array(Image.open(voc / "JPEGImages" / "t1.png"))
    assert np.array_equal(item["img"][:, :, ::-1], raw)
    assert np.array_equal(item["gt_semantic_seg"], np.arange(600).reshape(20, 30) % 7 == 1)
    assert dataset.CLASSES == ("background", "road")
    assert dataset.PALETTE == [[0, 0, 0], [128, 0, 0]]


@pytest.mark.parametrize(
    ("suffix", "mode"), [("jpg", "RGB"), ("tif", "RGB"), ("png", "RGBA"), ("tif", "L"), ("JPG", "RGB")]
)
def test_image_formats(voc, suffix, mode):
    image = Image.open(voc / "JPEGImages" / "t0.png").convert(mode)
    (voc / "JPEGImages" / "t0.png").unlink()
    image.save(voc / "JPEGImages" / f"t0.{suffix}", **({"quality": 95} if suffix.lower() == "jpg" else {}))
    out = make(voc)[0]["img"]
    expected = np.array(Image.open(voc / "JPEGImages" / f"t0.{suffix}").convert("RGB"))
    assert np.array_equal(out[:, :, ::-1], expected)


def test_more_classes_and_their_colours(voc):
    mask = voc / "SegmentationClass" / "t0.png"
    Image.fromarray(np.full((20, 30), 3, np.uint8)).save(mask)
    classes, palette = ("ground", "ramp", "bench", "pad"), [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    dataset = make(voc, classes=classes, palette=palette)
    assert dataset[0]["gt_semantic_seg"].max() == 3
    scores = dataset.evaluate(dataset.pre_eval([np.full((20, 30), 3)], [0]), "mIoU", logger="silent")
    assert scores["IoU.pad"] == 1.0
    with pytest.raises(ConfigError, match="4 classes but 2 colours"):
        make(voc, classes=classes)
    with pytest.raises(DataError, match="label values 3 are none of the 2 classes"):
        make(voc)[0]


def test_scores_are_those_of_the_definition(voc):
    dataset = make(voc)
    truth = read_mask(dataset.mask_path(0))
    pred = truth.copy()
    pred[:10] = 0
    truth_255 = truth.copy()
    truth_255[:, :5] = 255  # ignored pixels count nowhere
    Image.fromarray(truth_255).save(dataset.mask_path(0))
    (areas,) = dataset.pre_eval([pred], [0])
    keep = truth_255 != 255
    hit = ((pred == 1) & (truth == 1) & keep).sum()
    union = (((pred == 1) | (truth == 1)) & keep).sum()
    scores = dataset.evaluate([areas], ["mIoU", "mFscore"], logger="silent")
    assert scores["IoU.road"] == hit / union
    assert scores["mIoU"] == pytest.approx((scores["IoU.road"] + scores["IoU.background"]) / 2)
    assert scores["Precision.road"] == 1.0
    assert scores["Recall.road"] == hit / ((truth == 1) & keep).sum()


def test_step_args_reach_every_step_of_their_type():
    pipeline = [
        dict(type="LoadRoadImage"),
        dict(
            type="MultiScaleFlipAug",
            img_scale=(9, 9),
            flip=False,
            transforms=[dict(type="Resize", keep_ratio=True), dict(type="Normalize", mean=[0.0] * 3, std=[1.0] * 3)],
        ),
    ]
    from mmseg_ext.datasets.pipelines import with_step_args

    merged = with_step_args(
        pipeline, dict(Normalize=dict(mean=[1.0, 2.0, 3.0]), MultiScaleFlipAug=dict(img_scale=(5, 5)))
    )
    assert merged[1]["img_scale"] == (5, 5)
    assert merged[1]["transforms"][1] == dict(type="Normalize", mean=[1.0, 2.0, 3.0], std=[1.0] * 3)
    assert pipeline[1]["img_scale"] == (9, 9)
    with pytest.raises(ConfigError, match="step_args names Normalise, but the pipeline has only"):
        with_step_args(pipeline, dict(Normalise=dict()))


def test_the_papers_pipeline_gives_the_papers_tensors(voc, root):
    cfg = load_config(str(root / "myconfigs/segnext/tiny/segnext.tiny.1024x1024.OPM.20k.py"))
    for split in ("train", "val"):
        cfg.data[split].data_root = str(voc)
    train = build_dataset(cfg.data.train)[0]
    assert train["img"].data.shape == (3, 1024, 1024)
    assert train["gt_semantic_seg"].data.shape == (1, 1024, 1024)
    item = build_dataset(cfg.data.val, dict(test_mode=True))[0]
    assert item["img"][0].shape == (3, 864, 1280)  # 20x30 to 1280 wide, then up to multiples of 32
    raw = np.array(Image.open(voc / "JPEGImages" / "t2.png")).astype(np.float64)
    corner = (raw[0, 0] - [105.20, 109.26, 88.26]) / [44.23, 36.57, 38.39]
    assert item["img"][0][:, 0, 0].numpy() == pytest.approx(corner, abs=0.02)


def broken(voc, what):
    images, masks, lists = voc / "JPEGImages", voc / "SegmentationClass", voc / "ImageSets" / "Segmentation"
    if what == "split":
        (lists / "train.txt").rename(lists / "trian.txt")
    elif what == "empty":
        (lists / "train.txt").write_text("\n")
    elif what == "image":
        (images / "t1.png").unlink()
    elif what == "mask":
        (masks / "t1.png").unlink()
    elif what == "twins":
        Image.open(images / "t1.png").save(images / "t1.jpg")
    elif what == "folder":
        images.rename(voc / "Images")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("split", r"train.txt: no such split file; did you mean .*trian.txt\?"),
        ("empty", "train.txt: the split is empty"),
        ("image", r"t1.\*: no such image, but .*train.txt lists it"),
        ("mask", r"JPEGImages/t1.png: no mask .*SegmentationClass/t1.png; add the mask"),
        ("twins", "t1.jpg and t1.png share one name"),
        ("folder", "JPEGImages: no such folder"),
    ],
)
def test_what_is_missing_is_named(voc, what, words):
    broken(voc, what)
    with pytest.raises(DataError, match=words) as error:
        make(voc)
    assert "\n" not in str(error.value)


def test_missing_root_is_named():
    with pytest.raises(DataError, match=r"data/Nowhere: no such folder \(data_root\)"):
        make("data/Nowhere")


def test_corrupt_files_are_named(voc):
    dataset = make(voc)
    image, mask = dataset.image_path(0), dataset.mask_path(1)
    content = open(image, "rb").read()
    open(image, "wb").write(content[: len(content) // 2])
    with pytest.raises(DataError, match="t0.png: cannot be read as an image"):
        dataset[0]
    open(mask, "wb").write(b"nothing")
    with pytest.raises(DataError, match="t1.png: cannot be read as a mask"):
        dataset[1]
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(image)
    with pytest.raises(DataError, match="uint16 pixels, and no scaling to 8 bits is known"):
        ImageReading().read(image)


def test_a_mask_of_another_size_or_in_colour_is_named(voc):
    dataset = make(voc)
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(dataset.mask_path(0))
    with pytest.raises(DataError, match="the mask is 31x20 px but its image .* is 30x20 px"):
        dataset[0]
    with pytest.raises(DataError, match="the mask is 31x20 px"):
        dataset.pre_eval([np.zeros((20, 30))], [0])
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(dataset.mask_path(0))
    with pytest.raises(DataError, match=r"3 band\(s\) of uint8, but a mask holds .*tools/convert_dataset.py"):
        dataset[0]


def test_labels_from_1_are_refused_with_the_reason(voc):
    steps = [dict(type="LoadRoadImage"), dict(type="LoadRoadMask")]
    settings = dict(split="ImageSets/Segmentation/train.txt", data_root=str(voc))
    assert len(RoadDataset(steps, **settings, reduce_zero_label=False)) > 0
    reduced = [steps[0], dict(type="LoadAnnotations", reduce_zero_label=True)]
    for wrong in (dict(pipeline=steps, reduce_zero_label=True), dict(pipeline=reduced)):
        with pytest.raises(ConfigError, match=r"^reduce_zero_label=True: .* here 0 is background, .*; leave .* out$"):
            RoadDataset(**wrong, **settings)
        with pytest.raises(ConfigError, match="^reduce_zero_label=True: "):
            splits_of_config(dict(train=dict(**wrong, **settings)))
