"""``python -m src.certify noise=0.5 model=vqvae``: L2 radii within which no perturbation changes what is predicted."""

import hydra
from omegaconf import DictConfig

from src.workflows.command import CONFIG_PATH, job, run
from src.workflows.schema import CertifySettings


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="certify")
def main(config: DictConfig) -> None:
    """Run the command, or one job of it."""
    with job(config, CertifySettings):
        from src.workflows.certifying import certify_from_config

        certify_from_config(config)


if __name__ == "__main__":
    run(main)
