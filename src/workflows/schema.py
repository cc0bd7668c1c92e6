"""The values of each command: name, type, range, unit and a sentence for each. ``--help`` shows these sentences.

It is written in pydantic: OmegaConf's structured configurations know types, but neither ranges nor units.
:mod:`src.workflows.settings` holds a configuration against it. Components, such as an attack, check their own
arguments.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Significant digits of an eps or noise: 0.1 · 3 and 0.3 are one number, and float32 does not tell more apart.
DIGITS = 12

FRACTION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def pixel_units(value: Any) -> Any:
    """A number, or a fraction such as ``"8/255"``, as a float of :data:`DIGITS` digits; anything else as it is."""
    if isinstance(value, str) and (match := FRACTION.fullmatch(value)) and float(match[2]):
        value = float(match[1]) / float(match[2])
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _in(unit: str) -> dict[str, Any]:
    """What a number counts; it stands in error messages."""
    return {"unit": unit}


PIXELS = BeforeValidator(pixel_units)
Eps = Annotated[float, Field(ge=0, le=1, json_schema_extra=_in("L∞ budget in pixel units")), PIXELS]
Noise = Annotated[float, Field(ge=0, le=10, json_schema_extra=_in("σ in pixel units")), PIXELS]
Count = Annotated[int, Field(ge=1)]
Samples = Annotated[int, Field(ge=1, json_schema_extra=_in("samples"))]


class Section(BaseModel):
    """Values of one name each; a text is never taken for a number, nor a number for a truth value."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Paths(Section):
    """Folders, relative to where the command runs."""

    outputs: str
    """everything that is written lies below it"""
    data: str
    checkpoints: str
    weights: str | None = None
    """folder or http(s) address to take missing checkpoints from"""


class Settings(Section, extra="ignore"):
    """What every command has. ``Any`` is looked at by whoever reads it; so are sections that a configuration adds."""

    paths: Paths
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """0 is the reference run; other seeds make replicates beside it"""


class Logger(Section, extra="ignore"):
    """Where numbers go."""

    tags: list[str] = []


class Attack(Section, extra="ignore"):
    """An attack, or several of which the worst case is taken."""

    name: str
    family: Literal["one-step", "iterative", "gradient-free", "transfer", "noise", "certificate", ""] = ""
    members: dict[str, Any] = {}
    survivors: bool = False


class Threat(Section, extra="ignore"):
    """What the attacker knows."""

    name: str
    knows_defense: bool
    view: dict[str, Any]


class Defense(Section, extra="ignore"):
    """A purifier, or none."""

    name: str
    uses_noise: bool
    needs_noise: bool = False
    purifier: dict[str, Any]
    bpda: bool = False
    learned: bool = False
    claim: str = ""


class PrepareSettings(Settings):
    """Values of ``src.prepare``."""

    data: Any


class DashboardSettings(Settings):
    """Values of ``src.dashboard``."""

    logger: Logger
    name: Annotated[str, Field(min_length=1)]
    """of the workspace"""
    sweep: str
    """whose attacks, threats and figures have panels: a sweep's folder, or latest"""


class TrainSettings(Settings):
    """Values of ``src.train``."""

    data: Any
    model: Any
    trainer: Any
    """arguments of Lightning's Trainer; more are added with +trainer.…=…"""
    logger: Logger
    noise: Noise
    """σ of the Gaussian noise on the training input of a VQ-VAE, VAE or autoencoder, in pixel units"""
    budget: str
    """which of the model's training budgets: full (the report's) or demo"""
    resume: bool
    """continue the interrupted run of this checkpoint"""
    overwrite: bool | Literal["different"]
    """false: keep another training's checkpoint in replaced/; different: do not; true: train even the same again"""
    cuda_graphs: bool
    """a training step on a GPU as one CUDA graph, where the model allows it; false: kernel by kernel"""


class Iterative(Section):
    """Arguments of I-FGSM and MI-FGSM alike."""

    steps: Any  # checked by the attack
    """gradient steps"""
    rel_step: Annotated[float, Field(gt=0, json_schema_extra=_in("step size / eps"))] | None
    """step size / eps; null = 1/steps"""
    refresh_gradient: bool
    """false: every step follows the gradient at the clean image, as in the report"""


class ProtocolSettings(Section):
    """How outcomes are counted."""

    name: str
    clean_errors_count: bool
    """true: images that the bare classifier gets wrong count as wrong everywhere"""


class Checks(Section):
    """An attacker who knows the defense is tried once more, for signs that the attack was at fault."""

    images: Annotated[int, Field(ge=0)]
    """on the first N images of the cell; 0 = not at all"""
    eps: Eps
    """a budget at which nothing should be left"""


class Purification(Settings):
    """How a defense purifies."""

    noise: Noise
    """which VQ-VAE, VAE or autoencoder: σ of its training noise, in pixel units"""
    inference_noise: Noise
    """σ of the noise that the purifier adds to its input, in pixel units"""
    clip_output: bool
    """clip what the purifier returns to [0, 1]"""
    purify_precision: Literal["float32", "bfloat16"]
    """of its convolutions: float32, or bfloat16, which is faster where the processor has it"""


