"""Token-level distillation of a small language model on real text: perplexity and agreement with the teacher.

    python benchmarks/language.py path/to/texts --column sentence1 --out docs/results/tokens.json

Texts are a folder that `tutelage` reads (`--task language`), with a test split. A tokenizer of 1,024 tokens (byte-level
BPE) is made from the training texts, and networks of GPT-2's kind read it. The teacher is trained first, for longer; a
student has half its layers and half its width. All rows of a seed start from the same weights and see the same batches.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import tutelage
from tutelage.data.sources import load_data
from tutelage.data.texts import RawTexts

VOCABULARY, BLOCK, END = 1024, 64, "<|endoftext|>"
SIZES = {"teacher": {"n_layer": 4, "n_embd": 128, "n_head": 4}, "student": {"n_layer": 2, "n_embd": 64, "n_head": 4}}
ROWS = [
    "supervised",
    "token-kd",
    "token-kd:divergence=reverse",
    "token-kd:divergence=js,alpha=0.8",
    "token-kd:alpha=1",
]
SETTINGS: dict[str, Any] = {
    "task": "language", "optimizer": "adamw", "batch_size": 32, "weight_decay": 0.1, "clip_norm": 1.0,
    "schedule": "cosine", "compile": "off", "threads": 1, "device": "cpu", "precision": "32-true",
}  # fmt: skip


def architecture(folder: Path, sizes: dict[str, int], texts: Iterator[str]) -> str:
    """Write the configuration of a network of GPT-2's kind and a tokenizer of the texts; return the network's name."""
    import transformers

    special = Tokenizer(models.BPE())
    special.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet)
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=special, eos_token=END).save_pretrained(folder)
    # Each text is read many times less often than a dropout of 0.1 is made for.
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    transformers.GPT2Config(vocab_size=VOCABULARY, n_positions=BLOCK, **sizes, **off, **ends).save_pretrained(folder)
    return f"transformers:{folder},pretrained=false"


def main() -> None:
    """Train the teacher and the students, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("--column", default="text")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/language"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    spec = f"{given.texts},text={given.column},blocks={BLOCK}"
    raw = load_data(spec, task="language")
    assert isinstance(raw.train, RawTexts)
    texts = raw.train.columns[0]
    names = {who: architecture(given.runs / "networks" / who, sizes, iter(texts)) for who, sizes in SIZES.items()}
    taught = given.runs / "teacher"
    longer = {**SETTINGS, "epochs": given.teacher_epochs, "lr": 2e-3, "warmup_epochs": 1}
    tutelage.distill("supervised", student=names["teacher"], data=spec, out=taught, **longer)
    found = tutelage.compare(
        ROWS, student=names["student"], teacher=str(taught), data=spec, seeds=given.seeds, out=given.runs / "compare",
        epochs=given.epochs, lr=2e-3, warmup_epochs=1, **SETTINGS,
    )  # fmt: skip
    scores = tutelage.evaluate(str(taught), data=spec, split="test", task="language")
    found["teacher"]["test"] = dict(scores.scores)
    given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
