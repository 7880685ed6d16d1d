"""Detection of images that stand in two splits, or under two classes: copies flatter a score, or contradict a label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.paired import PairedImages
from tutelage.data.split_names import TRAIN
from tutelage.errors import notice

# Large public datasets have a few copies, which change no score.
_SHARE = 0.01


def tell_repeats(
    streamed: Mapping[str, StreamedImages] | Mapping[str, PairedImages], resident: Mapping[str, ResidentImages]
) -> None:
    """Warn about images of other splits that are in training too, and about copies of an image in two classes.

    Args:
        streamed: The splits, which know where an image came from.
        resident: The same splits, decoded. Equal pixels are the same image.
    """
    learned: dict[bytes, int] = {}
    contradicting = []
    for position, digest in _digests(resident[TRAIN]):
        first = learned.setdefault(digest, position)
        if _label(resident[TRAIN], first) != _label(resident[TRAIN], position):
            contradicting.append((first, position))
    if len(contradicting) > _SHARE * len(resident[TRAIN]):
        one, other = (streamed[TRAIN].place(position) for position in contradicting[0])
        notice(
            f"{len(contradicting)} training images have a copy under another class, such as {one} and {other}: remove "
            "one of each two, because no network can tell them apart."
        )
    for split in sorted(resident.keys() - {TRAIN}):
        places = [(n, learned[digest]) for n, digest in _digests(resident[split]) if digest in learned]
        if len(places) > _SHARE * len(resident[split]):
            one, other = streamed[split].place(places[0][0]), streamed[TRAIN].place(places[0][1])
            notice(
                f"{len(places)} of {len(resident[split])} {split} images are training images too, such as {one}, which "
                f"is {other}: what is measured on them was learned by heart. Remove them from one of the two."
            )


def _digests(images: ResidentImages) -> Iterator[tuple[int, bytes]]:
    """Yield position and digest of each image but those of one colour, which are told of on their own."""
    for position, image in enumerate(images.images.numpy()):
        if (image != image[:, :1, :1]).any():
            yield position, hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _label(images: ResidentImages, position: int) -> object:
    """Return the target of an image as plain values; None if it has none."""
    return None if images.targets is None else images.targets[position].tolist()
