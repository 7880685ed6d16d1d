"""Texts from a folder to the report: distilled, measured, compared, saved, and opened by transformers alone."""

import json

import pytest
import torch

import tutelage
from tutelage.cli.main import main
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.report.html import render_html

QUICK = {"epochs": 2, "batch_size": 8, "lr": 0.01, "optimizer": "adamw", "device": "cpu", "threads": 1}
QUICK |= {"compile": "off", "progress": False, "precision": "32-true", "task": "language"}


@pytest.fixture
def films(tmp_path):
    """A folder of sentences of one pattern, so that the next word can be learned."""
    folder = tmp_path / "films"
    folder.mkdir()
    for split, count in (("train", 40), ("validation", 6), ("test", 6)):
        rows = [{"text": "the film " * (1 + row % 3) + ("a good ." if row % 2 else "a bad .")} for row in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def opened(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_from_texts_to_a_student_that_opens_anywhere(films, gpt, tmp_path):
    teacher, student = f"transformers:{gpt()}", f"transformers:{gpt(layers=1, rows=16)},pretrained=false"
    tutelage.distill("supervised", student=teacher, data=films, out=tmp_path / "teacher", **QUICK)
    settings = {"student": student, "teacher": str(tmp_path / "teacher"), "data": f"{films},blocks=8"}
    trained = tutelage.distill("token-kd", divergence="js", out=tmp_path / "run", **settings, **QUICK)
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    with torch.no_grad():
        ours, theirs = trained.eval()(**inputs).logits, opened(tmp_path / "run")(**inputs).logits
    torch.testing.assert_close(ours, theirs)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["use_cache"]
    # Measured as it is saved, in words rather than in names of tokens.
    scores = tutelage.evaluate(str(tmp_path / "run"), data=f"{films},blocks=8", split="test", task="language").scores
    # Of seven words in use: guessing among all sixteen rows would be 16.
    assert scores["perplexity"] < 14
    again = tutelage.evaluate(trained, data=f"{films},blocks=8", split="test", task="language").scores
    assert again["perplexity"] == pytest.approx(scores["perplexity"], rel=1e-5)


def test_rows_are_compared_by_perplexity(films, gpt, tmp_path):
    folder = gpt()
    content = tutelage.compare(
        ["supervised", "token-kd:divergence=reverse"],
        student=f"transformers:{folder},layers=1,hidden=4,heads=1",
        teacher=f"transformers:{folder}",
        data=films,
        seeds=1,
        out=tmp_path / "compare",
        **QUICK,
    )
    assert content["task"]["primary"] == "perplexity"
    for row in content["rows"]:
        assert not row.get("error")
        assert 1 < row["runs"][0]["best"]["test_perplexity"] < 20
    assert content["data"]["num_classes"] == 11
    plain, taught = (row["runs"][0]["best"] for row in content["rows"])
    assert "test_agreement" not in plain
    assert 0 < taught["test_agreement"] <= 1
    assert "perplexity" in render_html(content).lower()


def test_the_commands_know_the_task(films, gpt, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = gpt()
    common = ["--task", "language", "--data", films, "--epochs", "1", "--threads", "1", "--device", "cpu"]
    networks = ["--student", f"transformers:{folder},layers=1", "--teacher", f"transformers:{folder}"]
    assert main(["distill", "token-kd", *networks, *common, "--out", "run"]) == 0
    assert main(["doctor", "token-kd", *networks, *common]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert main(["distill", "dkd", *networks, *common]) != 0
    assert "dkd cannot train on films (language modelling)" in " ".join(capsys.readouterr().err.split())


def test_a_recording_of_tokens_is_refused(films, gpt, tmp_path):
    from tutelage.recording.writing import record

    with pytest.raises(UserError, match=r"batch, class|each whole sample|texts"):
        record(f"transformers:{gpt()}", data=load_data(films, task="language"), out=tmp_path / "recording", views=1)
