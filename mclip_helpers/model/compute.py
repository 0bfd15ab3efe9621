"""What the numbers are computed on, and in which precision: chosen by what the machine has.

Parameters, adapters and the loss stay in fp32. Where a GPU is fast in half precision, the matrix
products and convolutions of a training step are done in it (*autocast*).
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

WORDS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
MAX_WORKERS = 4


class OutOfMemory(RuntimeError):
    """The memory is full. The step was not taken; what was learned before it is in the weights."""


@dataclass(frozen=True)
class Compute:
    """A device, the precision of a training step on it, and how many processes read pictures.

    `str()` says all of it in one line. `workers` is for a DataLoader; 0 means "in this process".
    """

    device: torch.device
    precision: torch.dtype
    workers: int
    name: str

    def __str__(self) -> str:
        how = WORDS[self.precision]
        if self.precision != torch.float32:
            how += " autocast"
            how += " with a gradient scaler" if self.precision == torch.float16 else ""
            how += ", adapters and loss in fp32"
        read = f"{self.workers} loader workers" if self.workers else "no loader workers"
        return f"{self.name}: {how}, {read}"

    def autocast(self) -> torch.autocast:
        """A context in which matrix products and convolutions run in `precision`."""
        half = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision if half else None, enabled=half)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler: needed in fp16, whose smallest numbers gradients fall below.

        In the other precisions it passes everything on unchanged. It begins lower than PyTorch's
        own 2¹⁶, at which nano's first gradient overflows, so that the first step would be lost.
        """
        half = self.precision == torch.float16
        return torch.amp.GradScaler(self.device.type, init_scale=2.0**12, enabled=half)

    @property
    def free_memory(self) -> int:
        """Bytes that are free on the device now; on MPS, those that it recommends to use."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        if self.device.type == "mps":
            return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return psutil.virtual_memory().available

    @contextmanager
    def memory_advice(self, batch_size: int) -> Iterator[None]:
        """Where the block runs out of memory: free what it held, and raise OutOfMemory with advice.

        The weights keep what every step before this one has taught them.
        """
        try:
            yield
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            # What the failed step still holds would fill the memory for the next try, too.
            traceback.clear_frames(error.__traceback__)
            said = str(error).splitlines()[0]
        else:
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(
            f"the memory of {self.name} does not hold a step with batch_size={batch_size}. Nothing "
            f"is lost: the model is as the last whole step left it, so save it or train on. Take "
            f"batch_size={max(2, batch_size // 2)}; or targets='default', which keep far less than "
            f"'image' or 'all' (notebook 04 shows why); or delete other models and restart the "
            f"kernel. It said: {said}"
        ) from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it; MPS and the CPU only say so."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in said for words in ("out of memory", "can't allocate memory")
    )


def choose_compute(device: str | torch.device | None = None) -> Compute:
    """The best that this machine has, or what there is to say of `device`.

    CUDA before Apple's MPS before the CPU. On CUDA bf16 from compute capability 8 on, otherwise
    fp16 with a gradient scaler: older GPUs only emulate bf16, though PyTorch calls it supported.
    """
    device = torch.device(device) if device is not None else _best_device()
    cores = usable_cores()
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        precision = torch.bfloat16 if major >= 8 else torch.float16
        gigabytes = torch.cuda.get_device_properties(device).total_memory / 2**30
        name = torch.cuda.get_device_name(device)
        name = f"{name} (compute capability {major}.{minor}, {gigabytes:.0f} GB)"
        return Compute(device, precision, min(cores, MAX_WORKERS), name)
    # Without CUDA the model itself needs the cores, and on a Mac each worker starts slowly.
    name = "Apple's GPU (MPS)" if device.type == "mps" else f"CPU ({cores} cores)"
    return Compute(device, torch.float32, 0, name)


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable_cores() -> int:
    """Those that this process may use: a container or a batch system may have lent only some."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1
