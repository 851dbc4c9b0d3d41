"""The layout of a data set and the rules of its split files."""

import os

import pytest

import mmseg_ext
from mmseg_ext.errors import DataError
from mmseg_ext.imagery import read_metadata, voc


@pytest.fixture()
def root(tmp_path):
    voc.make_folders(str(tmp_path))
    for stem in ("a", "b", "c"):
        (tmp_path / voc.IMAGES / f"{stem}.png").write_bytes(b"")
        (tmp_path / voc.MASKS / f"{stem}.png").write_bytes(b"")
    voc.write_split(str(tmp_path), "train", ["b", "a"])
    return tmp_path


def listed(root, content=None):
    """Return the stems that the training split lists, and the codes of its flaws."""
    path = voc.split_file(str(root), "train")
    if content is not None:
        with open(path, "wb") as file:
            file.write(content)
    pairs, flaws = voc.listed_pairs(path, str(root / voc.IMAGES), str(root / voc.MASKS))
    return [pair.stem for pair in pairs], [flaw.code for flaw in flaws], flaws


def test_the_layout_is_written_and_read(root):
    assert voc.split_file("x", "val") == os.path.join("x", "ImageSets", "Segmentation", "val.txt")
    assert (root / "ImageSets" / "Segmentation" / "train.txt").read_text() == "b\na\n"
    pairs, flaws = voc.listed_pairs(
        voc.split_file(str(root), "train"), str(root / "JPEGImages"), str(root / "SegmentationClass")
    )
    folders = root / "JPEGImages", root / "SegmentationClass"
    assert pairs == [(stem, *(str(folder / f"{stem}.png") for folder in folders)) for stem in "ba"]
    assert flaws == []
    assert voc.listed_pairs(voc.split_file(str(root), "train"), str(folders[0]), None)[0][0].mask is None
    assert voc.unlisted_images(str(folders[0]), [voc.split_file(str(root), "train")]) == ["c.png"]
    assert read_metadata(str(root)) == {}
    voc.write_metadata(str(root), dict(gsd_m=0.5))
    assert read_metadata(str(root)) == dict(gsd_m=0.5)
    (root / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match="dataset.json: not a JSON object"):
        read_metadata(str(root))


@pytest.mark.parametrize(
    ("content", "stems", "codes"),
    [
        (b"a\r\n\r\n  b  \rc", ["a", "b", "c"], []),
        (b"\xef\xbb\xbfa\nb\n", ["a", "b"], ["split-encoding"]),
        (b"a\nb\na\n", ["a", "b", "a"], ["line-twice"]),
    ],
)
def test_what_does_no_harm(root, content, stems, codes):
    assert listed(root, content)[:2] == (stems, codes)
    voc.refuse(listed(root)[2])
    assert voc.read_names(voc.split_file(str(root), "train")) == stems


@pytest.mark.parametrize(
    ("content", "stems", "codes", "words"),
    [
        ("a\nb".encode("utf-16"), ["a", "b"], ["split-encoding"], r"begins with a byte-order mark \(utf-16\); save it"),
        (b"a\nstra\xdfe\n", ["a"], ["split-encoding"], "the name .* is not UTF-8; save it as UTF-8"),
        (b" \n\n", [], ["empty-split"], "train.txt: the split is empty; list one image name"),
        (b"a.png\nb\n", ["b"], ["no-image"], "no such image, but .*train.txt lists it with its suffix; add it, or"),
    ],
)
def test_what_is_refused_and_gone_over(root, content, stems, codes, words):
    found = listed(root, content)
    assert found[:2] == (stems, codes)
    with pytest.raises(DataError, match=words) as error:
        voc.refuse(found[2])
    assert "\n" not in str(error.value)


def test_masks_that_are_missing_or_raw(root):
    (root / voc.MASKS / "a.png").rename(root / voc.MASKS / "a.bmp")
    (root / voc.MASKS / "b.png").unlink()
    stems, codes, flaws = listed(root)
    assert (stems, codes) == (["a"], ["no-mask", "no-mask"])  # in the order of the split file: b, a
    assert flaws[1].words.endswith("SegmentationClass/a.png; a.bmp is no png or tif")


def test_the_first_flaw_that_does_harm_is_refused_with_its_remedy():
    with pytest.raises(DataError, match="^x: y; keep one of them$"):
        voc.refuse([voc.Flaw("line-twice", "x", "", is_harmless=True), voc.Flaw("two-files", "x", "y")])


@pytest.mark.parametrize("room", ["datasets", "checks", "converters"])
def test_no_other_module_names_the_folders(room):
    folder = os.path.join(os.path.dirname(mmseg_ext.__file__), room)
    for name in set(os.listdir(folder)) - {"voc.py", "__pycache__"}:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            source = file.read()
        assert not any(word in source for word in (voc.IMAGES, voc.MASKS, "ImageSets")), name


def test_a_split_file_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "train.txt"
    path.write_text("a\n")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(voc.Path, "read_bytes", refuse)
    words = r"train.txt: the split file cannot be read \(Permission denied\); make it a file that you may read$"
    with pytest.raises(DataError, match=words):
        voc.read_names(str(path))
