import io

import pytest
from rich.console import Console

from tutelage.report.console import render_table
from tutelage.report.console import verdict as from_console
from tutelage.report.markdown import render_markdown
from tutelage.report.verdict import verdict


def printed(comparison, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render_table(comparison, width=width))
    return console.file.getvalue()


def test_console_table_fits_and_is_complete(full):
    text = printed(full)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    joined = "".join(line.split("  ")[0].strip() for line in lines)
    for row in full["rows"]:
        assert row["label"] in joined
        if "error" not in row:
            accuracy = row["summary"]["best"]["test_accuracy"]
            assert f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['std']:.2f}" in text
    assert "failed" in text
    assert "n = 3" in text


@pytest.mark.parametrize("width", [60, 70, 80, 90])
def test_a_narrow_terminal_cuts_no_number_off(full, synthetic, width):
    for comparison in (full, synthetic.families()):
        text = printed(comparison, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        for row in comparison["rows"]:
            if "error" not in row:
                best, gap = row["summary"]["best"], (row["summary"].get("paired") or {}).get("best")
                assert f"{100 * best['test_accuracy']['mean']:.2f} ± {100 * best['test_accuracy']['std']:.2f}" in text
                assert gap is None or f"{100 * abs(gap['mean']):.2f}" in text
        # Either a column is there, or the text below says that it is not.
        assert all(title in " ".join(text.split()) for title in ("ECE %", "Time", "Cost"))


def test_what_does_not_fit_is_named_and_what_fits_is_not(full):
    narrow, wide = printed(full, 60), printed(full, 100)
    assert "Left out because the terminal is narrow: " in " ".join(narrow.split())
    assert "Cost." in narrow
    assert "Left out" not in wide


def test_console_takes_labels_literally(full):
    full["rows"][1]["label"] = "kd[bold]x[/]"
    assert "kd[bold]x[/]" in printed(full, 140)


def test_console_says_when_there_is_one_seed(synthetic):
    text = printed(synthetic.comparison(seeds=1))
    assert "One seed" in text
    assert " ± 0" not in text


def test_console_shares_the_verdict(full):
    assert from_console is verdict


def test_markdown_is_one_rectangular_table(full):
    text = render_markdown(full)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(full["rows"])
    assert len({line.count("|") for line in table}) == 1
    assert "`kd:temperature=4.0`" in text
    assert text.startswith("**Knowledge distillation (temperature 4.0) beat")


@pytest.mark.parametrize("label", ["a|b", "<b>x</b>", "a`b|c", "two\nlines"])
def test_markdown_survives_hostile_labels(full, label):
    full["rows"][1]["label"] = label
    full["rows"][-1]["error"] = label
    table = [line.replace("\\|", "") for line in render_markdown(full).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(full["rows"])
    assert len({line.count("|") for line in table}) == 1
