"""``python -m src.dashboard``: a W&B workspace that shows the runs, saved there or written to a file."""

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="dashboard")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job():
        from src.workflows.dashboard import publish

        publish(config)


if __name__ == "__main__":
    run(main)
