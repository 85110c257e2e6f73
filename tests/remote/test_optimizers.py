"""Every optimizer and scheduler of torch, on parameters that move: weights as plain torch has them, in plain torch's own words."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as schedules

import syftlite as sy
from syftlite.errors import OperatorNotReviewedError

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}),
    "SGD nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "Adam": ("Adam", {"lr": 0.05}),
    "Adam amsgrad": ("Adam", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1}),
    "Adam foreach": ("Adam", {"lr": 0.05, "foreach": True}),
    "Adam with a tensor's rate": ("Adam", {"lr": torch.tensor(0.05)}),
    "AdamW": ("AdamW", {"lr": 0.05}),
    "Adamax": ("Adamax", {"lr": 0.05}),
    "NAdam": ("NAdam", {"lr": 0.05}),
    "RAdam": ("RAdam", {"lr": 0.05}),
    "Adagrad": ("Adagrad", {"lr": 0.05, "lr_decay": 0.1}),
    "Adadelta": ("Adadelta", {"lr": 0.5}),
    "RMSprop": ("RMSprop", {"lr": 0.05, "centered": True, "momentum": 0.9}),
    "Rprop": ("Rprop", {"lr": 0.05}),
    "ASGD": ("ASGD", {"lr": 0.05, "t0": 2}),
    "Adafactor": ("Adafactor", {"lr": 0.05}),
    "Muon": ("Muon", {"lr": 0.05}),
    "LBFGS": ("LBFGS", {"lr": 0.5, "max_iter": 4, "history_size": 3}),
    "LBFGS with a line search": ("LBFGS", {"max_iter": 4, "line_search_fn": "strong_wolfe"}),
}
REFUSED = {"SparseAdam"}


def make(name: str, parameters: Any, **more: Any) -> optim.Optimizer:
    kind, options = OPTIMIZERS[name]
    found: optim.Optimizer = getattr(optim, kind)(parameters, **options, **more)
    return found


def network(bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5, bias=bias), nn.Tanh(), nn.Linear(5, 2, bias=bias))


def step(model: nn.Module, optimizer: optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    loss: torch.Tensor = optimizer.step(closure)  # type: ignore[assignment]
    return loss.detach()


def close(here: nn.Module, there: nn.Module) -> None:
    for (name, one), other in zip(here.named_parameters(), there.parameters(), strict=True):
        value = other.get_copy() if isinstance(other, sy.PointerTensor) else other
        torch.testing.assert_close(value.detach(), one.detach(), rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_every_optimizer_is_tried_or_refused() -> None:
    known = {name for name, kind in inspect.getmembers(optim, inspect.isclass) if issubclass(kind, optim.Optimizer)} - {"Optimizer"}
    assert known <= {kind for kind, _ in OPTIMIZERS.values()} | REFUSED


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_optimizer_over_two_moves(bob: sy.VirtualWorker, alice: sy.VirtualWorker, name: str) -> None:
    kind, _ = OPTIMIZERS[name]
    if not hasattr(optim, kind):
        pytest.skip(f"this torch has no {kind}")
    here = network(bias=kind != "Muon")  # Muon is for matrices alone
    start, x, y = copy.deepcopy(here), torch.randn(6, 3), torch.randn(6, 2)
    there = copy.deepcopy(here).send(alice)
    plain, moving = make(name, here.parameters()), make(name, there.parameters())
    for worker in (alice, bob, alice):
        there.move(worker)
        data, target = x.send(worker), y.send(worker)
        for _ in range(3):
            loss = step(here, plain, x, y)
            torch.testing.assert_close(step(there, moving, data, target).get(), loss, rtol=1e-5, atol=1e-6)
    close(here, there)
    assert any((p - q).abs().max() > 1e-3 for p, q in zip(start.parameters(), here.parameters(), strict=True)), "nothing was learned"
    close(here, there.get())
    step(here, plain, x, y), step(there, moving, x, y)
    close(here, there)


@pytest.mark.parametrize("name", ["Adam", "LBFGS"])
def test_state_leaves_nothing_behind(bob: sy.VirtualWorker, alice: sy.VirtualWorker, name: str) -> None:
    model = network().send(bob)
    optimizer = make(name, model.parameters())
    step(model, optimizer, torch.randn(6, 3).send(bob), torch.randn(6, 2).send(bob))
    model.move(alice)
    step(model, optimizer, torch.randn(6, 3).send(alice), torch.randn(6, 2).send(alice))
    assert bob.objects_count() == 0


@pytest.mark.parametrize("kind", ["Adam", "SGD"])
def test_fused_kernels_are_refused_by_name(bob: sy.VirtualWorker, kind: str) -> None:
    model = network().send(bob)
    optimizer = getattr(optim, kind)(model.parameters(), lr=0.1, fused=True)
    with pytest.raises(OperatorNotReviewedError, match="_fused_"):
        step(model, optimizer, torch.randn(6, 3).send(bob), torch.randn(6, 2).send(bob))


def test_sparse_gradients_are_refused_by_name(bob: sy.VirtualWorker) -> None:
    table = nn.Embedding(5, 3, sparse=True).send(bob)
    with pytest.raises(OperatorNotReviewedError, match="sparse"):
        table(torch.tensor([1, 2]).send(bob)).sum().backward()


# -- state dicts


@pytest.mark.parametrize("name", ["Adam", "SGD momentum", "Adafactor", "LBFGS"])
def test_an_optimizers_state_crosses_both_ways(bob: sy.VirtualWorker, name: str) -> None:
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    here = network()
    plain = make(name, here.parameters())
    for _ in range(2):
        step(here, plain, x, y)
    there = copy.deepcopy(here).send(bob)
    remote = make(name, there.parameters())
    remote.load_state_dict(copy.deepcopy(plain.state_dict()))  # torch loads the very tensors
    for _ in range(2):
        step(here, plain, x, y), step(there, remote, x.send(bob), y.send(bob))
    close(here, there)
    back = copy.deepcopy(there).get()
    local = make(name, back.parameters())
    local.load_state_dict(copy.deepcopy(remote.state_dict()))
    step(here, plain, x, y), step(back, local, x, y)
    close(here, back)


# -- schedules

Schedule = Callable[[Any], Any]
SCHEDULES: dict[str, Schedule] = {
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: schedules.StepLR(o, 2),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: schedules.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: schedules.LinearLR(o, 0.5, total_iters=4),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 8),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 2),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.1, total_steps=10),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=0, threshold=10.0),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler([schedules.ExponentialLR(o, 0.9), schedules.StepLR(o, 2)]),
    "SequentialLR": lambda o: schedules.SequentialLR(o, [schedules.ConstantLR(o, 0.5, 2), schedules.ExponentialLR(o, 0.8)], [2]),
}


def test_every_schedule_is_tried() -> None:
    known = {n for n, k in inspect.getmembers(schedules, inspect.isclass) if issubclass(k, schedules.LRScheduler) and k.__module__ == schedules.__name__}
    assert known - {"LRScheduler", "_LRScheduler"} <= set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(alice: sy.VirtualWorker, name: str) -> None:
    here, x, y = network(), torch.randn(6, 3), torch.randn(6, 2)
    there = copy.deepcopy(here).send(alice)
    rates: list[list[float]] = []
    for model, data, target in ((here, x, y), (there, x.send(alice), y.send(alice))):
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = SCHEDULES[name](optimizer)
        rates.append([])
        for _ in range(5):
            loss = step(model, optimizer, data, target)
            schedule.step(loss) if name == "ReduceLROnPlateau" else schedule.step()  # the pointer itself: the rate asks for its value
            rates[-1].append(optimizer.param_groups[0]["lr"])
    assert rates[0] == rates[1] and len(set(rates[0])) > 1
    close(here, there)


def test_a_scheduled_optimizer_survives_a_move(bob: sy.VirtualWorker, alice: sy.VirtualWorker) -> None:
    here, x, y = network(), torch.randn(6, 3), torch.randn(6, 2)
    there = copy.deepcopy(here).send(bob)
    plain, moving = optim.AdamW(here.parameters(), lr=0.1), optim.AdamW(there.parameters(), lr=0.1)
    ours, theirs = schedules.CosineAnnealingLR(plain, 6), schedules.CosineAnnealingLR(moving, 6)
    for worker in (bob, alice, bob):
        there.move(worker)
        for _ in range(2):
            step(here, plain, x, y), step(there, moving, x.send(worker), y.send(worker))
            ours.step(), theirs.step()
    close(here, there)


def test_an_average_of_weights(alice: sy.VirtualWorker) -> None:
    here, x, y = network(), torch.randn(6, 3), torch.randn(6, 2)
    averages = []
    for model, place in ((here, None), (copy.deepcopy(here).send(alice), alice)):
        data, target = (x, y) if place is None else (x.send(place), y.send(place))
        average = optim.swa_utils.AveragedModel(model)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            step(model, optimizer, data, target)
            average.update_parameters(model)
        averages.append(average)
    close(*averages)


# -- half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(alice: sy.VirtualWorker, dtype: torch.dtype) -> None:
    here = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3), nn.LayerNorm(3))
    there, x, y = copy.deepcopy(here).send(alice), torch.randn(5, 1, 6, 6), torch.randint(0, 3, (5,))
    outs = []
    for model, data, target in ((here, x, y), (there, x.send(alice), y.send(alice))):
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype):
                out = model[:4](data)
                loss = nn.functional.cross_entropy(model(data), target)
            assert out.dtype is dtype and loss.dtype is torch.float32
            loss.backward()
            optimizer.step()
        outs.append(out)
    close(here, there)
    assert torch.equal(outs[0], outs[1].get())


def test_a_scaled_loss(alice: sy.VirtualWorker) -> None:
    here, x, y = network(), torch.randn(6, 3), torch.randn(6, 2)
    scales = []
    for model, data, target in ((here, x, y), (there := copy.deepcopy(here).send(alice), x.send(alice), y.send(alice))):
        optimizer, scaler = optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        for infinite in (False, True, False, False):
            optimizer.zero_grad()
            loss = (model(data) - target).square().mean()
            scaler.scale(loss * float("inf") if infinite else loss).backward()
            scaler.step(optimizer)
            scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [8.0, 8.0]
    close(here, there)
