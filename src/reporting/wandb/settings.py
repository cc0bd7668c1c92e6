"""Weights & Biases: where runs go, and whether to its server or to disk.

Runs go to ``<folder>/wandb`` and, unless an API key is configured, stay there until ``wandb sync <folder>/wandb``.
"""

import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

#: Hosts of the public server; ``wandb login`` writes one of them to the netrc file.
PUBLIC_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
#: Older names that ``WANDB_MODE`` still accepts.
MODES = {"dryrun": "offline", "run": "online"}


@dataclass(frozen=True)
class WandbSettings:
    """Where runs go and what they have in common."""

    folder: Path  #: usually ``outputs``; W&B writes to ``outputs/wandb``
    project: str = "defense-vqvae"
    entity: str | None = None
    group: str | None = None  #: None: ``WANDB_RUN_GROUP``, or named after data, protocol and classifier
    tags: tuple[str, ...] = ()
    notes: str | None = None
    job_type: str | None = None  #: None: ``WANDB_JOB_TYPE``, or by what a run holds: train, cell, grid, certify
    mode: str | None = None  #: "online", "offline" or "disabled"; None: see :func:`resolve_mode`


def wandb_folder(settings: WandbSettings) -> Path:
    """Where W&B keeps its runs."""
    return Path(settings.folder).absolute() / "wandb"


def resolve_mode(requested: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The mode runs are logged in: ``requested``, else ``WANDB_MODE``, else "online" if an API key is configured, else
    "offline", because W&B refuses to start online without a key.

    Args:
        requested: a mode from the configuration; None to choose.
        environment: environment variables; None: those of this process.
    """
    environment = os.environ if environment is None else environment
    mode = requested or environment.get("WANDB_MODE")
    if mode:
        return MODES.get(mode, mode)
    return "online" if key_configured(environment) else "offline"


def key_configured(environment: Mapping[str, str]) -> bool:
    """Whether these variables, or the netrc file that they lead to, hold credentials for W&B's server."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = _netrc_file(environment)
    server = urlsplit(environment.get("WANDB_BASE_URL", "")).netloc
    hosts = PUBLIC_HOSTS if server in ("", *PUBLIC_HOSTS) else (server,)
    try:
        logins = netrc.netrc(path).hosts if path else {}
    except (netrc.NetrcParseError, OSError):
        return False
    return any(logins[host][2] for host in hosts if host in logins)


def _netrc_file(environment: Mapping[str, str]) -> Path | None:
    """The netrc file that W&B reads, if there is one."""
    home = environment.get("HOME") or str(Path.home())
    custom_path = environment.get("NETRC")
    candidates = [Path(custom_path).expanduser()] if custom_path else [Path(home, ".netrc"), Path(home, "_netrc")]
    return next((path for path in candidates if path.is_file()), None)


def wandb_settings(
    folder: str,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    notes: str | None = None,
    job_type: str | None = None,
) -> WandbSettings:
    """Settings for W&B runs, from a configuration's plain types."""
    return WandbSettings(
        Path(folder), project or WandbSettings.project, entity, group, tuple(tags or ()), notes, job_type=job_type
    )
