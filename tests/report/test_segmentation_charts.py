"""What the report draws of segmentation: scores of each class, and strips of images."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tutelage.report.charts.class_scores import class_scores_chart
from tutelage.report.charts.segmentation import sections
from tutelage.report.charts.strips import Column, colour_of, strip_chart
from tutelage.report.rows import rows

pytestmark = pytest.mark.usefixtures("drawn")


def png(values):
    buffer = BytesIO()
    Image.fromarray(np.array(values, dtype=np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def jpeg():
    buffer = BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


SAMPLES = [{"position": str(at), "image": jpeg(), "truth": png([[0, 1, 2, 255]] * 3)} for at in (2, 4)]
NAMES = ["sky", "road <wet>", "car"]


def comparison(count):
    """Return a comparison with a teacher and some rows, each of two seeds."""
    maps = {"2": png([[0, 0, 1, 1]] * 3), "4": png([[2] * 4] * 3)}
    run = {"best": {"test_miou": 0.5}, "pictures": {"iou": [0.9, None, 0.1], "maps": maps}, "history": {}}
    other = {**run, "pictures": {"iou": [0.7, 0.2, 0.3], "maps": {}}}
    entries = [{"label": f"row {n}", "method": "m", "runs": [run, other], "summary": {}} for n in range(count)]
    metric = {"title": "mean IoU", "short": "mIoU", "unit": "share"}
    return {
        "version": 1,
        "task": {"name": "x", "title": "x", "primary": "miou", "metrics": {"miou": metric}, "outputs": ["a", "b"]},
        "data": {"class_names": NAMES, "shown": SAMPLES},
        "teacher": {"pictures": {"iou": [1.0, 0.5, 0.25], "maps": maps}},
        "rows": entries,
    }


def test_each_class_has_the_mean_over_the_seeds_that_have_it():
    by_class, answers = sections(comparison(2), rows(comparison(2)))
    alt = by_class.panels[0].chart.alt
    assert "teacher: sky 100.0, road <wet> 50.0, car 25.0" in alt
    assert "row 0: sky 80.0, road <wet> 20.0, car 20.0" in alt
    assert "networks are drawn" not in by_class.lede + answers.lede
    assert "row 0, row 1" in answers.panels[0].chart.alt


def test_more_networks_than_are_drawn_are_told():
    by_class, answers = sections(comparison(9), rows(comparison(9)))
    assert "The first 7 of 10 networks are drawn." in by_class.lede
    assert "The first 5 of 10 networks are drawn." in answers.lede


def test_without_pictures_there_are_no_sections():
    bare = {**comparison(1), "teacher": None}
    bare["rows"][0]["runs"] = [{"best": {}, "history": {}}]
    assert sections(bare, rows(bare)) == []


def test_a_strip_shows_each_sample_in_the_colours_of_its_classes():
    chart = strip_chart(SAMPLES, [Column("net", {"2": png([[0, 1, 2, 255]] * 3)}), Column("none", {})], NAMES)
    svg = str(chart.wide)
    assert svg.count("<image ") == 3, "image, truth and answer of the one sample that has an answer"
    assert "road &lt;wet&gt;" in svg
    coloured = svg.split("data:image/png;base64,")[1].split('"', maxsplit=1)[0]
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(coloured))).convert("RGB"))
    assert ["#{:02x}{:02x}{:02x}".format(*pixel) for pixel in pixels[0]] == [*map(colour_of, range(3)), "#202020"]
    assert strip_chart(SAMPLES, [], NAMES) is None
    assert len({colour_of(number) for number in range(60)}) == 60


def test_scores_that_are_absent_are_not_drawn():
    chart = class_scores_chart("x", "IoU", {"net": [float("nan"), 0.5]}, ["sky", "road"])
    assert chart.alt.endswith("net: road 50.0")
    assert chart.narrow is not None


@pytest.mark.parametrize("number", [0, 19, 20, 254])
def test_colours_are_colours(number):
    assert len(bytes.fromhex(colour_of(number).removeprefix("#"))) == 3
