"""Push an exported folder to the Hugging Face hub. Called by `best-model --push-to-hub`."""

from __future__ import annotations

import shlex
from pathlib import Path

from hausa_asr.errors import UserError, first_line
from hausa_asr.export.folder import NEEDED, POSSIBLE


def check_repo(repo: str) -> None:
    """Refuse what can't be the id of a repository.

    Raises:
        UserError: it can't.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo} is not a repository id: {first_line(error)}", fix="Give OWNER/NAME.") from error
    if repo.count("/") != 1:
        raise UserError(f"{repo} is not a repository id.", fix="Give --push-to-hub OWNER/NAME.")


def push(folder: Path, repo: str) -> str:
    """Push a folder; a repository that is not there is made, private.

    Args:
        folder: an export.
        repo: OWNER/NAME. Files of an earlier export that this one lacks are removed from it.

    Returns:
        The address of the commit.

    Raises:
        UserError: the hub can't be reached, or does not let this user write there.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="hausa-asr-sweeps")
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message="Add a Hausa wav2vec 2.0 model",
            delete_patterns=sorted(POSSIBLE - NEEDED),
        )
    except Exception as error:  # of the hub, of the network, and of what is between them, in many kinds
        raise UserError(
            f"The model is in {folder}, but could not be pushed: {first_line(error).rstrip('.')}.",
            where=f"the hub, {repo}",
            fix="Log in with `hf auth login` as somebody who may write there, then push it with "
            f"`hf upload --private {repo} {shlex.quote(str(folder))}`.",
        ) from error
    return str(done)
