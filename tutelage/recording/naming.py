"""How users name a recording: `recording:PATH`, `recording:PATH,views=4`, or a `Recording` object."""

from __future__ import annotations

from pathlib import Path

from tutelage.core.teachers.naming import TeacherKind
from tutelage.core.teachers.teacher import Teacher
from tutelage.data.plan import RecordedViews
from tutelage.errors import UserError, unknown
from tutelage.recording.header import NAME
from tutelage.recording.reading import PREFIX, Recording
from tutelage.recording.teacher import RecordedTeacher
from tutelage.system.grammar import read
from tutelage.system.values import Count, check


class Recordings(TeacherKind):
    """Recordings as teachers."""

    prefix = PREFIX

    def teacher(self, source: object) -> Teacher | None:
        """Return the teacher of a recording.

        Args:
            source: `recording:PATH`, `recording:PATH,views=4`, or a recording.

        Raises:
            UserError: If there is no such recording, or the prefix is missing before one.
        """
        if isinstance(source, RecordedViews):
            return RecordedTeacher(source)
        if not isinstance(source, str):
            return None
        if source.startswith(f"{PREFIX}:"):
            return RecordedTeacher(opened(source))
        if (Path(source) / NAME).is_file():
            raise UserError(f"{source} holds a recording, not a network: write {PREFIX}:{source}.")
        return None


RECORDINGS = Recordings()


def opened(text: str) -> Recording:
    """Return the recording that `recording:PATH` or `recording:PATH,views=4` names.

    Raises:
        UserError: If the text cannot be read, there is no recording, or it has fewer views.
    """
    place = text.removeprefix(f"{PREFIX}:").strip()
    if not place:
        raise UserError(f"{text!r} names no folder: write recording:PATH.")
    # A folder whose name holds a comma is a folder, not a path with options.
    if Path(place).is_dir():
        return Recording(place)
    written = read(place, kind="recording", is_place=True)
    views = None
    for key, given in written.options.items():
        if key != "views":
            raise unknown("option of a recording", key, ["views"])
        # A text that is not a number is passed on, and refused in the same words as other wrong values.
        check(key, int(given) if given.isdecimal() else given, Count, of="A recording")
        views = int(given)
    return Recording(written.name, views=views)
