"""What the report draws of depth: depths, errors, and their scales."""

import base64
import re
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.evaluation.depth_pictures import depth_png
from tutelage.report.charts.depth import sections
from tutelage.report.charts.depth_strips import depth_strip_chart
from tutelage.report.charts.strips import Column
from tutelage.report.rows import rows

TRUTH = torch.tensor([[1.0, 2.0, 3.0, 0.0]] * 3)


def jpeg():
    buffer = BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


SAMPLES = [{"position": "2", "image": jpeg(), "truth": depth_png(TRUTH)}]


def pixels(svg):
    """Return the pictures of an SVG that are PNG, as arrays."""
    found = re.findall(r"data:image/png;base64,([^\"]+)", str(svg))
    return [np.asarray(Image.open(BytesIO(base64.b64decode(one))).convert("RGB")) for one in found]


def colour(name, share):
    return (255 * np.array(mpl.colormaps[name](share)[:3])).round()


def test_depths_and_errors_have_the_colours_of_their_scales():
    chart = depth_strip_chart(SAMPLES, [Column("net", {"2": depth_png(1.15 * TRUTH)}), Column("none", {})])
    truth, answer, error, *scales = pixels(chart.wide)
    assert str(chart.wide).count("<image ") == 6, "image, truth, answer, error, and two scales"
    assert len(scales) == 2
    # A step of the files is one per cent, which is a shade.
    assert truth[0, 1] == pytest.approx(colour("viridis_r", 0.5), abs=4)
    assert answer[0, 1] == pytest.approx(colour("viridis_r", 0.65), abs=4)
    assert error[0, 1] == pytest.approx(colour("inferno", 0.5), abs=10)
    assert (truth[0, 3] == error[0, 3]).all()
    assert (truth[0, 3] == 110).all()
    assert "from 1.0" in chart.alt
    assert "net answered" in chart.alt


def test_what_cannot_be_drawn_is_left_out():
    assert depth_strip_chart(SAMPLES, []) is None
    assert depth_strip_chart([{"position": "2"}], [Column("net", {"2": depth_png(TRUTH)})]) is None
    nothing = [{"position": "2", "truth": depth_png(0 * TRUTH)}]
    assert depth_strip_chart(nothing, [Column("net", {"2": depth_png(TRUTH)})]) is None
    other = depth_strip_chart(SAMPLES, [Column("net", {"2": depth_png(TRUTH[:2])})])
    assert str(other.wide).count("<image ") == 5, "no error of a map of another size"


def test_the_section_has_the_teacher_and_the_first_seed_of_each_row():
    run = {"best": {"test_abs_rel": 0.5}, "pictures": {"maps": {"2": depth_png(TRUTH)}}, "history": {}}
    metric = {"title": "absolute relative error", "higher_is_better": False}
    comparison = {
        "version": 1,
        "task": {
            "name": "x",
            "title": "x",
            "primary": "abs_rel",
            "metrics": {"abs_rel": metric},
            "outputs": ["a", "b"],
        },
        "data": {"shown": SAMPLES},
        "teacher": {"pictures": run["pictures"]},
        "rows": [{"label": f"row {n}", "method": "m", "runs": [run], "summary": {}} for n in range(6)],
    }
    (section,) = sections(comparison, rows(comparison))
    assert "teacher, row 0, row 1" in section.panels[0].chart.alt
    assert "The first 5 of 7 networks are drawn." in section.lede
    comparison["data"] = {}
    assert sections(comparison, rows(comparison)) == []
