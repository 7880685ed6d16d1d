"""What has no one graph is refused."""

import pytest
from torch import nn

from tutelage.api import export
from tutelage.errors import UserError


class Branching(nn.Module):
    """Looks at its data before it decides what to compute."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images if images.mean() > 0.4 else -images)


def test_what_cannot_be_captured_leaves_no_file(data, network, tmp_path):
    with pytest.raises(UserError, match="cannot be captured as a graph: .*data-dependent"):
        export(Branching(network), to="pt2", data=data, out=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []
