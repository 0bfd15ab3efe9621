"""Device, precision and workers: chosen by what the machine has, here by one that is pretended."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch

import mclip_helpers as mh
from mclip_helpers.model import Compute, choose_compute, compute

CPU = torch.device("cpu")


def in_precision(precision: torch.dtype, workers: int = 0) -> Compute:
    """A CPU that is asked for another precision than its own."""
    return Compute(CPU, precision, workers, "a pretended device")


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    memory = SimpleNamespace(total_memory=15 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)
    # What a T4 answers, by emulation: nothing here may believe it.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)


@pytest.mark.parametrize(
    ("name", "capability", "precision", "words"),
    [
        ("Tesla P100", (6, 0), torch.float16, "fp16 autocast with a gradient scaler"),
        ("Tesla T4", (7, 5), torch.float16, "fp16 autocast with a gradient scaler"),
        ("NVIDIA A100", (8, 0), torch.bfloat16, "bf16 autocast, adapters and loss in fp32"),
        ("NVIDIA L4", (8, 9), torch.bfloat16, "bf16 autocast, adapters and loss in fp32"),
        ("NVIDIA H100", (9, 0), torch.bfloat16, "bf16 autocast, adapters and loss in fp32"),
    ],
)
def test_on_cuda_the_compute_capability_decides(
    name, capability, precision, words, monkeypatch: pytest.MonkeyPatch
):
    pretend_cuda(monkeypatch, name, capability)
    chosen = choose_compute()
    assert chosen.device.type == "cuda"
    assert chosen.precision == precision
    assert str(chosen).startswith(f"{name} (compute capability {capability[0]}.{capability[1]}")
    assert "15 GB" in str(chosen) and words in str(chosen)
    assert "\n" not in str(chosen)


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (64, 4)])
def test_on_cuda_workers_are_no_more_than_the_cores(
    cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
):
    pretend_cuda(monkeypatch, "Tesla T4", (7, 5))
    monkeypatch.setattr(compute, "usable_cores", lambda: cores)
    assert choose_compute().workers == workers
    assert f"{workers} loader workers" in str(choose_compute())


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(compute, "usable_cores", lambda: 2)
    chosen = choose_compute()
    assert (chosen.device, chosen.precision, chosen.workers) == (CPU, torch.float32, 0)
    assert str(chosen) == "CPU (2 cores): fp32, no loader workers"


def test_on_a_mac(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    chosen = choose_compute()
    assert (chosen.device.type, chosen.precision, chosen.workers) == ("mps", torch.float32, 0)
    assert str(chosen) == "Apple's GPU (MPS): fp32, no loader workers"


def test_a_device_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch):
    pretend_cuda(monkeypatch, "Tesla T4", (7, 5))
    assert choose_compute("cpu").device == CPU


@pytest.mark.parametrize(
    ("precision", "inside"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
    ],
)
def test_autocast_is_in_the_precision_and_no_parameter_changes(precision, inside):
    layer = torch.nn.Linear(3, 2)
    with in_precision(precision).autocast():
        assert layer(torch.ones(1, 3)).dtype == inside
    assert layer.weight.dtype == torch.float32
    assert layer(torch.ones(1, 3)).dtype == torch.float32


def test_only_fp16_has_a_scaler_and_nanos_first_gradient_fits_it(emoji: mh.PictureDataset, nano):
    assert not in_precision(torch.float32).scaler().is_enabled()
    assert not in_precision(torch.bfloat16).scaler().is_enabled()
    pretended = in_precision(torch.float16)
    scaler = pretended.scaler()
    lora_model = mh.inject_lora(nano.model)
    images, tokens = next(iter(mh.loader(emoji, nano, 24)))
    with pretended.autocast():
        features = nano.model.encode_image(images), nano.model.encode_text(tokens)
    loss = mh.contrastive_loss(*(f.float() for f in features), nano.model.logit_scale.exp())
    scaler.scale(loss).backward()
    gradients = [p.grad for p in mh.trainable_parameters(lora_model).values()]
    assert all(g.isfinite().all() for g in gradients)
    assert max(g.abs().max() for g in gradients) > 100  # they are scaled


def test_free_memory_is_counted_in_bytes():
    assert 2**26 < choose_compute("cpu").free_memory < 2**50


# ------------------------------------------------------------------------------------ out of memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_is_answered_with_what_to_change(error: RuntimeError):
    with pytest.raises(mh.OutOfMemory) as caught, in_precision(torch.float32).memory_advice(64):
        raise error
    message = str(caught.value)
    assert "batch_size=64" in message and "batch_size=32" in message
    assert "targets='default'" in message and "Nothing is lost" in message
    assert str(error).splitlines()[0] in message
    assert "more" not in message.rpartition("PyTorch's message:")[2]


def test_other_errors_are_none_of_its_business():
    with (
        pytest.raises(RuntimeError, match="size mismatch") as caught,
        in_precision(torch.float32).memory_advice(8),
    ):
        raise RuntimeError("size mismatch")
    assert not isinstance(caught.value, mh.OutOfMemory)


def test_what_the_failed_step_held_is_let_go():
    """Else the next, smaller try would find the memory still full."""
    held = []

    def step() -> None:
        activations = torch.ones(1000)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    try:
        with in_precision(torch.float32).memory_advice(8):
            step()
    except mh.OutOfMemory as error:
        gc.collect()
        assert error.__suppress_context__
        assert held[0]() is None
