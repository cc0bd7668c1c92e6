"""Lightning's module, as the tools that export networks need it."""

from lightning import LightningModule, Trainer


class TraceableModule(LightningModule):
    """A LightningModule that ``torch.jit.trace`` takes, alone or as a part of another module.

    The tracer looks at every attribute. Lightning's ``trainer`` raises a RuntimeError outside of a training, and the
    tracer passes over an AttributeError only.
    """

    @LightningModule.trainer.getter  # type: ignore[attr-defined, untyped-decorator]
    def trainer(self) -> Trainer:
        """The trainer of the training that runs.

        Raises:
            AttributeError: none runs.
        """
        try:
            return LightningModule.trainer.fget(self)  # type: ignore[attr-defined]
        except RuntimeError as error:
            raise AttributeError(str(error)) from error
