"""``python -m src.purify in/ out/``: a folder of images through a purifier, as PNG."""

import sys

import hydra
from omegaconf import DictConfig

from src.workflows.arguments import named
from src.workflows.command import CONFIG_PATH, job, run


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="purify")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job():
        from src.workflows.purifying import purify_from_config

        purify_from_config(config)


if __name__ == "__main__":
    sys.argv[1:] = named(sys.argv[1:], ("input", "output"))
    run(main)
