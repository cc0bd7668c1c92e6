"""``python -m src.prepare data=mnist``: fetch, verify and convert a data set."""

import logging

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="prepare")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job():
        from src.workflows.configured import data_from_config
        from src.workflows.schema import PrepareSettings
        from src.workflows.settings import checked

        data = data_from_config(checked(config, PrepareSettings).data)
        data.prepare_data()
        data.setup()
        log.info("%s is ready in %s: %s", data.name, data.root, data)


if __name__ == "__main__":
    run(main)
