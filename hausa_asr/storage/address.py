"""Name places: paths and addresses, their parts, and the path on this node that is an address's twin.

`s3://bucket/runs` has its twin at `<scratch>/stores/s3/bucket/runs`. So a path below the scratch folder leads back to
its address, whatever node it is on. `<scratch>` is HAUSA_ASR_SCRATCH, or `hausa_asr` in the user's cache folder; it
must be on a local disk, and each node may have its own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError

SCRATCH_VARIABLE = "HAUSA_ASR_SCRATCH"
_TWINS = "stores"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:// is a disk
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""The optional part of this package that brings the driver of a protocol."""
_CONNECT_S, _READ_S = 10, 60
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": {"max_attempts": 2}}}
}
"""So that a store that is away is noticed soon: `retry` then goes on for as long as it says."""


def is_url(place: str) -> bool:
    """Whether this is a URL or a locator, rather than a local path."""
    return bool(_URL.match(place))


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether this names something in a store, rather than on a disk; `file://` is a disk."""
    text = os.fspath(place)
    return is_url(text) and not text.lower().startswith("file://")


def absolute(place: str) -> str:
    """A place by its whole name: a path made absolute, `file://` as the path that it is, an address without its last /.

    Raises:
        UserError: an address steps out of its folder.
    """
    if not is_remote(place):
        path = place[len("file://") :] if place.lower().startswith("file://") else place
        return os.path.abspath(os.path.expanduser(path))
    if ".." in place.split("/"):
        raise UserError("An address has no '..' in it.", where=place, fix="Write the whole address.")
    return place.rstrip("/")


def join(place: str, *names: str) -> str:
    """The place of something in a folder."""
    if is_remote(place):
        return "/".join([place.rstrip("/"), *names])
    return os.path.join(place, *names)


def parent(place: str) -> str:
    """The folder that a place is in."""
    return place.rstrip("/").rpartition("/")[0] if is_remote(place) else os.path.dirname(place)


def name(place: str) -> str:
    """The last part of a place."""
    return place.rstrip("/").rpartition("/")[2]


def scratch() -> Path:
    """The folder on this node's disk for what belongs in a store."""
    given = os.environ.get(SCRATCH_VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.path.abspath(os.path.expanduser(given or os.path.join(cache, "hausa_asr"))))


def here(place: str | os.PathLike[str]) -> Path:
    """The path on this node: of a disk the path itself, of an address its twin, which need not be there."""
    text = absolute(os.fspath(place))
    if not is_remote(text):
        return Path(text)
    scheme, _, rest = text.partition("://")
    return scratch().joinpath(_TWINS, scheme.lower(), *filter(None, rest.split("/")))


def portable(place: str | os.PathLike[str]) -> str:
    """The name that every node understands: the address of a path that is a twin; any other place as it is."""
    text = os.fspath(place)
    if is_remote(text):
        return text
    root = f"{scratch() / _TWINS}{os.sep}"
    if not text.startswith(root):
        return text
    scheme, *parts = text.removeprefix(root).split(os.sep)
    return f"{scheme}://{'/'.join(parts)}" if parts else text


def filesystem(url: str) -> tuple[Any, str]:
    """Open the fsspec file system of a URL; also gives the path in it.

    Raises:
        UserError: the protocol is unknown, or its driver is not installed.
    """
    from fsspec.core import url_to_fs

    protocol = url.split("://", 1)[0].lower()
    try:
        system, path = url_to_fs(url, **_OPTIONS.get(protocol, {}))
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        fix = f"Run `pip install 'hausa-asr-sweeps[{extra}]'`." if extra else f"Install its driver ({error})."
        raise UserError(f"The driver for {protocol}:// is not installed.", where=url, fix=fix) from None
    except ValueError as error:
        raise UserError(
            f"{protocol}:// can't be read: {error}.", where=url, fix="Give a local path, or s3://, gs:// or https://."
        ) from None
    return system, path
