import base64
import io
import math
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mmseg_ext.errors import ConfigError, MissingExtraError
from mmseg_ext.metrics.pixels import probability_counts
from mmseg_ext.scoring import ImageScores, RoadMasks, ScoringSettings, report, report_charts, results, write_report
from mmseg_ext.scoring.measures import RoadMeasure
from mmseg_ext.scoring.report_charts import (
    ERROR_COLOURS,
    FALSE,
    GAP_COLOUR,
    HIT,
    IGNORED,
    MISSED,
    NEAR,
    PREDICTED_COLOUR,
    TRUTH_COLOUR,
    calibration_chart,
    distribution_chart,
    entropy_picture,
    error_classes,
    error_picture,
    graph_picture,
    precision_recall_chart,
    truth_picture,
)

NAN = math.nan


def measure(key, name, definition, group, unit, higher_is_better, pooled=True):
    of = (lambda counts: counts[key]) if pooled else None
    return RoadMeasure(key, name, definition, of, unit, higher_is_better, group=group)


MEASURES = (
    measure("IoU", "IoU", 'Road in both over "either" & no more.', "Region", "%", True),
    measure("relaxed_F1", "Relaxed F1", "With a tolerance.", "Region", "%", True, pooled=False),
    measure("offset", "Offset", "Mean distance of the centrelines.", "Centreline", "m", False),
    measure("width", "Width error", "Difference of the widths.", "Centreline", "px", None, pooled=False),
    measure("APLS_spacenet", "APLS", "Paths of the network.", "Topology", "%", True, pooled=False),
    measure("gaps", "Gaps", "Interruptions of the network.", "Topology", "", False),
)
POOLED = {"IoU": 0.8125, "offset": NAN, "gaps": 12.0}
HOSTILE = '<script>alert("x")</script>.png'
ROWS = {  # in the order of the measures
    "tile_2.png": (0.7, 0.8, 2.0, -0.5, 0.2, 10.0),
    HOSTILE: (NAN, NAN, 0.5, 0.25, 0.1, 9.0),
    "tile_10.png": (0.95, 0.99, 1.0, 0.0, 0.9, 0.0),
    "tile_1.png": (0.08, 0.1, 10.0, NAN, 0.3, 2.0),
}


def probabilities():
    """Of road 4 at 0.6, 1 at 0.2, of ground 1 at 0.6, 5 at 0.2: the best F1 is 2 * 4 / (5 + 5), above 0.2 up to 0.6."""
    chances = np.array([[0.6] * 4 + [0.2] + [0.6] + [0.2] * 5])
    return probability_counts(chances, np.arange(11)[None] < 5)


def images(probability=True):
    counts = {key: value / len(ROWS) for key, value in POOLED.items()}
    keys = [measure.key for measure in MEASURES]
    chances = probabilities() if probability else None
    return [ImageScores(name, counts, dict(zip(keys, row, strict=True)), chances) for name, row in ROWS.items()]


def masks(size=64, **parts):
    """A road of which the last 24 px are missed."""
    truth, prediction = np.zeros((2, size, size), bool)
    truth[8:13], prediction[8:13, :40] = True, True
    return RoadMasks(prediction, truth, image=np.full((size, size, 3), 100, np.uint8), **parts)


def show(index):
    return masks(valid=np.arange(64)[:, None] + np.zeros(64) < 60, probability=np.full((64, 64), 0.5, np.float32))


@pytest.fixture(scope="module", autouse=True)
def own_measures():
    """The report of measures with every unit, direction and character that it must cope with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "MEASURES", MEASURES)
        patch.setattr(report, "BY_KEY", {measure.key: measure for measure in MEASURES})
        yield


class Page(HTMLParser):
    """Collects every element with its attributes and the text in it, and the cells of table rows."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.rows, self.open = [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attributes):
        entry = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(entry)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(entry)
        if tag not in ("meta", "img"):
            self.open.append(entry)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for entry in self.open:
            entry["text"] += data

    def all(self, tag):
        return [entry for entry in self.elements if entry["tag"] == tag]

    def row(self, start):
        return next(row for row in self.rows if row[0]["text"].startswith(start))


