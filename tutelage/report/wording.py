"""How the renderings write numbers: values of a metric, their differences, times and counts."""

from __future__ import annotations

from tutelage.data.task import Metric
from tutelage.report.measured import Measured
from tutelage.report.rows import Difference, Estimate, Row

# A real minus sign, as wide as a plus, and a dash for what is not there.
MINUS = "\u2212"
ABSENT = "\u2013"


def as_shown(number: float | None, metric: Metric) -> str:
    """Return a value of a metric as shown, without its unit, such as `61.20` for a share."""
    if number is None:
        return ABSENT
    text = f"{metric.scale * number:.{metric.digits}f}"
    # What rounds to zero has no sign.
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", MINUS)


def signed(number: float, metric: Metric) -> str:
    """Return a difference as shown with its sign, such as `+2.10`."""
    text = f"{metric.scale * number:+.{metric.digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", MINUS)


def magnitude(number: float, metric: Metric) -> str:
    """Return the size of a difference as shown, without its sign."""
    return f"{abs(metric.scale * number):.{metric.digits}f}"


def estimate(found: Estimate | None, metric: Metric) -> str:
    """Return a mean as shown with its standard deviation over seeds, if there is one."""
    if found is None:
        return ABSENT
    mean = as_shown(found.mean, metric)
    return mean if found.std is None else f"{mean} \u00b1 {as_shown(found.std, metric)}"


def mean_of(found: Estimate | None, metric: Metric) -> str:
    """Return a mean as shown, without its standard deviation."""
    return as_shown(found.mean if found else None, metric)


def interval(found: Difference, metric: Metric) -> str:
    """Return the interval of a difference as shown, or nothing when one seed gives none."""
    if found.low is None or found.high is None:
        return ""
    return f"{signed(found.low, metric)} to {signed(found.high, metric)}"


def with_unit(text: str, metric: Metric) -> str:
    """Add the unit to the text of a value, such as `61.20 %`."""
    return f"{text} {metric.shown_unit}".rstrip()


def as_value(number: float, metric: Metric) -> str:
    """Return a value of a metric as shown, with its unit, such as `61.20 %`."""
    return with_unit(as_shown(number, metric), metric)


def of_difference(text: str, metric: Metric) -> str:
    """Add the unit to the text of a difference, such as `+2.10 points`."""
    return f"{text} {metric.difference_unit}".rstrip()


def heading(name: str, metric: Metric) -> str:
    """Return the head of a column in plain text, such as `ECE %` or `RMSE (metres)`."""
    # Per cent needs no brackets.
    unit = metric.shown_unit
    return " ".join(filter(None, (name, unit if unit in {"", "%"} else f"({unit})")))


def short(metric: Metric) -> str:
    """Return what a metric is called where there is little room."""
    return metric.short or sentence(metric.title)


def listed(*parts: str) -> str:
    """Return the parts that are not empty, with commas between."""
    return ", ".join(filter(None, parts))


def direction(metric: Metric) -> str:
    """Return a reminder for a metric whose lower values are better, and nothing for the others."""
    return "" if metric.higher_is_better else "lower is better"


def reached(text: str, measured: Measured) -> str:
    """Return a score in a sentence, such as `61.20 % test accuracy` or `a test RMSE of 0.31 metres`."""
    said = with_unit(text, measured.metric)
    return f"{said} {measured.title}" if measured.metric.unit == "share" else f"a {measured.title} of {said}"


def losses(row: Row) -> str:
    """Return the training losses of a row's last epoch, such as `ce 1.2500, kd 0.5000`."""
    return ", ".join(f"{name} {number:.4f}" for name, number in row.losses.items()) or ABSENT


def sentence(text: str) -> str:
    """Return a text that begins with a capital; other letters, and a letter before a hyphen as in k-NN, stay."""
    return text if text[1:2] == "-" else text[:1].upper() + text[1:]


def duration(seconds: float | None) -> str:
    """Return a time span with a unit that suits it."""
    if seconds is None:
        return ABSENT
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cost(relative: float | None) -> str:
    """Return a cost as a multiple of the baseline's."""
    return ABSENT if relative is None else f"{relative:.2f}\u00d7"


def count(amount: float | None) -> str:
    """Return a large count with a unit prefix, such as `11.2 M`."""
    if amount is None:
        return ABSENT
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= limit:
            return f"{amount / limit:.3g} {unit}"
    return f"{amount:.0f}"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many letters, shortened at its end."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def condensed(text: str, most: int) -> str:
    """Return a text of at most so many letters, shortened in its middle: labels of rows often differ at the end."""
    if len(text) <= most:
        return text
    # One letter of them is the ellipsis.
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}\u2026{text[len(text) - end :]}"


def several(amount: int, noun: str, plural: str | None = None) -> str:
    """Return an amount with its noun in the right number, such as `3 seeds`; an irregular plural is given."""
    return f"{amount:,} {noun if amount == 1 else plural or f'{noun}s'}"
