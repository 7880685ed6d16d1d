"""An ONNX file says what its network says, in a process without Tutelage."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from tutelage.api import export
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'tutelage[onnx]'")


def test_the_file_runs_without_tutelage_in_any_batch_with_its_statistics_and_names(pairs, tmp_path):
    images = pairs.tensors[0]
    saved = load_network("tiny_cnn,normalize=0.5/0.4/0.3:0.2/0.3/0.4", num_classes=3)
    save_network(tmp_path / "run", saved, spec=saved.spec, num_classes=3, in_channels=3)
    assert export(str(tmp_path / "run"), to="onnx", data=pairs, progress=False)["onnx"].agreement == 1.0
    np.save(tmp_path / "images.npy", images[:7].numpy())
    alone = """
import sys; sys.modules["tutelage"] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("run/export/model.onnx", providers=["CPUExecutionProvider"])
images = np.load("images.npy")
np.save("answers.npy", session.run(None, {"images": images})[0])
assert session.run(None, {"images": images[:1]})[0].shape == (1, 3)
facts = session.get_modelmeta().custom_metadata_map
assert facts["class_names"].split() == ["0", "1", "2"] and "[0, 1]" in facts["inputs"], facts
"""
    done = subprocess.run([sys.executable, "-c", alone], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = load_network(str(tmp_path / "run"), num_classes=3).eval()(images[:7])
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "answers.npy")), ours, rtol=1e-4, atol=1e-5)


def test_texts_have_any_length_and_their_tokenizer_lies_beside(bert, reviews, tmp_path):
    import onnxruntime
    import transformers

    place = bert(labels=2)
    network = load_network(f"transformers:{place}", num_classes=2, in_channels=0)
    said = {"data": str(reviews()), "out": tmp_path / "out", "progress": False}
    found = export(f"transformers:{place}", to="onnx", **said)["onnx"]
    assert found.agreement == 1.0
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    for texts in (["the film"], ["a good film .", "bad"]):
        tokens = tokenizer(texts, padding=True, return_tensors="np")
        [logits] = session.run(None, {each.name: tokens[each.name] for each in session.get_inputs()})
        ours = network(**{name: torch.from_numpy(value) for name, value in tokens.items()}).logits
        torch.testing.assert_close(torch.from_numpy(logits), ours.detach(), rtol=1e-4, atol=1e-6)
