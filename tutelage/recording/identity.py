"""Identities stored in a recording: which network answered, and about which samples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tutelage.core.teachers.teacher import Teacher
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.data.samples import Samples
from tutelage.data.texts import RawTexts
from tutelage.errors import UserError
from tutelage.models.blueprint import Source, blueprint, part_of
from tutelage.models.normalization import Normalized, bare
from tutelage.models.spec import NetworkSpec
from tutelage.system.chance import seeded
from tutelage.system.digests import of_tensors

# How many images stand for those that are read from elsewhere, and how many are taken from memory at once.
_PROBES, _AT_ONCE = 64, 4096


@dataclass(frozen=True, kw_only=True)
class TeacherIdentity:
    """Which network answered.

    Attributes:
        name: The network's name.
        source: Where it came from: the user's text, with its paths made absolute.
        weights: Digest of its parameters and buffers; empty if it has none.
        normalization: Its own input normalisations as text, means before stds; empty if it has none.
    """

    name: str
    source: str
    weights: str
    normalization: str

    @classmethod
    def of(cls, network: nn.Module, *, name: str, source: str) -> Self:
        """Return the identity of a network.

        Args:
            network: The network, bare or wrapped.
            name: The network's name.
            source: Where it came from.
        """
        inner = bare(network)
        # Input statistics are compared by themselves, so that a message can name them rather than "other weights".
        statistics = {f"{path}.{buffer}" for path in _normalized(inner) for buffer in ("mean", "std")}
        state = inner.state_dict() | dict(inner.named_buffers())
        weights = {key: value for key, value in state.items() if key not in statistics}
        normalization = "; ".join(str(module.normalization) for module in _normalized(network).values())
        digest = of_tensors(weights) if weights else ""
        return cls(name=name, source=source, weights=digest, normalization=normalization)

    @classmethod
    def of_teacher(cls, teacher: Teacher) -> Self:
        """Return the identity of a teacher object. Only its weights and its given names distinguish it from others."""
        # A black box shows no weights, so the name that its user gave is all there is.
        name = " ".join([type(teacher).__name__, *teacher.names_given()])
        return cls.of(teacher, name=name, source=name)

    def mapped(self, weights: str) -> Self:
        """Return the identity of the same networks after their classes were mapped to the data's.

        The source is changed too: the networks as stored at the source do not give these answers.

        Args:
            weights: Digest of the weights and the class map together.
        """
        text = "with mapped classes"
        return replace(self, name=f"{self.name} {text}", source=f"{self.source} {text}", weights=weights)

    def differences(self, now: Self) -> list[str]:
        """Return, in plain words, how the teacher `now` differs from this one."""
        found = []
        if self.weights != now.weights:
            found.append(
                contrast(
                    "other weights of the teacher",
                    *(f"{it.weights or 'none'} ({it.name}, {it.source})" for it in (self, now)),
                )
            )
        elif not now.weights and self.name != now.name:
            # Teachers without weights differ in their names alone. With equal weights, the name does not matter.
            found.append(contrast("another teacher", self.name, now.name))
        if self.normalization != now.normalization:
            there, here = (it.normalization or "none" for it in (self, now))
            found.append(contrast("another normalisation of the teacher's inputs", there, here))
        return found


def trained_networks(
    sources: Sequence[Source | NetworkSpec], data: Data, *, own_classes: bool = False, trust_code: bool = False
) -> tuple[list[nn.Module], TeacherIdentity]:
    """Return the networks of a teacher, and its identity. Several networks are an ensemble.

    Args:
        sources: The networks, as the user named them.
        data: The data that the teacher is asked about.
        own_classes: Whether the networks keep the classes that they come with.
        trust_code: Whether saved networks may run the code that they name.

    Raises:
        UserError: If a name cannot be read, or a network is untrained.
    """
    plans = [
        blueprint(source, data, trained=True, teaches=True, own_classes=own_classes, trust_code=trust_code)
        for source in sources
    ]
    for plan in plans:
        if not plan.trained:
            raise UserError(
                f"{plan.name} has no trained weights for these classes, so its answers are not worth recording. Train "
                f"it first (tutelage distill supervised --student {plan.name} --out runs/teacher) and name that run, "
                "or add @FILE with its weights."
            )
    networks = [plan.build(0, part_of("teacher", position)) for position, plan in enumerate(plans)]
    names = [plan.name for plan in plans]
    texts = [
        _lasting(source) if isinstance(source, str | NetworkSpec) else name
        for source, name in zip(sources, names, strict=True)
    ]
    # One module holds the members of an ensemble, so that one digest covers them all.
    whole = networks[0] if len(networks) == 1 else nn.ModuleList(networks)
    return networks, TeacherIdentity.of(whole, name=" + ".join(names), source=" + ".join(texts))


def _lasting(source: str | NetworkSpec) -> str:
    """Return a network's name with absolute paths: a replay in another folder checks whether the network changed."""
    return str((NetworkSpec.parse(source) if isinstance(source, str) else source).absolute())


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Which samples were asked about. Only the training split counts.

    Attributes:
        name: The data's name, used only in messages.
        class_names: One name per class, in the order of the labels.
        labels: Digest of all labels, in the order of the samples.
        probes: Digest of 64 images that are spread over the split.
        pixels: Digest of all images if they are in memory; empty if they are read from disk when needed.
    """

    name: str
    class_names: tuple[str, ...]
    labels: str
    probes: str
    pixels: str

    @classmethod
    def of(cls, data: Data) -> Self:
        """Return the identity of the training images of a dataset.

        Raises:
            UserError: If they cannot be read by position, or are not the same each time.
        """
        images = training_images(data)
        # Read again under another seed: a random transform inside the dataset shows as other pixels.
        probes = _probes(images, seed=0)
        if not images.is_resident and probes != _probes(images, seed=1):
            raise UserError(
                f"The training images of {data.name} differ each time they are read, so recorded answers would not fit "
                "them: remove random steps from the dataset's own transform, and use --augment (augment= in Python)."
            )
        return cls(
            name=data.name,
            class_names=tuple(map(str, data.class_names)),
            labels=of_tensors({} if images.targets is None else {"labels": images.targets}),
            probes=probes,
            pixels=_digest(images.images) if isinstance(images, ResidentImages) else "",
        )

    def differences(self, now: Self, *, same_number: bool = True, same_size: bool = True) -> list[str]:
        """Return, in plain words, how the data `now` differ from these.

        Args:
            now: The identity of the data now.
            same_number: Whether the number of samples is the same. If not, labels and pixels are not compared.
            same_size: Whether the images have the same size. If not, pixels are not compared.
        """
        found = []
        moved = self._moved_class(now)
        if moved is not None:
            found.append(f"another order of the classes ({moved})")
        if same_number and self.labels != now.labels:
            found.append("other labels: the training samples are others, or in another order")
        if same_number and same_size and not self.shows_images_of(now):
            found.append("other pixels: the images are others, or are decoded or transformed differently")
        if self.name != now.name and (found or not (same_number and same_size)):
            found.insert(0, contrast("another dataset", self.name, now.name))
        return found

    def shows_images_of(self, now: Self) -> bool:
        """Return whether the images are the same, as far as both are known."""
        # One machine may hold the data in memory while another reads them from disk; then only the probes compare.
        whole = self.pixels == now.pixels or not (self.pixels and now.pixels)
        return whole and self.probes == now.probes

    def _moved_class(self, now: Self) -> str | None:
        """Return, in words, a class whose number changed; None if none did. Only names that occur once are compared."""
        if self.class_names == now.class_names:
            return None
        there, here = (_numbers(names) for names in (self.class_names, now.class_names))
        moved = (name for name in there if here.get(name, there[name]) != there[name])
        return next((f"{name!r} is number {there[name]} there, {here[name]} here" for name in moved), None)


def contrast(what: str, there: object, here: object) -> str:
    """Return a line about a fact whose value in the recording differs from its value now."""
    return f"{what} ({there} there, {here} here)"


def _numbers(class_names: Sequence[str]) -> dict[str, int]:
    """Return the number of each class, by name; names that several classes share are left out."""
    times = Counter(class_names)
    return {name: number for number, name in enumerate(class_names) if times[name] == 1}


def _normalized(network: nn.Module) -> dict[str, Normalized]:
    return {path: module for path, module in network.named_modules() if isinstance(module, Normalized)}


def training_images(data: Data) -> Samples:
    """Return the training split, to be read by position.

    Raises:
        UserError: If it is a DataLoader, or holds texts.
    """
    if isinstance(data.train, RawTexts):
        raise UserError("Recordings hold views of images, and these data are texts: name the teacher itself instead.")
    if isinstance(data.train, DataLoader):
        raise UserError(
            "Recorded answers belong to samples by position, and a DataLoader gives no positions: pass the dataset."
        )
    return data.train


def read(images: Samples, indices: Sequence[int], *, seed: int = 0) -> Tensor:
    """Return the stored images at some positions, `[sample, ...]`, read with every random generator set to a seed."""
    with seeded(seed):
        # Images in memory are taken by a tensor of positions, others are read one by one.
        found: Tensor = images.read_batch(torch.tensor(indices) if images.is_resident else indices)[0]
        return found


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` positions, evenly spread from 0 to `count - 1`, both ends included."""
    # A set, because few samples give the same position more than once.
    return sorted({round((count - 1) * place / (most - 1)) for place in range(most)})


def _probes(images: Samples, *, seed: int) -> str:
    return _digest(read(images, spread(len(images), _PROBES), seed=seed))


def _digest(images: Tensor) -> str:
    """Return a digest of images, `[sample, ...]`, part by part, so that no second copy of all of them is made."""
    digest = hashlib.sha256(f"{tuple(images.shape)} {images.dtype}".encode())
    for part in torch.split(images, _AT_ONCE):
        digest.update(part.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
