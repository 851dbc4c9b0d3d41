import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.errors import ConfigError
from mmseg_ext.report import contact_sheet
from mmseg_ext.report.contact_sheet import Section, SheetCell, write_contact_sheet

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 0, 200))


def cell(labels=None, caption="a.png", note="", size=(40, 60)):
    return SheetCell(np.full((*size, 3), (10, 120, 60), np.uint8), labels, caption, note)


def pictures_of(page):
    data = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(one)))) for one in data]


def test_page_is_complete_in_itself_and_escapes_what_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "_PICTURE_PX", 30)
    labels = np.zeros((40, 60), np.uint8)
    labels[:, :30] = 1
    sections = [
        Section("first & <b>", [cell(labels, "<script>.png", "a > b"), cell(caption="plain")], "text <i>"),
        Section("second", []),
    ]
    path = tmp_path / "new" / "sheet.html"
    write_contact_sheet(
        str(path), "<title>", sections, PALETTE, "<p id=own>kept</p>", classes=("ground", "ro<ad", "pad")
    )
    page = path.read_text()
    for words in (
        "first &amp; &lt;b&gt;",
        "&lt;script&gt;.png",
        "a &gt; b",
        "text &lt;i&gt;",
        "&lt;title&gt;",
        "ro&lt;ad",
    ):
        assert words in page
    assert "<p id=own>kept</p>" in page
    assert "<script" not in page and "http" not in page
    assert "rgb(200, 0, 0)" in page and "rgb(0, 0, 0)" not in page
    plain, tinted, alone = pictures_of(page)
    assert plain.shape == tinted.shape == alone.shape == (20, 30, 3)
    assert np.abs(plain.astype(int) - (10, 120, 60)).max() <= 3
    assert np.abs(tinted[:, 2:12].astype(int) - (105, 60, 30)).max() <= 6
    assert np.abs(tinted[:, 18:].astype(int) - (10, 120, 60)).max() <= 6
    assert [entry.name for entry in path.parent.iterdir()] == ["sheet.html"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_picture_holds_every_cell_at_its_place(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(contact_sheet, "_PICTURE_PX", 60)
    labels = np.ones((40, 60), np.uint8)
    cells = [cell(labels, f"number {i}", "long words " * 40) for i in range(5)]
    path = tmp_path / f"sheet.{suffix}"
    write_contact_sheet(str(path), "title", [Section("all", cells, "text"), Section("none", [])], PALETTE)
    sheet = np.array(Image.open(path).convert("RGB")).astype(int)
    assert sheet.shape[1] == 2 * (2 * 60 + 5) + 10 + 20
    plain = np.abs(sheet - (10, 120, 60)).max(axis=2) <= 12
    tinted = np.abs(sheet - (105, 60, 30)).max(axis=2) <= 12
    for found in (plain, tinted):
        assert found.sum() == pytest.approx(5 * 40 * 60, rel=0.1)  # JPEG blurs the colours' edges
        assert (found.sum(axis=0) > 100).sum() == pytest.approx(60, abs=6)  # the first column has three cells
        assert (found.sum(axis=0) > 60).sum() == pytest.approx(120, abs=12)  # the second has two


def test_a_path_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path, words in (("sheet.pdf", "is .html, .png or .jpg"), ("file/sheet.html", "cannot be written")):
        with pytest.raises(ConfigError, match=words) as error:
            write_contact_sheet(str(tmp_path / path), "t", [Section("s", [cell()])], PALETTE)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(contact_sheet, "_MAX_SIDE_PX", 100)
    with pytest.raises(ConfigError, match="too many for a picture; write .html"):
        write_contact_sheet(str(tmp_path / "sheet.png"), "t", [Section("s", [cell()])], PALETTE)
