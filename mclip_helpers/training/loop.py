"""The training loop of notebook 05, for scripts: the same steps, with resuming and an early no."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from ..data.pairs import PictureDataset, loader, set_epoch
from ..evaluation import evaluate
from ..lora import lora_layers, tensor_bytes
from ..loss import NotFiniteError, contrastive_loss
from ..model.clip import Clip
from ..model.compute import OutOfMemory

MAX_LOG_SCALE = math.log(100)  # CLIP's own bound on logit_scale


class TrainingDiverged(RuntimeError):
    """The loss or its gradient stopped being a number. The step was not taken."""


@dataclass
class History:
    """What a run reported: a record a step (loss, lr), and one an epoch (loss, R@1 of each set)."""

    steps: list[dict] = field(default_factory=list)
    epochs: list[dict] = field(default_factory=list)

    def plot(self):
        """Loss over steps beside R@1 over epochs, as a picture."""
        from .. import draw

        return draw.history(self)

    def _repr_html_(self) -> str:
        from .. import draw

        return draw.epoch_table(self)._repr_html_()


def budget(full: int | None, short: int = 1) -> int | None:
    """`full`; or `short` where the environment sets MCLIP_SHORT, as the tests of notebooks do.

    None stands for no limit.
    """
    return short if os.environ.get("MCLIP_SHORT") else full


def warmup_cosine(step: int, total: int, warmup: float = 0.1) -> float:
    """The factor on the learning rate: up from 0 over the first `warmup` share, then a cosine to 0.

    `step` counts from 0; the first step has a factor above 0.
    """
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name. ValueError if there is none."""
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("no parameter requires a gradient; call inject_lora on the model first")
    return found


