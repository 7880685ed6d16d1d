"""Token-level distillation of a small language model on real text: perplexity, agreement with the teacher, memory.

    python benchmarks/language.py path/to/glue/rte --column sentence1 --out docs/results/tokens.json

The texts are one column of a folder of Parquet with a train and a test split, each text once, and those of the test
split that training has left out. A tokenizer of 1,024 tokens (byte-level BPE) is made from the training texts, and
networks of GPT-2's kind read it. The teacher is trained first, for longer; a student has half its layers and half its
width. All rows of a seed start from the same weights and see the same batches.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

import tutelage
from tutelage.methods.token_kd import token_kd_loss

VOCABULARY, BLOCK, END = 1024, 64, "<|endoftext|>"
SIZES = {"teacher": {"n_layer": 4, "n_embd": 96, "n_head": 4}, "student": {"n_layer": 2, "n_embd": 48, "n_head": 4}}
# Near the teacher, a Jensen-Shannon divergence is a quarter of the others: so it weighs four times the cross-entropy.
ROWS = ["supervised", "token-kd", "token-kd:divergence=reverse", "token-kd:divergence=js,alpha=0.8"]
SETTINGS: dict[str, Any] = {
    "task": "language", "optimizer": "adamw", "lr": 2e-3, "warmup_epochs": 0, "batch_size": 32, "weight_decay": 0.1,
    "clip_norm": 1.0, "schedule": "cosine", "compile": "off", "threads": 1, "device": "cpu", "precision": "32-true",
}  # fmt: skip
# Texts, tokens and the vocabulary of GPT-2.
LARGE = (4, 128, 50257)


def write_texts(source: str, column: str, folder: Path, *, test: int, most: int) -> list[str]:
    """Write each text once as a line of `train.txt` or `test.txt`; return those of training."""
    import datasets

    rows = datasets.load_dataset(source)
    train, others = (list(dict.fromkeys(" ".join(t.split()) for t in rows[s][column])) for s in ("train", "test"))
    train = train[:most]
    known = set(train)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_text("\n".join(train) + "\n")
    (folder / "test.txt").write_text("\n".join([text for text in others if text not in known][:test]) + "\n")
    return train


def write_network(folder: Path, sizes: dict[str, int], texts: Sequence[str]) -> str:
    """Write the configuration of a network of GPT-2's kind and a tokenizer of the texts; return the network's name."""
    import transformers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learned: dict[str, Any] = {"vocab_size": VOCABULARY, "special_tokens": [END], "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(initial_alphabet=alphabet, **learned))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)
    # A text is read too few times for dropout to gain anything.
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    transformers.GPT2Config(vocab_size=VOCABULARY, n_positions=BLOCK, **sizes, **off, **ends).save_pretrained(folder)
    return f"transformers:{folder},pretrained=false"


def memory() -> dict[str, float]:
    """Return the most bytes at once, in copies of the student's answer, that each loss with its gradient takes."""
    peak_bytes = runpy.run_path(str(Path(__file__).with_name("losses.py")))["peak_bytes"]
    student, teacher = torch.randn(2, *LARGE)
    student.requires_grad_(True)
    counted = torch.ones(LARGE[:2], dtype=torch.bool)

    def ours(divergence: Any) -> Tensor:
        return token_kd_loss(student.movedim(2, 1), teacher.movedim(2, 1), counted, divergence=divergence)

    def textbook(_: Any) -> Tensor:
        found: Tensor = (teacher.softmax(2) * (teacher.log_softmax(2) - student.log_softmax(2))).sum()
        return found

    def peak(loss: Callable[[Any], Tensor], name: str) -> float:
        most: int = peak_bytes(lambda: torch.autograd.grad(loss(name), student))
        return most / (4 * student.numel())

    return {"textbook": peak(textbook, ""), **{name: peak(ours, name) for name in ("forward", "reverse", "js")}}


def main() -> None:
    """Train the teacher and the students, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("--column", default="text")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=200, help="texts to test on")
    parser.add_argument("--most", type=int, default=700, help="texts to train on")
    parser.add_argument("--runs", type=Path, default=Path("runs/language"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    texts = write_texts(given.texts, given.column, given.runs / "texts", test=given.test, most=given.most)
    names = {who: write_network(given.runs / who, sizes, texts) for who, sizes in SIZES.items()}
    spec, taught = f"{given.runs / 'texts'},blocks={BLOCK}", given.runs / "taught"
    common = {**SETTINGS, "data": spec, "progress": False}
    tutelage.distill("supervised", student=names["teacher"], epochs=given.teacher_epochs, out=taught, **common)
    found = tutelage.compare(
        ROWS, student=names["student"], teacher=str(taught), seeds=given.seeds, epochs=given.epochs,
        out=given.runs / "compare", **common,
    )  # fmt: skip
    found["memory"] = memory()
    given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