@pytest.fixture(scope="module")
def report_path(tmp_path_factory, own_measures):
    folder = tmp_path_factory.mktemp("road") / "new"
    write_report(str(folder), "Roads & <mines>", images(), ScoringSettings(), show, ("D-SegNeXt <S>", "a > b"))
    assert [entry.name for entry in folder.iterdir()] == ["report.html"]
    return folder / "report.html"


@pytest.fixture(scope="module")
def parsed(report_path):
    return Page(report_path)


def test_the_page_is_well_formed_and_needs_nothing_else(parsed):
    assert parsed.open == []
    assert [one["text"] for one in parsed.all("title")] == ["Roads & <mines>"]
    assert "http://" not in parsed.text and "https://" not in parsed.text and "@import" not in parsed.text
    assert "url(" not in parsed.text and not parsed.all("link")
    assert all(one["src"].startswith("data:image/") for one in parsed.elements if "src" in one)
    assert all(one["href"].startswith("#") for one in parsed.elements if "href" in one)
    assert "<p>a &gt; b</p>" in parsed.text and "<p>D-SegNeXt &lt;S&gt;</p>" in parsed.text
    notes = [one["text"] for one in parsed.all("li")]
    assert notes[0].startswith("The tolerance is 3 px; the buffer") and "The metres per pixel are not known" in notes[2]


def test_a_hostile_name_stays_text(parsed):
    assert len(parsed.all("script")) == 1 and "alert" not in parsed.all("script")[0]["text"]
    # the lowest three of each score and the median: IoU tile 1, 2, 10; APLS the hostile one, tile 2, 1
    links = {one["text"]: one["href"] for one in parsed.all("a")}
    assert links == {"tile_1.png": "#example-0", "tile_2.png": "#example-1", "tile_10.png": "#example-2"} | {
        HOSTILE: "#example-3"
    }
    assert [one["id"] for one in parsed.all("article")] == [f"example-{number}" for number in range(4)]
    assert [one["text"] for one in parsed.all("h3")] == [
        "worst IoU, worst APLS, median APLS (IoU 8.00, Relaxed F1 10.00, APLS 30.00)tile_1.png",
        "worst IoU, worst APLS (IoU 70.00, Relaxed F1 80.00, APLS 20.00)tile_2.png",
        "worst IoU (IoU 95.00, Relaxed F1 99.00, APLS 90.00)tile_10.png",
        f"worst APLS (IoU -, Relaxed F1 -, APLS 10.00){HOSTILE}",
    ]


def test_summary_numbers_stand_beside_their_definitions(parsed):
    expected = {
        "IoU": ("81.25 %", "57.67 %", "1"),
        "Relaxed F1": ("\N{EN DASH}", "63.00 %", "1"),
        "Offset": ("n/a", "3.375 m", "0"),
        "Width error": ("\N{EN DASH}", "-0.083 px", "1"),
        "APLS": ("\N{EN DASH}", "37.50 %", "0"),
        "Gaps": ("12", "5.250", "0"),
    }
    for measure in MEASURES:
        head, *cells = parsed.row(measure.name)
        assert tuple(cell["text"] for cell in cells) == expected[measure.name]
        assert measure.definition in head["text"]  # for those without a pointer
        assert all(measure.definition in cell["title"] for cell in cells[:2])
        assert f"in {expected[measure.name][2]} of 4 images" in cells[2]["title"]
        assert measure.definition in next(
            one["title"] for one in parsed.all("summary") if one["text"].startswith(measure.name)
        )
    assert "undefined: nothing to score" in parsed.row("Offset")[1]["title"]
    assert "Higher is better." in parsed.row("IoU")[1]["title"]
    assert "Lower is better." in parsed.row("Gaps")[1]["title"]
    assert "better" not in parsed.row("Width error")[2]["title"]
    groups = [one["text"] for one in parsed.all("th") if one.get("scope") == "rowgroup"]
    assert groups == ["Region", "Centreline", "Topology"]