def train(
    clip: Clip,
    dataset: PictureDataset,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    warmup: float = 0.1,
    seed: int = 0,
    augment: Callable[[Image.Image], Image.Image] | None = None,
    train_logit_scale: bool = False,
    evaluate_on: Mapping[str, PictureDataset] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train whatever of `clip.model` requires a gradient (after `inject_lora`: the adapters).

    AdamW with warm-up and a cosine over all steps. `evaluate_on`: datasets by name; R@1 from
    picture to text is noted after each epoch. `train_logit_scale` trains the temperature too,
    with logit_scale kept at most 100.

    `checkpoint`: a file to which everything is saved after each epoch, at once or not at all. If it
    exists, the run goes on from there and ends with the same bits as one that never stopped; the
    random state kept is torch's and Python's. ValueError if it is of a run with other settings,
    pictures, captions, adapters or base (`augment` and `evaluate_on` can't be compared).

    Device, precision and loader workers are those of `clip.compute`. In fp16 a step whose scaled
    gradients overflow is left out, and the scale halved, as its gradient scaler does.

    Raises TrainingDiverged at the first loss or gradient that is not a number, and OutOfMemory
    where a step does not fit, with what to change; that step is not taken.
    """
    model, compute = clip.model, clip.compute
    model.logit_scale.requires_grad_(train_logit_scale)
    parameters = trainable_parameters(model)
    torch.manual_seed(seed)
    random.seed(seed)
    batches = loader(
        dataset,
        clip,
        batch_size,
        shuffle=True,
        seed=seed,
        augment=augment,
        workers=compute.workers,
    )
    total = sum(_batches_in(batches, epoch) for epoch in range(epochs))
    optimizer = torch.optim.AdamW(parameters.values(), lr=lr, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, total, warmup)
    )
    scaler = compute.scaler()
    history, first = History(), 0
    settings = {
        "model": getattr(model, "name_or_path", "unnamed"),
        "pairs": len(dataset),
        "pictures and captions": _digest(
            f"{p.digest} {p.captions}".encode() for p in dataset.pairs
        ),
        "trained tensors": len(parameters),
        "trained numbers": sum(p.numel() for p in parameters.values()),
        "names of trained tensors": _digest(name.encode() for name in parameters),
        "adapters": _adapter_settings(model),
        "frozen weights": _digest(
            tensor_bytes(p) for p in model.parameters() if not p.requires_grad
        ),
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "seed": seed,
        "train_logit_scale": train_logit_scale,
    }
    if checkpoint is not None and Path(checkpoint).exists():
        history, first = _resume(Path(checkpoint), model, optimizer, scheduler, scaler, settings)

    for epoch in range(first, epochs):
        set_epoch(batches, epoch)
        model.train()
        begun, losses = time.perf_counter(), []
        bar = tqdm(
            batches,
            desc=f"epoch {epoch + 1}/{epochs}",
            total=len(batches),
            file=sys.stdout,
            disable=not progress,
        )
        for images, tokens in bar:
            optimizer.zero_grad()
            try:
                with compute.memory_advice(batch_size):
                    loss = _step(clip, images, tokens, parameters, optimizer, scaler)
            except NotFiniteError as error:
                model.eval()
                raise TrainingDiverged(_diverged(error, epoch, len(losses), scheduler)) from error
            except OutOfMemory:
                optimizer.zero_grad()
                model.eval()
                raise
            if train_logit_scale:
                with torch.no_grad():
                    model.logit_scale.clamp_(0, MAX_LOG_SCALE)
            history.steps.append({"loss": loss, "lr": scheduler.get_last_lr()[0]})
            scheduler.step()
            losses.append(loss)
            speed = batch_size * len(losses) / (time.perf_counter() - begun)
            bar.set_postfix_str(f"loss {loss:.3f}, {speed:.0f} pairs/s")
        model.eval()
        record = {"epoch": epoch + 1, "loss": sum(losses) / len(losses)}
        for name, held_out in (evaluate_on or {}).items():
            record[name] = evaluate(clip, held_out).image_to_text[1]
        history.epochs.append(record)
        if checkpoint is not None:
            _save(Path(checkpoint), epoch + 1, model, optimizer, scaler, history, settings)
    return history


def _step(
    clip: Clip,
    images: torch.Tensor,
    tokens: torch.Tensor,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> float:
    """One step of training; returns the loss. NotFiniteError if it, or a gradient, is no number."""
    model = clip.model
    with clip.compute.autocast():
        image_features = model.encode_image(images.to(clip.device))
        text_features = model.encode_text(tokens.to(clip.device))
    loss = contrastive_loss(image_features.float(), text_features.float(), model.logit_scale.exp())
    scaler.scale(loss).backward()
    if scaler.is_enabled():
        scaler.unscale_(optimizer)
        if scaler.get_scale() < 1:
            raise NotFiniteError("the gradient overflows in fp16 even unscaled")
    else:
        _check_gradients(parameters)
    scaler.step(optimizer)
    scaler.update()
    return loss.item()


def _batches_in(batches, epoch: int) -> int:
    set_epoch(batches, epoch)
    return len(batches)


def _check_gradients(parameters: Mapping[str, nn.Parameter]) -> None:
    present = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    if not torch.nn.utils.get_total_norm(present.values()).isfinite():
        bad = [name for name, grad in present.items() if not grad.isfinite().all()]
        shown = bad[0] if bad else "all together (each is finite, their norm overflows)"
        raise NotFiniteError(f"the gradient is not finite in {len(bad)} parameters, first: {shown}")


def _diverged(error: NotFiniteError, epoch: int, step: int, scheduler) -> str:
    lr = scheduler.get_last_lr()[0]
    return (
        f"stopped at step {step + 1} of epoch {epoch + 1}, learning rate {lr:.2e}: {error}. This "
        f"step was not taken, and the checkpoint, if there is one, is of the last whole epoch. "
        f"Try a third of the learning rate or a longer warm-up, and look for broken pictures."
    )


# ------------------------------------------------------------------------------------- checkpoints


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\n")
    return digest.hexdigest()[:16]


def _adapter_settings(model: nn.Module) -> list[str]:
    """What the adapters' shapes don't tell."""
    found = {
        f"alpha {layer.lora_alpha[name]}, dropout {getattr(dropout, 'p', 0.0)}"
        for _, layer in lora_layers(model)
        for name, dropout in layer.lora_dropout.items()
    }
    return sorted(found)


def _state_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training can change: the trained parameters, and the buffers (batch norm's)."""
    tensors = {f"parameter/{n}": p.detach() for n, p in trainable_parameters(model).items()}
    tensors.update({f"buffer/{n}": b for n, b in model.named_buffers()})
    return tensors


def _save(
    path: Path,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    history: History,
    settings: dict,
) -> None:
    tensors = _state_tensors(model)
    for name, p in trainable_parameters(model).items():
        for key, value in optimizer.state[p].items():
            tensors[f"optimizer/{key}/{name}"] = value
    tensors["random/torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    notes = {
        "epoch": epoch,
        "settings": settings,
        "scaler": scaler.state_dict(),
        "history": asdict(history),
        "random": random.getstate(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(tensors, temporary, metadata={"notes": json.dumps(notes)})
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _resume(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    scaler: torch.amp.GradScaler,
    settings: dict,
) -> tuple[History, int]:
    """Put everything back as `_save` found it; returns the history and the epochs done."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads(file.metadata()["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a checkpoint of train() ({error!r})") from error
    differing = [k for k in settings if settings[k] != notes["settings"].get(k)]
    if differing:
        raise ValueError(
            f"{path} is of another run: "
            + "; ".join(f"{k} was {notes['settings'].get(k)}, now {settings[k]}" for k in differing)
            + ". Take another checkpoint file, or delete this one."
        )
    with torch.no_grad():
        for name, tensor in _state_tensors(model).items():
            tensor.copy_(tensors[name])
    for name, p in trainable_parameters(model).items():
        keys = [k for k in tensors if k.startswith("optimizer/") and k.endswith(f"/{name}")]
        # AdamW keeps its step count on the CPU and its averages beside the parameter.
        optimizer.state[p] = {
            k.split("/")[1]: tensors[k] if k.startswith("optimizer/step/") else tensors[k].to(p)
            for k in keys
        }
    history = History(**notes["history"])
    scheduler.last_epoch = len(history.steps)
    for group, base in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
        group["lr"] = base * scheduler.lr_lambdas[0](scheduler.last_epoch)
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
    if scaler.is_enabled() and notes["scaler"]:  # none if the run began in another precision
        scaler.load_state_dict(notes["scaler"])
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    version, state, gauss = notes["random"]
    random.setstate((version, tuple(state), gauss))
    return history, notes["epoch"]
