"""The rows that the report reads of a comparison."""

import pytest

from tutelage.report.rows import rows


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("resnet20", "resnet20"),
        (None, None),
        (
            "tutelage.exits:shallow,student='resnet20,width=2',layer=layer1,unused=(('map', 0),)",
            "resnet20,width=2 up to layer1",
        ),
        ("tutelage.methods.simkd:deployed,student=resnet8", "resnet8"),
        ("tutelage.exits:shallow,student='resnet", "tutelage.exits:shallow,student='resnet"),
    ],
)
def test_a_network_cut_from_another_is_called_after_it(spec, shown):
    summary = {"members": [{"name": "exit-1", "spec": spec}]}
    (row,) = rows({"rows": [{"label": "byot", "network": spec, "summary": summary}]})
    assert row.network == row.members[0].network == shown
