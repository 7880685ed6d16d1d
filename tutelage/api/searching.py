"""Look for a student before anything is trained."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from tutelage.api.progress import reporter_of
from tutelage.core.teachers.naming import TeacherSource
from tutelage.data.resolve import DataSource, resolve_data
from tutelage.errors import unknown
from tutelage.report.search import write_search_page
from tutelage.searching.search import Search
from tutelage.searching.settings import SearchSettings
from tutelage.system.chance import kept
from tutelage.system.console import Reporter


@kept()
def search(
    space: str,
    *,
    data: DataSource,
    teacher: TeacherSource = None,
    validation: DataSource | float | None = None,
    task: str = "classification",
    out: str | Path = "runs/search",
    progress: bool = True,
    trust_code: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Look for a student in a space of networks by scores that need no training.

    Writes `search.json` and `search.html` into `out`; what is scored there is never scored again. The best network is
    then trained as `student="found:OUT"`.

    Args:
        space: A network with ranges of options, such as `resnet_by_stage,stage1=1|3|5,stage2=1..7,stage3=1..7`,
            `timm:vit_tiny_patch16_224,depth=4..12,embed_dim=96|192` or `module:factory,width=8|16|32`; or `s0`.
        data: A dataset or loader of (input, target), or a name or path; one batch of it is used.
        teacher: The network with which candidates are compared: a module, a factory or a name. Its weights are not
            used, unless the score asks for them.
        validation: Validation data, or the share of the training samples that is held out for it.
        task: What the targets are, as for `distill`.
        out: Where everything goes.
        progress: Whether to show progress.
        trust_code: Whether a saved teacher may run the code that it names.
        **settings: Fields of `SearchSettings`, such as `limit="params=0.5M"`, `candidates=500` or `workers=2`.

    Returns:
        The content of `search.json`; its `best` are the best networks, each with its score and size.

    Raises:
        UserError: If anything does not fit, or no network of the space can be scored.
        Interrupted: If Ctrl-C or SIGTERM came; the same call continues from there.

    Examples:
        >>> import tutelage
        >>> space = "resnet_by_stage,width=4,stage1=1|2|3"
        >>> found = tutelage.search(space, teacher="resnet20,width=4", data="digits", out=folder, progress=False)
        >>> len(found["best"])
        3
    """
    known = [field.name for field in fields(SearchSettings)]
    for name in settings:
        if name not in known:
            raise unknown("setting", name, known)
    wanted = Search.of(
        space,
        teacher,
        resolve_data(data, validation=validation, task=task),
        SearchSettings(**settings),
        folder=Path(out),
        command=f"tutelage.search({space!r}, ...)",
        trust_code=trust_code,
    )
    return search_into(wanted, reporter_of(progress))


def search_into(wanted: Search, reporter: Reporter) -> dict[str, Any]:
    """Run a search and write its page."""
    content = wanted.run(reporter)
    write_search_page(content, wanted.folder / "search.html")
    return content
