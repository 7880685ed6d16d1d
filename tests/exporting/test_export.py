"""Several formats in one call: each is noted, and a later call adds to them."""

import json

from tutelage.api import export


def test_findings_are_kept_beside_the_files(data, network, tmp_path):
    (tmp_path / "export.json").write_text('{"mine": 1}')
    for _ in range(2):
        # The second time it takes the place of the first.
        [found] = export(network, to=["pt2", "pt2"], data=data, out=tmp_path, progress=False).values()
    stored = json.loads((tmp_path / "export.json").read_text())
    assert stored["mine"] == 1
    assert stored["pt2"]["scores"] == found.scores
    assert stored["pt2"]["size"] == (tmp_path / "model.pt2").stat().st_size
