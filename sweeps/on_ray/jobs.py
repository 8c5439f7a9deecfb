"""Jobs of a Ray cluster, through Ray's job client: submit one, follow its log, learn how it ended.

In: the address of a cluster's dashboard, an upload and a command. Out: the job's log, and how it ended. Called by
`submit_command`, before which nothing has imported Ray: it reads how to authenticate only once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from hausa_asr.errors import UserError, first_line
from hausa_asr.tracking.store import without_password

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_KNOCK_S = 10.0
_PATIENCE_S = 120.0
"""How long a cluster that no longer answers is asked again."""
_SILENCE_S = 120.0
"""After so long without a line the connection is made anew, since one that a network has dropped says nothing."""
_POLL_S = 0.5
STOPPED = 130


@dataclass(frozen=True)
class Job:
    """What is submitted.

    Attributes:
        id: its name on the cluster.
        entrypoint: the shell command that it runs, in its copy of the upload.
        upload: a zip file with the job's working directory.
        environment: the environment variables of it and of its workers.
    """

    id: str
    entrypoint: str
    upload: Path
    environment: dict[str, str]


@dataclass(frozen=True)
class Ended:
    """How a job ended: `succeeded`, `failed` or `stopped`, its exit status, and what Ray says of it."""

    how: str
    code: int
    message: str


def address_of(given: str | None) -> str:
    """The address of the cluster's dashboard: the one given, else that of the environment, else this machine's.

    Raises:
        UserError: it is that of another of Ray's servers.
    """
    found = [os.environ[name] for name in _ADDRESS_VARIABLES if os.environ.get(name)]
    address = (given or next(iter(found), DEFAULT_ADDRESS)).strip().rstrip("/")
    host = urlsplit(address if "://" in address else f"//{address}").hostname or "HOST"
    if given and "://" not in address:
        address = f"http://{address}"
    if not address.startswith(("http://", "https://")) or not urlsplit(address).hostname:
        raise UserError(
            "Jobs are submitted to the dashboard of a Ray cluster, and this is not its address.",
            where=without_password(address),
            fix=f"Give --address http://{host if host != 'auto' else '127.0.0.1'}:8265, or where the dashboard is.",
        )
    return address


def has_token() -> bool:
    """Whether this machine has a token for Ray clusters, as Ray would find it."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser().is_file()


