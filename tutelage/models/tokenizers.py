"""The tokenizers of networks, and data of texts as their tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.data.corpora import RawCorpus
from tutelage.data.dataset import Data
from tutelage.data.texts import ATTENTION_MASK, RawTexts, Tokens
from tutelage.data.token_cache import LEAST, keep_tokens, recall_tokens, token_key
from tutelage.errors import UserError, notice
from tutelage.models.corpora import encode_corpus, vocabulary_size
from tutelage.models.language import PREFIX, check_installed, open_config, quiet
from tutelage.models.normalization import bare
from tutelage.models.spec import NetworkSpec

_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
# Texts by which two tokenizers are compared.
_COMPARED = 256
_CHUNK = 10_000


def encoded_for(data: Data, students: Sequence[object], teachers: Sequence[object] = ()) -> Data:
    """Return data of texts as the tokens of the students' tokenizer; other data as they are.

    Args:
        data: The data.
        students: The networks that read the tokens, as the user gave them.
        teachers: Networks that teach. With a tokenizer of their own, they get their own encoding of the same texts.

    Raises:
        UserError: If no network has a tokenizer, a text gives no tokens, or two students, or two teachers, have
            different tokenizers.
    """
    texts = {name: samples for name, samples in data.splits.items() if isinstance(samples, RawTexts)}
    if not texts:
        return data
    for source in (*students, *teachers):
        _check_reads_text(source)
    learning, teaching = (_with_places(sources) for sources in (students, teachers))
    # Refuses by the message of the samples themselves.
    if not (learning or teaching):
        data.example(1)
    sample = [column[:_COMPARED] for column in next(iter(texts.values())).columns]
    is_corpus = any(isinstance(samples, RawCorpus) for samples in texts.values())
    first, taught = _shared(learning or teaching, sample), None
    is_alike = all(first.reads_like(_Tokenizer(place, longest=None), sample) for _, place in teaching)
    # Losses of tokens compare the same ones, and a teacher whose tokens are not known reads those of the student.
    if is_alike or not learning or is_corpus or len(teaching) < len(teachers):
        tokenizer = _shared([*learning, *teaching], sample)
    else:
        tokenizer, taught = first, _shared(teaching, sample)
    splits = {
        name: samples.encoded(
            tokenizer.for_split(name, data.name, samples),
            taught=None if taught is None else taught.for_split(name, data.name, samples),
        )
        for name, samples in texts.items()
    }
    if is_corpus:
        data = replace(data, num_classes=tokenizer.size)
    facts = " ".join([data.fingerprint, tokenizer.digest, *([] if taught is None else [taught.digest])])
    return replace(data, splits={**data.splits, **splits}, fingerprint=hashlib.sha256(facts.encode()).hexdigest())


def _with_places(sources: Sequence[object]) -> list[tuple[object, str]]:
    """Return the networks that have a tokenizer, each with its place."""
    return [(source, found) for source in sources if (found := _tokenizer_place(source)) is not None]


def _shared(networks: Sequence[tuple[object, str]], sample: Sequence[Sequence[str]]) -> _Tokenizer:
    """Return the tokenizer of networks that must read the same tokens.

    Args:
        networks: The networks, and the places of their tokenizers.
        sample: Some texts.

    Raises:
        UserError: If two of them have different tokenizers.
    """
    (first, place), *others = networks
    positions = [most for _, there in networks if (most := _longest(there)) is not None]
    # Of the one that takes the fewest, because all read the same tokens.
    tokenizer = _Tokenizer(place, longest=min(positions, default=None))
    for other, there in others:
        if not tokenizer.reads_like(_Tokenizer(there, longest=None), sample):
            raise UserError(
                f"{_name(other)} splits these texts into other tokens than {_name(first)}, and these networks have to "
                "read the same ones: choose networks of one tokenizer."
            )
    return tokenizer


def tokenizer_of(network: nn.Module) -> Any:
    """Return the tokenizer of a bare network of `transformers`; None if it is not known.

    Args:
        network: The network. It knows the folder or the name that it came from.
    """
    place = getattr(getattr(network, "config", None), "_name_or_path", "")
    return _open(place) if place and _holds_tokenizer(place) else None


class _Tokenizer:
    """The tokenizer of a network.

    Args:
        place: A folder, or a name on the hub.
        longest: The most tokens that the network takes; None for as many as the tokenizer says.
    """

    def __init__(self, place: str, *, longest: int | None) -> None:
        self._tokenizer = _open(place)
        own = int(self._tokenizer.model_max_length)
        self._longest = own if longest is None else min(own, longest)

    @property
    def size(self) -> int:
        """The size of its vocabulary."""
        return vocabulary_size(self._tokenizer)

    @property
    def digest(self) -> str:
        """A digest of what decides the tokens of a text."""
        facts = [type(self._tokenizer).__name__, self._longest, sorted(self._tokenizer.get_vocab().items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def reads_like(self, other: _Tokenizer, sample: Sequence[Sequence[str]]) -> bool:
        """Return whether another tokenizer has the same vocabulary, and splits some texts into the same tokens."""
        if self._tokenizer.get_vocab() != other._tokenizer.get_vocab():
            return False
        return bool(self._tokenizer(*sample)["input_ids"] == other._tokenizer(*sample)["input_ids"])

    def for_split(self, split: str, name: str, samples: RawTexts) -> Any:
        """Return the function that encodes the texts of a split, whose messages name it."""
        where = f"the split {split!r} of {name}"

        def encode(columns: Sequence[Sequence[str]], limit: int | None) -> Tokens:
            if isinstance(samples, RawCorpus):
                return self._encode_corpus(samples, limit, where=where)
            return self._encode(columns, limit, where=where)

        return encode

    def _encode_corpus(self, samples: RawCorpus, limit: int | None, *, where: str) -> Tokens:
        longest = self._longest if limit is None else min(self._longest, limit)
        if samples.block is not None and samples.block > self._longest:
            raise UserError(
                f"The network reads {self._longest} tokens at most, and blocks={samples.block} are longer: write "
                f"blocks={self._longest} or less."
            )
        return encode_corpus(
            self._tokenizer, samples.columns, longest=None if samples.block is not None else longest, where=where
        )

    def _encode(self, columns: Sequence[Sequence[str]], limit: int | None, *, where: str) -> Tokens:
        longest = self._longest if limit is None else min(self._longest, limit)
        is_kept = len(columns[0]) >= LEAST
        key = token_key(columns, tokenizer=f"{self._settings} {longest}") if is_kept else ""
        tokens = recall_tokens(key) if is_kept else None
        if tokens is None:
            tokens = self._split(columns, longest)
            if is_kept:
                keep_tokens(key, tokens)
        if empty := (tokens.lengths == 0).nonzero().flatten().tolist():
            raise UserError(
                f"Row {empty[0]} of {where} is empty, and the tokenizer makes no tokens of it: remove such rows."
            )
        self._tell_long(int((tokens.lengths == longest).sum()), longest, where)
        return tokens

    @cached_property
    def _settings(self) -> str:
        """Everything that decides the tokens of a text."""
        import transformers

        fast = getattr(self._tokenizer, "backend_tokenizer", None)
        return f"{self.digest} {transformers.__version__} {'' if fast is None else fast.to_str()}"

    def _split(self, columns: Sequence[Sequence[str]], longest: int) -> Tokens:
        rows: dict[str, list[torch.Tensor]] = {}
        counts: list[int] = []
        for start in range(0, len(columns[0]), _CHUNK):
            chunk = [list(column[start : start + _CHUNK]) for column in columns]
            found = self._tokenizer(*chunk, truncation=True, max_length=longest, return_attention_mask=False)
            counts += map(len, found["input_ids"])
            for key, values in found.items():
                # Flat at once: lists of Python numbers would take ten times the memory.
                rows.setdefault(key, []).append(torch.tensor([one for row in values for one in row]).int())
        padding = {"input_ids": self._tokenizer.pad_token_id, "token_type_ids": self._tokenizer.pad_token_type_id}
        return Tokens(
            {name: torch.cat(parts) for name, parts in rows.items() if name != ATTENTION_MASK},
            {name: padding.get(name) or 0 for name in rows},
            torch.tensor(counts),
        )

    @staticmethod
    def _tell_long(long: int, longest: int, where: str) -> None:
        if long:
            notice(f"{long} texts of {where} have {longest} tokens or more: what comes after {longest} is not read.")


def _tokenizer_place(source: object) -> str | None:
    """Return the folder or the name on the hub of a network's tokenizer; None if it has none."""
    if isinstance(source, nn.Module):
        place = str(getattr(getattr(bare(source), "config", None), "_name_or_path", "") or "")
        return place if _holds_tokenizer(place) else None
    if not isinstance(source, str | NetworkSpec):
        return None
    try:
        spec = NetworkSpec.parse(source) if isinstance(source, str) else source
        kind = spec.kind
    except UserError:
        # Recordings, say; whoever builds the network says what is wrong with a name.
        return None
    if kind == "transformers":
        return spec.name
    if kind == "run" and _holds_tokenizer(spec.target):
        return str(Path(spec.target).expanduser())
    return None if spec.within is None else _tokenizer_place(spec.within)


