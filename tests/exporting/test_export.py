"""Several formats in one call: each is noted, and a later call adds to them."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.api import export
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.exporting.export import _calibration
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network


def test_findings_are_kept_beside_the_files(data, network, tmp_path):
    (tmp_path / "export.json").write_text('{"mine": 1}')
    for _ in range(2):
        # The second time it takes the place of the first.
        [found] = export(network, to=["pt2", "pt2"], data=data, out=tmp_path, progress=False).values()
    stored = json.loads((tmp_path / "export.json").read_text())
    assert stored["mine"] == 1
    assert stored["pt2"]["scores"] == found.scores
    assert stored["pt2"]["size"] == (tmp_path / "model.pt2").stat().st_size


def test_the_users_own_network_stays_as_it_is(network, data, tmp_path):
    mine = copy.deepcopy(network).double().train()
    wrapped = Doubled(mine)
    export(wrapped, to="pt2", data=data, out=tmp_path, progress=False)
    assert mine.training
    assert {value.dtype for value in mine.parameters()} == {torch.float64}


def test_what_a_file_does_not_answer_is_not_compared_with_it(network, pairs, tmp_path):
    with pytest.raises(UserError, match="measures the embedding, and a file answers"):
        export(network, to="pt2", data=as_data(pairs, test=pairs, task="unlabelled"), out=tmp_path, progress=False)


def test_uncertainty_of_a_dirichlet_is_that_of_the_network(tmp_path, pairs):
    saved = load_network("tiny_cnn", num_classes=3)
    save_network(tmp_path, saved, spec=saved.spec, num_classes=3, in_channels=3, density="dirichlet")
    found = export(str(tmp_path), to="pt2", data=pairs, progress=False)["pt2"]
    evaluated = tutelage.evaluate(str(tmp_path), data=pairs).scores
    assert found.scores == pytest.approx(evaluated, rel=1e-4)
    assert found.network_scores == pytest.approx(evaluated, rel=1e-6)


def test_ranges_are_taken_from_all_over_the_training_samples(data):
    # Of few, all are taken.
    assert len(torch.cat(_calibration(data, "train"))) == data.count("train")
    images = torch.arange(1000.0)[:, None, None, None].expand(-1, 3, 4, 4)
    ordered = as_data(TensorDataset(images, torch.arange(1000) % 2))
    values = torch.cat(_calibration(ordered, "train"))[:, 0, 0, 0]
    assert len(values) == 256
    assert values.max() - values.min() > 900


class Doubled(nn.Module):
    """Answers in float64 whatever the type of the inputs is."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.to(self.network.classifier.weight.dtype))
