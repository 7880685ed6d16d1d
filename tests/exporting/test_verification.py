"""A file that answers otherwise than its network is not kept."""

import pytest
from torch import nn

from tutelage.api import export
from tutelage.errors import UserError
from tutelage.exporting.pt2 import Pt2


def test_a_file_that_says_something_else_is_not_kept(data, network, tmp_path, monkeypatch):

    class Twisted(nn.Module):
        def forward(self, images):
            return network(images).flip(1)

    (tmp_path / "model.pt2").write_text("an earlier one")
    monkeypatch.setattr(Pt2, "load", lambda self, place: Twisted())
    with pytest.raises(UserError, match="The exported pt2 answers otherwise"):
        export(network, to="pt2", data=data, out=tmp_path, progress=False)
    # What was there before stays.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt2"]
