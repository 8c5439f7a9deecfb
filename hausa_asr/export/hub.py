"""Push an exported folder to the Hugging Face hub. Called by `best-model --push-to-hub`."""

from __future__ import annotations

import re
from pathlib import Path

from hausa_asr.errors import UserError, first_line

_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def check_repo(repo: str) -> None:
    """Refuse what can't be the id of a repository.

    Raises:
        UserError: it can't.
    """
    if not _REPO.fullmatch(repo):
        raise UserError(f"{repo} is no id of a repository.", fix="Give --push-to-hub OWNER/NAME.")


def push(folder: Path, repo: str) -> str:
    """Push a folder; a repository that is not there is made, private.

    Args:
        folder: an export.
        repo: OWNER/NAME.

    Returns:
        The address of the commit.

    Raises:
        UserError: the hub can't be reached, or does not let this user write there.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="hausa-asr-sweeps")
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Add a Hausa wav2vec 2.0 model"))
    except Exception as error:  # of the hub, of the network, and of what is between them, in many kinds
        raise UserError(
            f"The model is in {folder}, but could not be pushed: {first_line(error).rstrip('.')}.",
            where=f"the hub, {repo}",
            fix="Log in with `hf auth login` as somebody who may write there, then push it with "
            f"`hf upload {repo} {folder}`.",
        ) from error
