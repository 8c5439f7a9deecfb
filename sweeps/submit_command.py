"""The command `hausa-asr submit`: runs a sweep as a job of a Ray cluster, from anywhere. Found by its entry point.

In: what `sweeps/run.py` takes, and a cluster's address. Out: the job's log, and its exit status. The upload is built
aside from what a job needs, so that it does not matter what lies in the folder where the command is typed. Long, since
its options and what it refuses are here; the work is in `upload` and `on_ray.jobs`.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hausa_asr.command_options import Config, Resume, Retry, Set
from hausa_asr.errors import UserError
from sweeps.driver.log_lines import VARIABLE, formatter
from sweeps.upload import pack

if TYPE_CHECKING:
    from hausa_asr.settings.sweep import SweepConfig
    from sweeps.on_ray.jobs import Ended

_PASSED_ON = ("HAUSA_ASR_STORAGE", "MLFLOW_TRACKING_URI", VARIABLE)
"""Variables of the caller that a job gets too. Never credentials: whoever may see the job sees its environment."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(^|_)KEY(_|$)", re.I)
_PASSWORD = re.compile(r"://[^/\s@]+@")
_GENTLE_STOP_S = "30"
"""How long `ray job stop` waits before it kills; by default 3 s, in which MLflow can't be brought up to date."""
EXIT_INTERRUPTED = 130
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def submit(
    config: Config = None,
    set_: Set = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="http://HOST:8265",
            help="The dashboard of a Ray cluster; by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS, else this machine.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="A variable of the job's environment; NAME alone passes on its value here. Repeat it for more.",
        ),
    ] = None,
    resume: Resume = None,
    retry: Retry = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the job's name and return, rather than follow its log.")
    ] = False,
    name: Annotated[str | None, typer.Option(metavar="JOB", help="The job's name on the cluster.")] = None,
) -> None:
    """Run a sweep as a job of a Ray cluster, and follow its log.

    Uploads this installation's code and the settings file, a few MB, whatever lies beside them. Data, base checkpoints
    and language models that the settings name must lie where every node finds them. HAUSA_ASR_STORAGE,
    MLFLOW_TRACKING_URI and HAUSA_ASR_LOG are passed on; credentials belong into the nodes' own environment. Ctrl-C
    leaves the job running.

    The exit status is 0 if the job succeeded, its own if it failed, 130 if it was stopped.

    \b
    hausa-asr submit --config my_sweep.yaml
    hausa-asr submit --config my_sweep.yaml --set search.trials=40 --address http://127.0.0.1:8265
    hausa-asr submit --resume /shared/runs/my_sweep --set search.trials=80
    """
    from sweeps.on_ray.jobs import Cluster, Job, address_of

    request = request_of(config, set_ or [], env or [], resume, name, retry=retry or [])
    where = address_of(address)
    with tempfile.TemporaryDirectory(prefix="hausa-asr-submit-") as aside:
        upload = Path(aside) / "upload.zip"
        pack(upload, config, request.needs_demo_base)
        cluster = Cluster(where)
        _say(f"upload    {upload.stat().st_size:,} bytes: the code{f' and {config.name}' if config else ''}")
        for line in request.in_words():
            _say(line)
        cluster.submit(Job(request.job, request.entrypoint, upload, request.environment))
    try:
        _say(f"job       {request.job}, sweep {request.sweep}")
        if no_wait:
            _say(_how_to_go_on(request, where))
            print(request.job)
            return
        ended = cluster.follow(request.job, _write)
    except KeyboardInterrupt:
        _say(f"\nThe job goes on.\n{_how_to_go_on(request, where)}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _say(_in_words(ended, request))
    raise typer.Exit(ended.code)


@dataclass(frozen=True)
class Request:
    """What is asked of the cluster.

    Attributes:
        job: the job's name.
        sweep: the sweep's.
        entrypoint: the shell command.
        environment: of the job.
        needs_demo_base: whether trials start from the shipped checkpoint, or may.
        resume: what to type after `--resume` to go on.
        shown: the job's environment without what must not be shown.
    """

    job: str
    sweep: str
    entrypoint: str
    environment: dict[str, str]
    needs_demo_base: bool
    resume: str
    shown: dict[str, str]

    def in_words(self) -> list[str]:
        """What the job gets of the environment here."""
        lines = [f"passed on {name}={value}" for name, value in self.shown.items()]
        if secret := [name for name, value in self.environment.items() if _is_secret(name, value)]:
            lines.append(
                f"warning   Ray's dashboard and job list show {', '.join(secret)} to all who have the cluster's token; "
                "the nodes' own environment does not."
            )
        return lines


def request_of(
    config: Path | None,
    overrides: Sequence[str],
    env: Sequence[str],
    resume: str | None,
    name: str | None,
    ours: Mapping[str, str] = os.environ,
    retry: Sequence[str] = (),
) -> Request:
    """Check what is asked for, before anything is uploaded.

    Args:
        config, overrides, resume, retry: as for `sweeps/run.py`.
        env: the job's own variables, NAME=VALUE or NAME each.
        name: the job's name; None for one made of its sweep's and the time.
        ours: the environment here.

    Raises:
        UserError: the job could not run, or would show a password.
    """
    named = dict(_variable(one, ours) for one in env)
    passed = {variable: ours[variable] for variable in _PASSED_ON if ours.get(variable)} | named
    formatter("", passed)  # refuses what it does not know
    _refuse_passwords(
        {name: value for name, value in passed.items() if name not in named} | {"--set": " ".join(overrides)}
    )
    if retry and resume is None:
        raise UserError("A new sweep has no trials to try again.", where="--retry", fix="Add --resume SWEEP.")
    environment = {"RAY_JOB_STOP_WAIT_TIME_S": _GENTLE_STOP_S, **passed}
    when = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    command, demo = ["python", "sweeps/run.py"], True
    if resume is not None:
        sweep, again = _resumed(config, overrides, resume, environment), resume
        command += ["--resume", resume]
        job = f"{sweep}-{when}"
    elif config is None:
        raise UserError("No settings were given.", fix="Add --config my_sweep.yaml, or --resume SWEEP.")
    else:
        settings = _settings_of(config, overrides, environment)
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", config.stem).lstrip("._-")[:80] or "sweep"
        job = sweep = f"{stem}-{when}"
        if settings.name:
            sweep, job = settings.name, f"{settings.name}-{when}"
        command += ["--config", config.name, *(() if settings.name else ("--set", f"name={sweep}"))]
        demo, again = "demo" in settings.bases, f"{settings.storage.rstrip('/')}/{sweep}"
    job = name or job
    if not _JOB_NAME.fullmatch(job):
        raise UserError(f"This is no name for a job: {job!r}.", where="--name", fix="Use letters, digits, ., _ and -.")
    command += [part for override in overrides for part in ("--set", override)]
    command += [part for trial in retry for part in ("--retry", trial)]
    shown = {variable: "(set)" if _is_secret(variable, value) else value for variable, value in passed.items()}
    return Request(job, sweep, shlex.join(command), environment, demo, again, shown)


def _settings_of(config: Path, overrides: Sequence[str], environment: Mapping[str, str]) -> SweepConfig:
    """The settings as the job will have them, with all that would be lost with its working directory refused."""
    from hausa_asr.settings.load import load, make_absolute

    settings = load(config, overrides, environment)
    _refuse_passwords({str(config): config.read_text(encoding="utf-8")})
    try:
        make_absolute(settings, in_job=True)
    except UserError as error:
        raise UserError(
            error.what,
            where=config,
            fix="Before you submit: export HAUSA_ASR_STORAGE=/shared/runs (a place that all nodes have) and "
            "MLFLOW_TRACKING_URI=http://HOST:5000, or write these settings with absolute paths. Nothing was uploaded.",
        ) from None
    return settings


def _resumed(config: Path | None, overrides: Sequence[str], resume: str, environment: Mapping[str, str]) -> str:
    """The name of a sweep that goes on."""
    from sweeps.driver.sweep_folder import refuse_changes

    refuse_changes(config, overrides, resume)
    storage = environment.get("HAUSA_ASR_STORAGE", "")
    for override in overrides:
        if override.startswith("storage="):
            storage = override.partition("=")[2]
    place = resume if "/" in resume else storage
    if not (place.startswith(("/", "~")) or "://" in place):
        raise UserError(
            "A job works in a folder of its own, so it would not find this sweep.",
            where=f"--resume {resume}",
            fix="Give its whole path (--resume /shared/runs/my_sweep), or export HAUSA_ASR_STORAGE=/shared/runs.",
        )
    return resume.rstrip("/").rpartition("/")[2]


def _variable(one: str, ours: Mapping[str, str]) -> tuple[str, str]:
    """A variable's name and value."""
    variable, equals, value = one.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise UserError(
            f"--env takes NAME=VALUE or NAME, got {variable!r}.", fix="Write for example --env HF_HOME=/cache."
        )
    if not equals and variable not in ours:
        raise UserError(f"The variable {variable} is not set here.", where="--env", fix=f"Give --env {variable}=VALUE.")
    return variable, value if equals else ours[variable]


def _refuse_passwords(texts: Mapping[str, str]) -> None:
    """Refuse an address with a password in what everybody will see: texts by where they are from."""
    for where, text in texts.items():
        if _PASSWORD.search(text):
            raise UserError(
                "An address holds a password, which Ray's dashboard and the job's files would show.",
                where=where,
                fix="Leave it out of the address. For MLflow set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the nodes' own environment, or name the variable knowingly "
                "(--env MLFLOW_TRACKING_URI).",
            )


def _is_secret(variable: str, value: str) -> bool:
    return bool(_SECRET.search(variable) or _PASSWORD.search(value))


def _how_to_go_on(request: Request, address: str) -> str:
    from hausa_asr.userinfo import without_userinfo
    from sweeps.on_ray.jobs import ray_job

    watch = f"\ntable     hausa-asr watch {shlex.quote(request.resume)} --wait, where its storage is mounted"
    return (
        f"follow    {ray_job('logs', request.job, address)} --follow"
        + ("" if "/" not in request.resume else watch)
        + f"\nstop      {ray_job('stop', request.job, address)}"
        + f"\nresume    hausa-asr submit --resume {shlex.quote(request.resume)} --address {without_userinfo(address)}"
    )


def _in_words(ended: Ended, request: Request) -> str:
    again = f"Go on with:  hausa-asr submit --resume {shlex.quote(request.resume)}"
    if ended.how == "stopped":
        return f"job {request.job} was stopped. {again}"
    if ended.how == "failed":
        said = f"\n{ended.message}" if ended.message else ""
        return f"job {request.job} failed with exit status {ended.code}.{said}"
    return f"job {request.job} succeeded."


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
