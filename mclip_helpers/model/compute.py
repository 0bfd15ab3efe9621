"""Device, precision and loader workers, chosen by what the machine has.

Parameters, adapters and the loss stay in fp32. Where a GPU is fast in half precision, the matrix
products and convolutions of a training step run in it (*autocast*).
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
MAX_WORKERS = 4


class OutOfMemory(RuntimeError):
    """The memory is full. The step was not taken; the weights are those of the step before."""


@dataclass(frozen=True)
class Compute:
    """A device, the precision of a training step on it, and the number of loader workers.

    `workers` is a DataLoader's `num_workers`: 0 means that the training process reads the pictures
    itself. `name` describes the device. `str()` gives all of it in one line.
    """

    device: torch.device
    precision: torch.dtype
    workers: int
    name: str

    def __str__(self) -> str:
        precision = PRECISIONS[self.precision]
        if self.precision != torch.float32:
            precision += " autocast"
            precision += " with a gradient scaler" if self.precision == torch.float16 else ""
            precision += ", adapters and loss in fp32"
        return f"{self.name}: {precision}, {self.workers or 'no'} loader workers"

    def autocast(self) -> torch.autocast:
        """A context in which matrix products and convolutions run in `precision`."""
        half = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision if half else None, enabled=half)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler for fp16, in which small gradients would become zero.

        In the other precisions it changes nothing. It begins at 2¹²: at PyTorch's own 2¹⁶, nano's
        first gradient overflows, and the first step would be skipped.
        """
        half = self.precision == torch.float16
        return torch.amp.GradScaler(self.device.type, init_scale=2.0**12, enabled=half)

    @property
    def free_memory(self) -> int:
        """Bytes that are free on the device now; on MPS, up to the limit that it recommends."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        if self.device.type == "mps":
            return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return psutil.virtual_memory().available

    @contextmanager
    def memory_advice(self, batch_size: int) -> Iterator[None]:
        """Turn an out-of-memory error of the block into OutOfMemory, which says what to change.

        What the failed step held is freed, so that a smaller one can be tried at once.
        """
        try:
            yield
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            # The frames of the traceback hold the failed step's activations.
            traceback.clear_frames(error.__traceback__)
            message = str(error).splitlines()[0]
        else:
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(
            f"the memory of {self.name} does not hold a step with batch_size={batch_size}. Nothing "
            f"is lost: the model is as the last whole step left it, so save it or train on. Take "
            f"chunk={max(1, batch_size // 4)} in mh.train, which takes the same batch through the "
            f"towers in parts; or batch_size={max(2, batch_size // 2)}; or targets='default', "
            f"which keep far less than 'image' or 'all' (notebook 04 shows why); or delete other "
            f"models and restart the kernel. PyTorch's message: {message}"
        ) from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA raises a class of its own; on MPS and on a CPU only PyTorch's message tells."""
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in message for words in ("out of memory", "can't allocate memory")
    )


def choose_compute(device: str | torch.device | None = None) -> Compute:
    """Precision and workers for `device`, or for the best device of this machine.

    CUDA comes before Apple's MPS, MPS before the CPU. On CUDA the precision is bf16 from compute
    capability 8 on, and fp16 below: older GPUs only emulate bf16, though PyTorch calls it
    supported. Elsewhere it is fp32. Raises ValueError for a device that this machine doesn't have.
    """
    device = _existing(device) if device is not None else _best_device()
    cores = usable_cores()
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        precision = torch.bfloat16 if major >= 8 else torch.float16
        gigabytes = torch.cuda.get_device_properties(device).total_memory / 2**30
        name = torch.cuda.get_device_name(device)
        name = f"{name} (compute capability {major}.{minor}, {gigabytes:.0f} GB)"
        return Compute(device, precision, min(cores, MAX_WORKERS), name)
    # No workers: on a CPU the model needs the cores, and on a Mac each worker starts slowly.
    name = "Apple's GPU (MPS)" if device.type == "mps" else f"CPU ({cores} cores)"
    return Compute(device, torch.float32, 0, name)


def _existing(device: str | torch.device) -> torch.device:
    """`device` as PyTorch has it. ValueError if it is none, or can't hold numbers here."""
    try:
        if not isinstance(device, str | torch.device):
            raise TypeError("it is no name of a device")
        if torch.empty(0, device=device).is_meta:
            raise ValueError("tensors there have no numbers")
    except Exception as error:  # PyTorch has a class for each way in which a device is missing
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"device is {device!r:.60}, which can't be used here ({why:.200}); leave it out for "
            f"the best one of this machine, {_best_device()}"
        ) from error
    return torch.device(device)


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable_cores() -> int:
    """The CPU cores that this process may use: in a container perhaps fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
