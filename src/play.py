"""``python -m src.play``: a local page to attack, purify and classify single images on."""

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run
from src.workflows.schema import PlaySettings


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="play")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job(config, PlaySettings):
        from src.playground.server import play

        play(config)


if __name__ == "__main__":
    run(main)
