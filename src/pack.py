"""``python -m src.pack``: trained networks as a folder for others, who then need not train."""

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="pack")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job():
        from src.workflows.packing import pack_from_config

        pack_from_config(config)


if __name__ == "__main__":
    run(main)