def test_images_have_a_row_each(parsed):
    heads = parsed.row("Image")
    names = ["Image", "IoU, %", "Relaxed F1, %", "Offset, m", "Width error, px", "APLS, %", "Gaps"]
    assert [one["text"] for one in heads] == names
    assert [one["title"] for one in heads[1:]] == [measure.explanation for measure in MEASURES]
    assert {one["aria-sort"] for one in heads} == {"none"}
    spans = [(one["text"], one["colspan"]) for one in parsed.all("th") if one.get("scope") == "colgroup"]
    assert spans == [("Region", "2"), ("Centreline", "2"), ("Topology", "2")]
    shown = {
        "tile_2.png": ["70.00", "80.00", "2", "-0.500", "20.00", "10"],
        HOSTILE: ["n/a", "n/a", "0.500", "0.250", "10.00", "9"],
        "tile_10.png": ["95.00", "99.00", "1", "0", "90.00", "0"],
        "tile_1.png": ["8.00", "10.00", "10", "n/a", "30.00", "2"],
    }
    for name, texts in shown.items():
        assert [cell["text"] for cell in parsed.row(name)[1:]] == texts
    undefined = parsed.row(HOSTILE)[1]
    assert (undefined["data-value"], undefined["title"]) == ("", "undefined: nothing to score in this image")
    assert parsed.row("tile_2.png")[1]["data-value"] == "0.7"


def test_every_picture_says_what_it_is(parsed):
    parts = ("Image", "Truth", "Errors, tolerance 3 px", "Road graph, gaps: 0", "Entropy")
    alts = [one["alt"] for one in parsed.all("img")]
    assert alts == [
        "Precision over recall: best F1 80.0 % at threshold 0.50.",
        # 5 of 11 pixels at 0.6 of which 4 are road, 6 at 0.2 of which one is: (5 * 0.2 + 6 * (0.2 - 1 / 6)) / 11
        "Share of true road over the predicted probability: expected calibration error 10.91 %.",
        "One dot an image, and the median, of: Region: IoU, Region: Relaxed F1, Topology: APLS.",
        *(f"{words} of {name}" for name in ("tile_1.png", "tile_2.png", "tile_10.png", HOSTILE) for words in parts),
    ]
    jpegs = [one["src"] for one in parsed.all("img") if one["src"].startswith("data:image/jpeg")]
    sizes = {Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).size for source in jpegs}
    assert len(jpegs) == 20 and sizes == {(512, 512)}
    legend = next(one["text"] for one in parsed.elements if one.get("class") == "legend")
    for words in ("hit", "missed", "false", "near", "ignored", "line of the truth", "gap in", "entropy"):
        assert words in legend


def test_a_report_of_lines_has_no_examples_and_no_curves(tmp_path):
    write_report(str(tmp_path), "Lines", images(probability=False), ScoringSettings(tolerance_m=4, buffer_px=2))
    page = Page(tmp_path / "report.html")
    assert [one["text"] for one in page.all("h2")] == ["Summary", "Images"] and len(page.all("img")) == 1
    assert page.all("li")[0]["text"] == "The tolerance is 4 m; the buffer of centrelines is 2 px."


