"""What a job of a Ray cluster needs, in one small file: the code of this installation, and the settings.

In: the settings file. Out: a zip file under 5 MB, whatever lies beside. Called by `submit_command`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from hausa_asr.errors import UserError

MOST_BYTES = 5_000_000
_KEPT = {".py", ".yaml", ".json", ".html", ".css"}
"""The kinds of files of the packages; anything else there is nobody's."""
_DEMO_BASE = "hausa_asr/demo_base/model.safetensors"


def pack(upload: Path, config: Path | None, demo_base: bool) -> None:
    """Write a zip file of what a job needs: the two packages of this installation, and the settings.

    The same content gives the same bytes, so a cluster gets it once.

    Args:
        upload: the file to write.
        config: the settings, if any.
        demo_base: with the weights of the shipped checkpoint.

    Raises:
        UserError: it is larger than 5 MB, which no installation is.
    """
    import hausa_asr
    import sweeps

    sizes: dict[str, int] = {}
    with zipfile.ZipFile(upload, "w", zipfile.ZIP_DEFLATED) as file:
        for package in (hausa_asr, sweeps):
            root = Path(str(package.__file__)).parent
            for path in sorted(root.rglob("*")):
                name = path.relative_to(root.parent).as_posix()
                if path.is_file() and (path.suffix in _KEPT or (name == _DEMO_BASE and demo_base)):
                    sizes[name] = _add(file, path, name)
        if config is not None:
            sizes[config.name] = _add(file, config, config.name)
    if (n_bytes := upload.stat().st_size) > MOST_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        raise UserError(
            f"The upload has {n_bytes:,} bytes, more than {MOST_BYTES:,}; the largest are {', '.join(largest)}.",
            where=Path(str(sweeps.__file__)).parent.parent,
            fix="Move what does not belong to the project out of its packages.",
        )


def _add(file: zipfile.ZipFile, path: Path, name: str) -> int:
    entry = zipfile.ZipInfo(name)  # with a date that is always the same
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    file.writestr(entry, path.read_bytes())
    return entry.compress_size
