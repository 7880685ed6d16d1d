"""Make images from a trained network alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.api.progress import reporter_of
from tutelage.core.teachers import Teacher
from tutelage.models.blueprint import Source
from tutelage.synthesis import writing as synthesis


def synthesize(
    teacher: Source | Teacher,
    *,
    out: str | Path,
    scheme: str = "bn-statistics+inception",
    per_class: int = 20,
    classes: int | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    normalize: str | None = None,
    weights: Mapping[str, float] | None = None,
    rival: Source | None = None,
    part: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
    trust_code: bool = False,
    **settings: Any,
) -> Path | None:
    """Make a dataset of images from a trained network alone, which every other call takes as its data.

    The folder gets Parquet files in `data/`, `contact-sheet.png`, `losses.png`, and `synthesis.json` with everything
    that the images depend on. The same call continues after an interruption.

    Args:
        teacher: A trained network: a module, a run's folder, or a name with weights.
        out: The folder.
        scheme: What the images are made to do: `gaussian` (nothing, they are noise), `inception` (the network is sure
            of a class), `bn-statistics` (the inputs of its batch norms have the statistics that it remembers),
            `bn-statistics+inception` (both), or `deepinversion`.
        per_class: How many images there are for each class.
        classes: The network's number of classes, where it does not tell.
        channels: Channels of its images, where it does not tell; 3 by default.
        image_size: Side of its images in pixels; a saved run tells it.
        normalize: Input statistics of a module, such as `cifar10`; networks by name have their own.
        weights: Weights of the scheme's losses, such as `{"smoothness": 20}`.
        rival: A student that should disagree with the teacher, for `weights={"competition": 1}` of `deepinversion`.
        part: Which share of the batches to make, such as `2/4`, if several processes share the folder.
        device: `auto`, `cpu`, `cuda` or `mps`.
        threads: Processor threads to compute with.
        progress: Whether to show progress.
        trust_code: Whether a saved network may run the code that it names.
        **settings: Fields of `tutelage.synthesis.settings.Settings`: `iterations`, `optimizer`, `lr`, `direction`,
            `copies`, `augment`, `jitter`, `rounding`, `batch_size`, `snapshots`, `seed`.

    Returns:
        The folder; None if other parts are still at work.

    Raises:
        UserError: If anything does not fit, such as a network without batch norms.
        Interrupted: If Ctrl-C or SIGTERM came; the same call continues from there.

    Examples:
        >>> import tutelage
        >>> net = tutelage.load_network("tiny_cnn", num_classes=3, in_channels=1)
        >>> facts = {"channels": 1, "image_size": 8, "normalize": "none"}
        >>> made = tutelage.synthesize(net, out=folder, per_class=4, iterations=2, progress=False, **facts)
        >>> tutelage.load_data(str(made), hold_out_test=False, validation=0).count("train")
        12
    """
    found = synthesis.synthesize(
        teacher,
        out=out,
        scheme=scheme,
        per_class=per_class,
        classes=classes,
        channels=channels,
        image_size=image_size,
        normalize=normalize,
        weights=weights,
        rival=rival,
        part=part,
        device=device,
        thread_count=threads,
        reporter=reporter_of(progress),
        trust_code=trust_code,
        **settings,
    )
    if not found.is_finished:
        return None
    # Late, because it imports matplotlib, which nothing else of a training needs.
    from tutelage.report.pictures import contact_sheet, loss_curves

    for shelf in found.shelves:
        contact_sheet(shelf.folder / "contact-sheet.png", shelf.preview())
        if any(curves := shelf.curves()):
            loss_curves(shelf.folder / "losses.png", curves)
    return found.shelf.folder
