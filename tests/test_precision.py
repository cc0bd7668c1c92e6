import pytest
import torch

from src.errors import UserError
from src.precision import check_device, computing_in, native_bfloat16


def test_dense_layers_compute_in_it_and_float32_changes_nothing():
    layer, x, cpu = torch.nn.Linear(4, 4), torch.rand(2, 4), torch.device("cpu")
    with computing_in("float32", cpu):
        assert layer(x).dtype == torch.float32
    with computing_in("bfloat16", cpu):
        assert layer(x).dtype == torch.bfloat16
        with computing_in("float32", cpu):
            assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize(("units", "has"), [("amx_bf16", True), ("avx512_bf16", True), ("avx2", False)])
def test_a_processor_is_asked_for_its_units(monkeypatch, units, has):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {units: True, "amx_fp16": False}, raising=False)
    assert native_bfloat16("cpu") == native_bfloat16("auto") == has
    assert not native_bfloat16("gpu")
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in older versions
    assert not native_bfloat16("cpu")


def test_an_apple_gpu_that_is_not_there_is_said_so(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="no Apple GPU"):
        check_device("mps", "float32")
    for accelerator in ("cpu", "auto", "gpu"):
        check_device(accelerator, "bf16-mixed")


@pytest.mark.parametrize(
    ("precision", "lacks"), [("bf16-mixed", "bfloat16"), ("bfloat16", "bfloat16"), ("16-mixed", "float16")]
)
def test_an_apple_gpu_without_these_numbers_is_refused_in_a_line(monkeypatch, precision, lacks):
    """There is no Apple GPU here: the number that cannot be made stands in for a device that lacks the type."""

    def lacking(*_, **__):
        raise TypeError("MPS does not support\nthis")

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    check_device("mps", "32-true")
    check_device("mps", "float32")
    monkeypatch.setattr(torch, "ones", lacking)
    with pytest.raises(UserError, match=f"has no torch.{lacks}") as error:
        check_device("mps", precision)
    assert "\n" not in str(error.value)
