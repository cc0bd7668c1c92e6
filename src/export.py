"""``python -m src.export defense=vqvae noise=0.25``: purifier and classifier as one file, for others to run."""

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run
from src.workflows.schema import ExportSettings


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="export")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job(config, ExportSettings):
        from src.workflows.exporting import export_from_config

        export_from_config(config)


if __name__ == "__main__":
    run(main)
