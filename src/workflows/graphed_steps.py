"""Training steps as CUDA graphs: a GPU that does not wait for Python.

A small network's step is some hundred kernels of a few microseconds each. Launching them one by one from Python takes
longer than computing them. Captured once, they are launched together.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from src.errors import in_a_line

log = logging.getLogger(__name__)

Batch = tuple[Tensor, ...]
Pass = Callable[[Batch], Tensor]
Capture = Callable[[Pass, Batch], Pass]

#: Ordinary steps before the capture. The first ones differ: a quantizer's codes start from data, libraries choose
#: their algorithms.
ORDINARY_STEPS = 3


class GraphedSteps(Callback):
    """Runs forward and backward passes of a training on one GPU as a CUDA graph, batch after batch of one size.

    Only for modules that say ``graphable = True``: their training step launches the same kernels for each batch, waits
    for none of them, and takes what changes from tensors that stay where they are. Everything else, the optimizer
    among it, is as without. A batch of another size, such as an epoch's last one, is an ordinary step.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if can_be_graphed(trainer, pl_module):
            attach(pl_module, _CapturedPass)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        detach(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        detach(pl_module)


def can_be_graphed(trainer: Trainer, module: LightningModule) -> bool:
    """Whether :class:`GraphedSteps` does anything for ``module``."""
    return (
        vars(type(module)).get("graphable", False)  # of this very class: a subclass may compute something else
        and module.device.type == "cuda"
        and trainer.world_size == 1
        and trainer.accumulate_grad_batches == 1
        and trainer.precision in ("32-true", "bf16-mixed")  # 16-mixed scales its gradients
    )


class _CapturedPass:
    """A pass (forward and backward of a batch) as a CUDA graph. Gradients and what it returns stay in place."""

    def __init__(self, compute: Pass, batch: Batch) -> None:
        self._batch = tuple(tensor.clone() for tensor in batch)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = compute(self._batch)

    def __call__(self, batch: Batch) -> Tensor:
        for static, tensor in zip(self._batch, batch, strict=True):
            static.copy_(tensor)
        self._graph.replay()
        return self._loss


class _Step:
    """In the place of a module's ``training_step`` and ``backward``.

    Args:
        capture: makes, from a function of a batch and a first batch, one that repeats what it did with other batches.
    """

    def __init__(self, module: LightningModule, capture: Capture) -> None:
        self.module, self.capture = module, capture
        self.ordinary_step: Callable[[Batch, int], Tensor] = module.training_step  # type: ignore[assignment]
        self.logged: list[tuple[dict[str, Tensor], dict[str, Any]]] = []
        self.steps, self.replayed, self.refused = 0, False, False
        self.captured: Pass | None = None
        self.gradients: list[tuple[Tensor, Tensor | None]] = []
        self.shapes: tuple[torch.Size, ...] | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        shapes = tuple(tensor.shape for tensor in batch)
        self.shapes, self.steps = self.shapes or shapes, self.steps + 1
        usual = shapes == self.shapes and self.steps > ORDINARY_STEPS
        if usual and self.captured is None and not self.refused:
            self._try_to_capture(batch)
        self.replayed = usual and self.captured is not None
        if not self.replayed or self.captured is None:
            return self.ordinary_step(batch, batch_idx)
        loss = self.captured(batch)
        for values, options in self.logged:
            if options.get("on_epoch") or self._is_shown():
                self.module.log_dict(values, **options)
        return loss

    def _is_shown(self) -> bool:
        """Whether anybody sees what is logged at this step. Lightning takes longer to note a number than a GPU to
        compute it."""
        trainer = self.module.trainer
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return trainer.is_last_batch or (trainer.global_step + 1) % every == 0

    def _try_to_capture(self, batch: Batch) -> None:
        self.module.zero_grad(set_to_none=True)  # so that their memory belongs to what is captured
        try:
            self.captured = self.capture(self._pass, batch)
            self.gradients = [(parameter, parameter.grad) for parameter in self.module.parameters()]
        except Exception as error:
            log.warning(
                "no CUDA graph of this training step, its kernels are launched one by one: %s", in_a_line(error)
            )
            self.refused = True
            self.module.zero_grad(set_to_none=True)

    def _pass(self, batch: Batch) -> Tensor:
        """Forward and backward of a batch; keeps what is logged, to be logged again after each replay."""
        self.logged = []
        self.module.log = self._keep_one  # type: ignore[method-assign,assignment]
        self.module.log_dict = self._keep  # type: ignore[method-assign,assignment]
        try:
            loss = self.ordinary_step(batch, 0)
        finally:
            del self.module.log, self.module.log_dict
        with torch.autocast(loss.device.type, enabled=False):  # Lightning has it on here, and off in backward()
            loss.backward()
        return loss.detach()

    def _keep(self, values: Mapping[str, Tensor], **options: Any) -> None:
        self.logged.append(({name: value.detach() for name, value in values.items()}, options))

    def _keep_one(self, name: str, value: Tensor, **options: Any) -> None:
        self._keep({name: value}, **options)

    def backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        if not self.replayed:
            loss.backward(*arguments, **options)
            return
        # A replay wrote them where the captured pass put them. Lightning has let go of them since, and may have before.
        for parameter, gradient in self.gradients:
            parameter.grad = gradient


REPLACED = ("training_step", "backward")


def attach(module: LightningModule, capture: Capture) -> None:
    """Have ``module`` take its training steps by passes that ``capture`` makes; see :class:`_Step`."""
    step = _Step(module, capture)
    for name in REPLACED:
        setattr(module, name, getattr(step, name))


def detach(module: LightningModule) -> None:
    """Undo :func:`attach`."""
    for name in REPLACED:
        module.__dict__.pop(name, None)
