"""``python -m src.report``: tables, figures, page and W&B grid of the newest sweep, from stored cells."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="report")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job():
        from src.workflows.reporting import report
        from src.workflows.schema import ReportSettings
        from src.workflows.settings import checked

        config = checked(config, ReportSettings)
        folder = None if config.sweep == "latest" else Path(config.sweep)
        report(config, folder, config.compare_published)


if __name__ == "__main__":
    run(main)
