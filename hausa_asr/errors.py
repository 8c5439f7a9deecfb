"""The error that a user can mend: what is wrong, where, and what to do about it; and the one that is a trial's own.

The command lines (`hausa_asr.cli`, `sweeps.run`) print a `UserError` without a traceback and exit with code 2. Any
other exception is a bug of ours and keeps its traceback. A trial that raises `TooLittleMemory` is not tried again.
"""

from __future__ import annotations

import errno

EXIT_USER_ERROR = 2
DISK_FAULTS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.ENAMETOOLONG
}  # fmt: skip
"""Faults of the disk that the user can mend; other faults of the system may be the network's, or ours."""


class UserError(Exception):
    """One problem that the user can mend.

    Args:
        what: what is wrong, as a sentence with its full stop.
        where: the file, setting or utterance that is at fault.
        fix: what to do, as an imperative sentence with its full stop.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix is not None:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)

    def __reduce__(self):  # keyword-only arguments would be lost on the way through Ray
        return _rebuild, (type(self), self.what, self.where, self.fix)


class NodeFault(UserError):
    """A problem of this machine and not of the settings: on another node there may be none."""


class TooLittleMemory(RuntimeError):
    """The device has too little memory for one utterance alone, so the trial's settings fail wherever it runs."""


def of_the_disk(fault: OSError) -> UserError | None:
    """What a user reads of a disk that is full or may not be written; None if the fault is of another kind."""
    if fault.errno not in DISK_FAULTS:
        return None
    return UserError(
        f"A file can't be written or read: {fault.strerror}.",
        where=fault.filename,
        fix="Make room or get the rights there, or give another folder.",
    )


def first_line(fault: BaseException, most: int = 300) -> str:
    """The first line of an exception's message; the name of its class if the message is empty.

    Args:
        fault: any exception.
        most: characters to keep.
    """
    text = str(fault).strip()
    return text.splitlines()[0][:most] if text else type(fault).__name__


def _rebuild(kind: type[UserError], what: str, where: str | None, fix: str | None) -> UserError:
    return kind(what, where=where, fix=fix)