def test_masks_alone_are_shown_on_grey_without_entropy(tmp_path):
    settings = ScoringSettings(tolerance_m=4)
    write_report(str(tmp_path), "Masks", images(probability=False), settings, lambda index: masks(gsd_m=0.5))
    page = Page(tmp_path / "report.html")
    assert [one["text"] for one in page.all("h2")] == ["Summary", "Images", "Examples"]
    words = [one["alt"].split(" of ")[0] for one in page.all("img")][1:5]
    assert words == ["Image", "Truth", "Errors, tolerance 8 px", "Road graph, gaps: 0"]
    legend = next(one["text"] for one in page.elements if one.get("class") == "legend")
    assert "line of the truth" in legend and not any(words in legend for words in ("ignored", "entropy"))


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path):
    odd = ImageScores("a\udcff.png", POOLED, {"relaxed_F1": 0.5, "width": 1.0, "APLS_spacenet": 0.5})
    write_report(str(tmp_path), "t", [odd], ScoringSettings())
    assert Page(tmp_path / "report.html").rows[-1][0]["text"] == "a?.png"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/report.html: cannot be written") as error:
        write_report(str(tmp_path / "file"), "t", images(), ScoringSettings())
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="plots"):
        write_report(str(tmp_path), "t", images(), ScoringSettings())
    assert not list(tmp_path.iterdir())


def drawn_masks():
    """Roads along row 10, and what lies about them; see the test below."""
    truth, prediction, valid = np.zeros((64, 64), bool), np.zeros((64, 64), bool), np.ones((64, 64), bool)
    truth[10, :40], prediction[10, :20] = True, True
    prediction[6:8, 5] = True
    prediction[40, :10] = True
    valid[:, 50:] = False
    truth[10, 50:], truth[30, 50], prediction[30, 49] = True, True, True
    return truth, prediction, valid


# (row, column) -> class, for a tolerance of 3 px
KNOWN_PIXELS = {
    (10, 0): HIT,
    (10, 19): HIT,
    (10, 22): NEAR,  # true; 3 px from the prediction's end at column 19
    (10, 23): MISSED,  # 4 px
    (10, 39): MISSED,
    (7, 5): NEAR,  # predicted; 3 px above the true road
    (6, 5): FALSE,  # 4 px
    (40, 5): FALSE,
    (30, 49): FALSE,  # its only true neighbour is ignored
    (30, 50): IGNORED,
    (10, 55): IGNORED,
    (20, 20): 0,
}


def test_errors_of_known_pixels():
    classes = error_classes(*drawn_masks()[:2], 3.0, drawn_masks()[2])
    assert {at: classes[at] for at in KNOWN_PIXELS} == KNOWN_PIXELS
    counts = {kind: int((classes == kind).sum()) for kind in (HIT, MISSED, FALSE, NEAR, IGNORED)}
    # row 10: 20 hit, 3 near, 17 missed; column 5: 1 near, 1 false; rows 40 and 30: 10 and 1 false; 14 columns ignored
    assert counts == {HIT: 20, MISSED: 17, FALSE: 12, NEAR: 4, IGNORED: 14 * 64}


def test_errors_have_their_colours_on_a_pale_image():
    image = np.full((64, 64, 3), (80, 100, 120), np.uint8)
    picture = error_picture(image, error_classes(*drawn_masks()[:2], 3.0, drawn_masks()[2]), 512)
    assert picture.shape == (512, 512, 3)
    for (row, column), kind in KNOWN_PIXELS.items():
        found = picture[8 * row + 4, 8 * column + 4]  # eight pixels of the picture for one of the image
        if kind == IGNORED:
            assert tuple(found) in {(95, 95, 95), (225, 225, 225)}
        else:
            # the image's mean, 100, pale: 255 - 0.45 * 155
            assert tuple(found) == (ERROR_COLOURS[kind] if kind else (185, 185, 185))


def masks_of(side):
    return arrays(bool, (side, side), elements=st.booleans())


