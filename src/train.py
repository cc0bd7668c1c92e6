"""``python -m src.train model=vqvae noise=0.75``: train a model, leave its checkpoint under outputs/checkpoints."""

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run
from src.workflows.schema import TrainSettings


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="train")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job(config, TrainSettings):
        from src.workflows.configured import train_from_config

        train_from_config(config)


if __name__ == "__main__":
    run(main)
