"""``python -m src.sweep -m attack=fgsm,ifgsm,mifgsm eps=0,0.1,0.2,0.3``: fill the accuracy grid, one cell a job."""

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run
from src.workflows.schema import SweepSettings


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="sweep")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job(config, SweepSettings):
        from src.workflows.sweeping import run_job

        run_job(config)


if __name__ == "__main__":
    run(main)