class SweepSettings(Purification):
    """Values of ``src.sweep``."""

    data: Any
    attack: Attack
    defense: Defense
    threat: Threat
    trainer: Any
    logger: Logger
    eps: Eps
    """L∞ budget in pixel units, 0 to 1; 8/255 is understood"""
    split: Literal["test", "val"]
    """whose images: test to report on, val to choose by; neither is trained on"""
    limit: Count | None
    """evaluate on the first N images of the split; null = all"""
    batch_size: Count | None
    """images a batch; null = chosen by device"""
    eot_samples: Count
    """answers of a random classifier or defense averaged for a gradient; a steady one is asked once"""
    verdict: Literal["single", "worst_of_n", "majority", "frozen"]
    """of a random defense: one answer, the worst or the majority of several, or the same random numbers each time"""
    verdict_samples: Count
    """answers to each image under verdict=worst_of_n and majority"""
    attack_precision: Literal["auto", "float32", "bfloat16"]
    """of an attack's gradients; auto = bfloat16 where it is faster"""
    surrogate: Literal["identity", "smooth"]
    """threat=adaptive: smooth = a stand-in for what has no gradient"""
    compare_published: bool
    """show the report's numbers beside ours"""
    iterative: Iterative
    protocol: ProtocolSettings
    checks: Checks
    classifier: Any
    """another: classifier=cifar10_resnet18 (pre-trained), package.module:factory (x -> logits), some/file.ckpt"""


class PlaySettings(SweepSettings):
    """Values of ``src.play``."""

    verdict: Literal["single", "frozen"]
    """of a random defense: one answer, or the same random numbers each time"""
    host: str
    """0.0.0.0 lets other machines in"""
    port: Annotated[int, Field(ge=0, le=65535)]
    """0 = any that is free"""
    noises: list[Noise] | None
    """which VQ-VAEs to offer, such as [0,0.5]; null = all that there are"""
    patience: Annotated[float, Field(gt=0, json_schema_extra=_in("seconds"))]
    """seconds after which an attack is given up"""
    thumbnails: Count
    """test images to pick from at a glance; all others by their number"""


class CertifySettings(Settings):
    """Values of ``src.certify``."""

    data: Any
    model: Any
    trainer: Any
    logger: Logger
    noise: Noise
    """which VQ-VAE: σ of its training noise"""
    sigma: Annotated[
        float,
        Field(gt=0, le=10, json_schema_extra=_in("σ of the smoothing in pixel units; noise unless given")),
        PIXELS,
    ]
    """σ of the smoothing, in pixel units; noise unless given"""
    denoise: bool
    """false: certify the bare classifier at the same sigma"""
    split: Literal["test", "val"]
    """whose images: test to report on, val to choose by; neither is trained on"""
    images: Count | None
    """how many of them; null = all that skip leaves"""
    skip: Count | None
    """every k-th image; null = spread over the whole split"""
    n0: Samples
    """noisy samples that choose an image's class"""
    n: Samples
    """noisy samples that bound its probability"""
    alpha: Annotated[float, Field(gt=0, lt=1, json_schema_extra=_in("a probability"))]
    """probability that an image's certificate is wrong"""
    batch_size: Count | None
    """samples a batch; null = chosen by device"""
    precision: Literal["float32", "bfloat16"]
    """that the networks compute in; bfloat16: several times faster on a GPU or a CPU with AMX"""
    budget: str
    """only read by the model's configuration"""
    denoiser: Any
    """the component before the classifier"""
    classifier: Any
    """another: classifier=cifar10_resnet18 (pre-trained), package.module:factory (x -> logits), some/file.ckpt"""

    @model_validator(mode="after")
    def _enough_samples(self) -> "CertifySettings":
        if self.n < self.n0:
            raise ValueError(f"n={self.n} is too small: at least n0={self.n0}")
        return self


class ExportSettings(Purification):
    """Values of ``src.export``."""

    data: Any
    defense: Defense
    format: Literal["onnx", "torch_export"]
    """onnx, or torch_export for torch.export.load"""
    part: Literal["both", "purifier", "classifier"]
    """both, purifier or classifier"""
    output: str | None
    """the file; null = outputs/exported/<data>-<what>.onnx or .pt2"""
    overwrite: bool
    """true: a file of this name is replaced"""
    classifier: Any
    """another: classifier=cifar10_resnet18 (pre-trained), package.module:factory, some/file.ckpt"""


class PurifySettings(Purification):
    """Values of ``src.purify``."""

    data: Any
    defense: Defense
    input: str
    """the folder of images: PNG, JPEG, WebP, BMP, in folders of folders"""
    output: str
    """where the purified images go, as PNG in folders of the same names"""
    overwrite: bool
    """true: purified images of the same names are replaced"""


class PackSettings(Settings):
    """Values of ``src.pack``."""

    networks: list[str] | None
    """which, such as [mnist/classifier]; null = all in paths.checkpoints"""
    output: str | None
    """the folder; null = outputs/weights"""


class ReportSettings(Settings):
    """Values of ``src.report``."""

    logger: Logger
    sweep: str
    """a sweep's folder, or latest"""
    compare_published: bool | None
    """show the report's numbers beside ours; null = as the sweep was run"""


#: By name of its configuration, what a command takes.
SCHEMAS: dict[str, type[Settings]] = {
    "prepare": PrepareSettings,
    "train": TrainSettings,
    "sweep": SweepSettings,
    "certify": CertifySettings,
    "report": ReportSettings,
    "dashboard": DashboardSettings,
    "play": PlaySettings,
    "export": ExportSettings,
    "purify": PurifySettings,
    "pack": PackSettings,
}


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field's type stands for; None for a plain value or a component."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
