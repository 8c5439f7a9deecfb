"""Keep user names and passwords in addresses, `http://ada:secret@host`, out of all that is written.

An address goes into settings, ledgers, MLflow, logs and messages. So MLflow's keeps its credentials in the environment,
where MLflow itself looks for them; any other address with credentials is refused, since the libraries have means of
their own (AWS_PROFILE and the like). Called where settings are read and where a tracking URI is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""Where MLflow looks for the credentials of its server."""
_WITH_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://[^/?#\s]*@")
_REVISIONS = ("hf",)
"""Schemes in which `@` names a revision."""


def without_userinfo(address: str) -> str:
    """An address that may be shown and written."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else address


def has_userinfo(address: str) -> bool:
    """Whether an address, perhaps in a chain as fsspec has them (`a::b`), names a user or a password."""
    return any(found[1].lower() not in _REVISIONS for found in _WITH_USERINFO.finditer(address))


def keep_for_mlflow(uri: str, environment: MutableMapping[str, str] | None = None) -> str:
    """Move the credentials of a tracking URI into the environment, for MLflow, and give the URI without them.

    Args:
        uri: a tracking URI.
        environment: by default that of this process.
    """
    if not has_userinfo(uri):
        return uri
    user, _, password = urlsplit(uri).netloc.rpartition("@")[0].partition(":")
    environment = os.environ if environment is None else environment
    environment[USERNAME], environment[PASSWORD] = unquote(user), unquote(password)
    return without_userinfo(uri)


def places_with_userinfo(values: Any, place: str = "") -> Iterator[str]:
    """List the settings, as `data.path`, whose addresses have credentials in them; never the credentials.

    Args:
        values: settings as they were read: mappings, lists and plain values.
        place: their name so far.
    """
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from places_with_userinfo(value, f"{place}.{name}" if place else str(name))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from places_with_userinfo(value, f"{place}.{number}")
    elif isinstance(values, str) and has_userinfo(values):
        yield place
