"""Hydra parses YAML files and overrides anew for every configuration.

Here a text is parsed once in the life of a process. Files are read each time, so a test that changes one sees that.
"""

import sys
from copy import copy
from functools import cache
from pathlib import Path
from typing import IO, Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from src.workflows.command import CONFIG_PATH, PLUGINS, register_resolvers


@cache
def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=get_yaml_loader())


def _load(file: str | Path | IO[str]) -> Any:
    """What ``OmegaConf.load`` does: containers of its own, made of a text that may have been parsed before."""
    content = _parsed(Path(file).read_text(encoding="utf-8") if isinstance(file, str | Path) else file.read())
    return OmegaConf.create() if content is None else OmegaConf.create(content)


_parse_rule = OverridesParser.parse_rule


@cache
def _parsed_rule(text: str, rule: str) -> Any:
    return _parse_rule(OverridesParser.create(), text, rule)


_get_mode = Hydra.get_mode


def _mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """Hydra composes the configuration a first time to learn ``hydra.mode``, which no YAML file of ours sets."""
    if any("hydra" in override for override in overrides):
        return _get_mode(self, config_name, overrides)
    return None


def parse_once() -> None:
    """Let this process, and its forks, parse each YAML text and override once, and compose once."""
    Hydra.get_mode = _mode
    OmegaConf.load = staticmethod(_load)
    OverridesParser.parse_rule = lambda self, s, rule_name: copy(_parsed_rule(s, rule_name))


def compose_all() -> None:
    """Compose what the commands start from, so that forks have everything parsed and Hydra's plugins found."""
    register_resolvers()
    sys.path.append(PLUGINS)
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        for command in ("train", "sweep", "report", "certify"):
            compose(command, ["model=vqvae"] if command == "train" else [], return_hydra_config=True)
    GlobalHydra.instance().clear()
    sys.path.remove(PLUGINS)  # a command puts it there itself, and tells its workers