@settings(max_examples=40, deadline=None)
@given(masks_of(7), masks_of(7), masks_of(7), st.sampled_from([0.0, 1.0, math.sqrt(2), 2.5, 20.0]))
def test_errors_agree_with_all_pairs_of_pixels(truth, prediction, valid, tolerance):
    def is_near(at, mask):
        return any(math.dist(at, other) <= tolerance + 1e-6 for other in np.argwhere(mask & valid))

    expected = np.zeros((7, 7), np.uint8)
    for at in np.ndindex(7, 7):
        if not valid[at]:
            expected[at] = IGNORED
        elif truth[at] and prediction[at]:
            expected[at] = HIT
        elif truth[at]:
            expected[at] = NEAR if is_near(at, prediction) else MISSED
        elif prediction[at]:
            expected[at] = NEAR if is_near(at, truth) else FALSE
    assert (error_classes(truth, prediction, tolerance, valid) == expected).all()


def test_a_missed_road_of_one_pixel_survives_shrinking():
    truth = np.zeros((1024, 2048), bool)
    truth[:, 1001] = True
    classes = error_classes(truth, np.zeros_like(truth), 3.0)
    picture = error_picture(np.full((1024, 2048, 3), 255, np.uint8), classes, 512)
    assert picture.shape == (256, 512, 3)
    # a quarter of the pixel is road, its root is a half: half white, half blue
    expected = (255 + np.array(ERROR_COLOURS[MISSED])) / 2
    assert (np.abs(picture[:, 250] - expected) <= 0.5).all()
    assert (np.delete(picture, 250, axis=1) == 255).all()


def test_truth_is_tinted_and_what_is_ignored_is_hatched():
    truth, _, valid = drawn_masks()
    picture = truth_picture(np.full((64, 64, 3), 100, np.uint8), truth, valid, 512)
    assert tuple(picture[84, 4]) == tuple(np.round((100 + np.array(TRUTH_COLOUR)) / 2))
    assert (picture[300, 100] == 100).all()
    assert set(np.unique(picture[:, 400:])) == {95, 225}


def test_lines_and_gaps_lie_where_they_belong():
    image = np.full((100, 200, 3), 255, np.uint8)
    picture = graph_picture(
        image, [np.array([[0.0, 50], [199, 50]])], [np.array([[0.0, 50], [99, 50]])], np.array([[149.5, 24.5]]), 512
    )
    assert picture.shape == (256, 512, 3)
    # row 50 is row 2.56 * 50.5 - 0.5 = 128.8 of the picture: the truth 8 px thick, the prediction above it 3 px
    assert tuple(picture[129, 100]) == PREDICTED_COLOUR and tuple(picture[129, 400]) == TRUTH_COLOUR
    assert tuple(picture[125, 100]) == TRUTH_COLOUR
    assert (picture[120, 100] == 255).all() and (picture[137, 400] == 255).all()
    # the gap's centre is (2.56 * 150 - 0.5, 2.56 * 25 - 0.5) = (383.5, 63.5), its radius 7
    ring = (np.abs(picture.astype(int) - GAP_COLOUR).max(axis=2) < 60).nonzero()
    assert np.mean(ring, axis=1) == pytest.approx((63.5, 383.5), abs=0.3)
    distance = np.hypot(ring[0] - 63.5, ring[1] - 383.5)
    assert distance.min() > 5 and distance.max() < 9


def test_entropy_is_coloured_from_blue_to_yellow():
    from matplotlib import colormaps

    entropy = np.repeat([[0.0, 0.5, 1.0, 1.0]], 2, axis=0)
    picture = entropy_picture(entropy, np.array([[True, True, True, False]] * 2), 512)
    for column, value in ((64, 0.0), (192, 0.5), (320, 1.0)):
        assert picture[64, column] == pytest.approx(255 * np.array(colormaps["cividis"](value)[:3]), abs=3)
    assert set(np.unique(picture[:, 384:])) == {95, 225}


@pytest.fixture()
def drawn(monkeypatch):
    """The figures that charts have drawn."""
    figures, encode = [], report_charts._svg_url

    def keep(figure):
        figures.append(figure)
        return encode(figure)

    monkeypatch.setattr(report_charts, "_svg_url", keep)
    return figures