class Cluster:
    """A Ray cluster that takes jobs.

    Args:
        address: its dashboard's, as `address_of` gives it.

    Raises:
        UserError: it does not answer, refuses the token, or is something else.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # else RAY_ADDRESS would win over what was given
        if has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        _knock(address)
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient

        try:
            self._client = JobSubmissionClient(address)
            self._client.list_jobs()  # unlike the version, jobs are shown to those only who have the token
        except RayError as error:
            raise _refused(address) from error
        except (RuntimeError, ConnectionError, ValueError, KeyError, requests.RequestException) as error:
            raise UserError(
                f"What answers there takes no Ray jobs: {first_line(error).rstrip('.')}.",
                where=without_password(address),
                fix="Give --address with the address of the dashboard of a Ray cluster, of version 2 or newer.",
            ) from error

    def submit(self, job: Job) -> None:
        """Upload what a job needs, unless the cluster has it from before, and start it.

        Raises:
            UserError: the cluster does not take it.
        """
        from ray.exceptions import RayError

        runtime = {"working_dir": str(job.upload), "env_vars": job.environment}
        try:
            self._client.submit_job(entrypoint=job.entrypoint, submission_id=job.id, runtime_env=runtime)
        except (RuntimeError, OSError, ValueError, RayError, requests.RequestException) as error:
            if "already exists" in str(error):
                raise UserError(
                    f"The cluster has, or had, a job named {job.id}.",
                    where=without_password(self.address),
                    fix="Give another name with --name, or leave it out.",
                ) from None
            raise UserError(
                f"The cluster did not take the job: {first_line(error)}.",
                where=without_password(self.address),
                fix="Look at the cluster's dashboard; if it is up, submit again.",
            ) from error

    def follow(self, job_id: str, write: Callable[[str], None]) -> Ended:
        """Pass on a job's log until it has ended. A lost connection is made anew.

        Args:
            job_id: its name.
            write: is given each piece of the log.

        Raises:
            UserError: the cluster has not answered for two minutes; the job may go on.
        """
        import aiohttp
        from ray.exceptions import RayError

        log = _Log(write)
        answered_s = time.monotonic()
        while True:
            try:
                asyncio.run(log.pass_on(self._client.tail_job_logs(job_id)))
                details = self._client.get_job_info(job_id)
                answered_s = time.monotonic()
                if details.status.is_terminal():
                    return _ended(details)
            except (RuntimeError, OSError, RayError, requests.RequestException, aiohttp.ClientError) as error:
                if time.monotonic() - answered_s > _PATIENCE_S:
                    raise UserError(
                        f"The cluster no longer answers, but the job may go on: {first_line(error)}.",
                        where=without_password(self.address),
                        fix=f"When it answers again: {ray_job('logs', job_id, self.address)} --follow.",
                    ) from error
            time.sleep(_POLL_S)


class _Log:
    """A log that is sent from its beginning again with every new connection, passed on once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._written = write, 0

    async def pass_on(self, pieces: Any) -> None:
        """Pass on what is new, until the log ends or nothing comes for a while."""
        seen = 0
        try:
            while True:
                piece = await asyncio.wait_for(anext(pieces), _SILENCE_S)
                new = piece[max(0, self._written - seen) :]
                seen += len(piece)
                self._written = max(self._written, seen)
                if new:
                    self._write(new)
        except (StopAsyncIteration, TimeoutError):
            return
        finally:
            await pieces.aclose()


def ray_job(what: str, job_id: str, address: str) -> str:
    """A command to type: Ray's own for a job."""
    token = "RAY_AUTH_MODE=token " if os.environ.get("RAY_AUTH_MODE") == "token" else ""
    return f"{token}ray job {what} {job_id} --address {without_password(address)}"


def _ended(details: Any) -> Ended:
    how, code = details.status.value.lower(), details.driver_exit_code
    if how == "succeeded":
        return Ended(how, 0, "")
    if how == "stopped":
        return Ended(how, STOPPED, "")
    message = "" if code is not None else (details.message or "").strip()  # else the log has it
    return Ended(how, 1 if not code else code if code > 0 else 128 - code, message)  # -9: by signal 9


def _knock(address: str) -> None:
    """Ask for the version: Ray's own client has no time limit, and words every fault as one of the connection."""
    try:
        requests.get(f"{address}/api/version", timeout=_KNOCK_S, allow_redirects=False)
    except requests.RequestException as error:
        why = "in ten seconds" if isinstance(error, requests.Timeout) else _innermost(error)
        raise UserError(
            f"No Ray cluster answers there: {why}.",
            where=without_password(address),
            fix="Give the address of its dashboard with --address http://HOST:8265; where it listens on the head node "
            "only, which is right, forward the port first (ssh -L 8265:127.0.0.1:8265 HOST, or kubectl port-forward).",
        ) from error


def _innermost(error: BaseException) -> str:
    """What the operating system said: `requests` wraps it three times."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return getattr(cause, "strerror", None) or first_line(cause)


def _refused(address: str) -> UserError:
    shown = without_password(address)
    if not has_token():
        return UserError(
            "The cluster asks for a token, and this machine has none.",
            where=shown,
            fix="Copy ~/.ray/auth_token of the head node to ~/.ray/auth_token here, or set RAY_AUTH_TOKEN.",
        )
    source = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else "~/.ray/auth_token"
    return UserError(
        "The cluster refuses the token of this machine.",
        where=f"{shown}, with the token of {os.environ.get('RAY_AUTH_TOKEN_PATH') or source}",
        fix="Set RAY_AUTH_TOKEN to the token of that cluster's head node (~/.ray/auth_token there).",
    )
