"""Which versions made a model or a sweep. Called by the model card and by the sweep's run in MLflow."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata

from hausa_asr import __version__


def versions(libraries: Iterable[str]) -> str:
    """The versions of this project, of Python and of libraries, in a line; what is not installed is left out."""
    found = {"hausa-asr-sweeps": __version__, "Python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a fine-tune needs neither datasets nor torchaudio
            continue
    return ", ".join(f"{name} {version}" for name, version in found.items())


def requirements(libraries: Iterable[str]) -> list[str]:
    """The installed versions of libraries as pip takes them, without the part that names a build."""
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in libraries]
