import pytest
import torch

from src.precision import computing_in, native_bfloat16


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