def svg_of(address):
    assert address.startswith("data:image/svg+xml;base64,")
    return base64.b64decode(address.split(",")[1]).decode()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_precision_recall_chart_shows_the_curve_and_its_best_point(drawn):
    address, words = precision_recall_chart(probabilities())
    assert "<svg" in svg_of(address) and "80.0 % at threshold 0.50" in words
    *_, curve, best = drawn[0].axes[0].get_lines()
    points = curve.get_xydata()
    assert len(points) == 300
    # up to 0.2 all 11 are called road, up to 0.6 the 5 above, then none
    assert points[[0, 60, 61, 180]] == pytest.approx(np.array([[100, 500 / 11]] * 2 + [[80, 80]] * 2))
    assert points[181][0] == 0 and np.isnan(points[181][1])
    assert best.get_xydata() == pytest.approx(np.array([[80, 80]]))
    assert precision_recall_chart(probabilities())[0] == address  # the same bytes again

    none = probability_counts(np.full((1, 4), 0.5), np.zeros((1, 4), bool))
    assert precision_recall_chart(none)[1] == "Precision over recall: no threshold has an F1."


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_calibration_chart_leaves_out_empty_bins(drawn):
    _, words = calibration_chart(probabilities())
    assert "10.91 %" in words
    curve, bars = drawn[0].axes
    assert curve.get_lines()[-1].get_xydata() == pytest.approx(np.array([[20, 100 / 6], [60, 80]]))
    assert [bar.get_height() for bar in bars.patches] == [6, 5]

    none = probability_counts(np.zeros((0, 4)), np.zeros((0, 4), bool))
    assert calibration_chart(none)[1] == "Share of true road over the predicted probability: no pixel to score."


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_strips_have_a_dot_for_each_image_and_the_median(drawn):
    values = {"Region: IoU": np.array([0.2, NAN, 0.9, 0.7]), "cost in $ and $": np.full(4, NAN)}
    address, words = distribution_chart(values)
    assert "<svg" in svg_of(address) and words.endswith("Region: IoU, cost in $ and $.")
    (axes,) = drawn[0].axes
    dots = [one.get_offsets()[:, 0].tolist() for one in axes.collections if len(one.get_offsets()) != 1]
    assert dots == [[20, 90, 70], []]
    assert [one.get_text() for one in axes.texts] == ["70.0", "n/a", "median"]


@pytest.mark.browser
def test_the_page_works_in_a_browser(browser, report_path):
    page = browser.new_page()
    troubles, requests = [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report_path.as_uri())

    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == 23 and min(widths) > 0
    titles = page.eval_on_selector_all(".summary tbody td", "cells => cells.map(cell => cell.title)")
    assert len(titles) == 3 * len(MEASURES) and all(titles)
    page.get_by_text("Gaps").first.click()
    assert page.get_by_text("Interruptions of the network.").first.is_visible()

    def column(number):
        rows = page.locator("table.sortable tbody tr").all()
        return [row.locator("th, td").nth(number).inner_text() for row in rows]

    def sort(number):
        head = page.locator("table.sortable thead tr").last.locator("th").nth(number)
        head.locator("button").click()
        return head.get_attribute("aria-sort"), column(number)

    assert sort(1) == ("ascending", ["8.00", "70.00", "95.00", "n/a"])
    assert sort(1) == ("descending", ["95.00", "70.00", "8.00", "n/a"])
    assert column(0) == ["tile_10.png", "tile_2.png", "tile_1.png", HOSTILE]  # whole rows move
    assert sort(6) == ("ascending", ["0", "2", "9", "10"])  # as numbers, not as words
    assert sort(4) == ("ascending", ["-0.500", "0", "0.250", "n/a"])
    assert page.locator("[aria-sort=none]").count() == 6
    assert sort(0) == ("ascending", [HOSTILE, "tile_1.png", "tile_2.png", "tile_10.png"])

    assert troubles == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
    page.close()
