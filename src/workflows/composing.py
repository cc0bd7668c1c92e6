"""Composing the configurations of a sweep's jobs."""

import pickle
import uuid
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

#: What this process has composed, by sweep and choice, pickled: to read it back is six times as fast as
#: ``copy.deepcopy``. Here, because a worker gets a new composer with every job.
_composed: dict[tuple[str, tuple[str, ...]], bytes] = {}


def parsed(overrides: Iterable[str]) -> list[Override]:
    """Hydra's reading of a command line, each override read once: the jobs of a sweep have most of them in common."""
    return [_parsed(override) for override in overrides]


@lru_cache(maxsize=4096)
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_overrides([override])[0]


def choice_and_values(overrides: Iterable[str], config: DictConfig) -> tuple[tuple[str, ...], list[str]]:
    """A job's overrides in two parts: those that choose a component or set something within one, and those that set a
    top-level number or text."""

    def is_plain(override: str) -> bool:
        name = override.partition("=")[0]
        return name in config and not OmegaConf.is_config(config[name])

    overrides = list(overrides)
    return tuple(o for o in overrides if not is_plain(o)), [o for o in overrides if is_plain(o)]


class SweepComposer:
    """Hydra's config loader, but one that composes each choice of components once.

    Reading and merging the YAML files takes Hydra a tenth of a second and more for every job. Most jobs of a sweep
    differ in plain values alone, such as eps, which can be set in a copy of what was composed. The outcome is that of
    ``loader``; everything but :meth:`load_sweep_config` is ``loader``'s own.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._sweep = uuid.uuid4().hex

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # while it is unpickled there is no loader yet to ask
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __getstate__(self) -> dict[str, Any]:
        """A worker gets what this process has composed with it."""
        own = {key: config for key, config in _composed.items() if key[0] == self._sweep}
        return self.__dict__ | {"composed": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _composed.update(state.pop("composed"))
        self.__dict__.update(state)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        """The configuration of one job.

        Args:
            master_config: the sweep's own configuration.
            sweep_overrides: the job's overrides.
        """
        choice, values = choice_and_values(sweep_overrides, master_config)
        if (self._sweep, choice) not in _composed:
            _composed[self._sweep, choice] = _pickled(self._loader.load_sweep_config(master_config, list(choice)))
        config: DictConfig = pickle.loads(_composed[self._sweep, choice])
        for override in parsed(values):
            OmegaConf.update(config, override.get_key_element(), override.value())
        _record([override for override in parsed(sweep_overrides) if not override.is_hydra_override()], config)
        return config


def _pickled(config: DictConfig) -> bytes:
    """A composed configuration. Its launcher's type is forgotten: Hydra imports some plugins twice, and pickle finds no
    class of the first time."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.launcher = OmegaConf.to_container(config.hydra.launcher)
    return pickle.dumps(config)


def _record(overrides: list[Override], config: DictConfig) -> None:
    """Write down, where Hydra does, what was overridden."""
    names = config.hydra.job.config.override_dirname
    config.hydra.overrides.task = [override.input_line for override in overrides]
    config.hydra.job.override_dirname = get_overrides_dirname(
        overrides, exclude_keys=names.exclude_keys, item_sep=names.item_sep, kv_sep=names.kv_sep
    )
