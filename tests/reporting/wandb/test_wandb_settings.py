"""Where runs go."""

from pathlib import Path

import pytest

from src.reporting.wandb.settings import resolve_mode

LOGIN = f"machine {{}}\n  login user\n  password {40 * 'a'}\n"


@pytest.mark.parametrize(
    ("requested", "environment", "netrc", "mode"),
    [
        (None, {}, None, "offline"),
        (None, {"WANDB_API_KEY": ""}, None, "offline"),
        (None, {"WANDB_API_KEY": 40 * "a"}, None, "online"),
        (None, {"WANDB_IDENTITY_TOKEN_FILE": "token"}, None, "online"),
        (None, {}, LOGIN.format("api.wandb.ai"), "online"),
        (None, {}, LOGIN.format("github.com"), "offline"),
        (None, {}, f"default login user password {40 * 'a'}\n", "offline"),
        (None, {}, "machine api.wandb.ai login user password\n", "offline"),
        (None, {"WANDB_BASE_URL": "https://wandb.here:8080"}, LOGIN.format("wandb.here:8080"), "online"),
        (None, {"WANDB_BASE_URL": "https://wandb.here"}, LOGIN.format("api.wandb.ai"), "offline"),
        (None, {"NETRC": "/nowhere"}, LOGIN.format("api.wandb.ai"), "offline"),
        (None, {"WANDB_MODE": "offline", "WANDB_API_KEY": 40 * "a"}, None, "offline"),
        (None, {"WANDB_MODE": "online"}, None, "online"),
        (None, {"WANDB_MODE": "dryrun"}, None, "offline"),
        (None, {"WANDB_MODE": "disabled"}, None, "disabled"),
        ("disabled", {"WANDB_MODE": "online"}, None, "disabled"),
        ("online", {"WANDB_MODE": "offline"}, None, "online"),
    ],
)
def test_the_mode_is_the_one_asked_for_or_else_online_with_a_key_and_offline_without(
    tmp_path: Path, requested: str | None, environment: dict[str, str], netrc: str | None, mode: str
) -> None:
    if netrc:
        (tmp_path / ".netrc").write_text(netrc)
    assert resolve_mode(requested, {"HOME": str(tmp_path)} | environment) == mode