def _check_reads_text(source: object) -> None:
    """Refuse the name of a network of images."""
    if not isinstance(source, str):
        return
    try:
        is_image = NetworkSpec.parse(source).kind in ("catalogue", "timm", "torchvision")
    except UserError:
        # As above: not a network.
        return
    if is_image:
        raise UserError(
            f"{source} reads images, and these data are texts: name a network of texts, transformers:NAME or "
            "transformers:FOLDER."
        )


def _holds_tokenizer(place: str) -> bool:
    folder = Path(place).expanduser()
    # A name that is no folder here is one on the hub.
    return bool(place) and (not folder.is_dir() or any((folder / file).is_file() for file in _FILES))


def _longest(place: str) -> int | None:
    """Return the most tokens that a network has positions for; None if its configuration does not say."""
    found = getattr(open_config(place), "max_position_embeddings", None)
    return None if found is None else int(found)


def _open(place: str) -> Any:
    check_installed(f"The tokenizer of {PREFIX}{place}")
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(_folder(place))
    except (OSError, ValueError) as error:
        line = str(error).strip().split("\n")[0]
        raise UserError(
            f"The tokenizer of {place} cannot be opened ({line}): the folder needs tokenizer.json or vocab.txt beside "
            "config.json."
        ) from error


def _folder(place: str) -> str:
    folder = Path(place).expanduser()
    return str(folder) if folder.is_dir() else place


def _name(source: object) -> str:
    return str(source) if isinstance(source, str | NetworkSpec) else type(source).__name__
