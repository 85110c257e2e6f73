"""Functions of functions, hooks, clipping and vectors of parameters: on pointers as on tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import (
    functional_call,
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector, vector_to_parameters
from torch.utils.checkpoint import checkpoint

import syftlite as sy
from syftlite.errors import LocalTensorMixedError, PointerMisuseError

R = torch.randn


def fetched(value: Any) -> Any:
    if isinstance(value, sy.PointerTensor):
        return value.detach().get_copy()
    if isinstance(value, torch.Tensor):
        return value.detach()
    return [fetched(v) for v in (value.values() if isinstance(value, dict) else value)]


def close(here: Any, there: Any) -> None:
    torch.testing.assert_close(fetched(there), fetched(here), rtol=1e-4, atol=1e-5)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))


def text() -> nn.Module:
    return nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "mlp": (mlp, lambda: R(5, 4)), "cnn": (cnn, lambda: R(5, 1, 6, 6)), "text": (text, lambda: torch.randint(0, 7, (5, 3))),
}  # fmt: skip


def each_example(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **options: Any) -> dict[str, torch.Tensor]:
    """The gradient of each example's loss."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    found: dict[str, torch.Tensor] = vmap(grad(loss), in_dims=(None, 0, 0), **options)(parameters, x, y)
    return found


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}], ids=["whole", "chunks"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_each_example(bob: sy.VirtualWorker, name: str, options: dict[str, Any]) -> None:
    make, inputs = MODELS[name]
    here, x, y = make(), inputs(), torch.randint(0, 3, (5,))
    there = copy.deepcopy(here).send(bob)
    ours = each_example(here, x, y, **options)
    with bob:  # an embedding's batched gradient makes indices of its own
        theirs = each_example(there, x.send(bob), y.send(bob), **options)
    close(ours, theirs)
    assert all(isinstance(g, sy.PointerTensor) and g.shape == (5, *p.shape) for g, p in zip(theirs.values(), here.parameters(), strict=True))
    here.zero_grad()
    F.cross_entropy(here(x), y).backward()
    close([p.grad for p in here.parameters()], [g.mean(0) for g in theirs.values()])


def test_clipping_each_examples_gradient(bob: sy.VirtualWorker) -> None:
    """What differential privacy asks of a step: a bound on each example's share."""
    here, x, y = mlp(), R(5, 4), torch.randint(0, 3, (5,))
    there = copy.deepcopy(here).send(bob)
    totals = []
    for model, data, target in ((here, x, y), (there, x.send(bob), y.send(bob))):
        found = each_example(model, data, target)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in found.values()]).norm(dim=0)
        scale = (0.5 / norms).clamp(max=1.0)
        totals.append([torch.einsum("n,n...->...", scale, g) for g in found.values()])
    close(*totals)


FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "grad": lambda v: grad(lambda v: (v**3).sum())(v),
    "grad of grad": lambda v: grad(lambda v: grad(lambda v: v.sin().exp().sum())(v).sum())(v),
    "grad_and_value": lambda v: grad_and_value(lambda v: v.exp().sum())(v),
    "vmap": lambda v: vmap(lambda a: a.sin() * 2)(v),
    "vmap of dot": lambda v: vmap(torch.dot)(v.expand(4, 3), v.expand(4, 3)),
    "vmap over another dim": lambda v: vmap(lambda a: a.softmax(0), in_dims=1, out_dims=1)(v.expand(4, 3)),
    "vjp": lambda v: vjp(lambda v: v * v.sum(), v)[1](v),
    "jvp": lambda v: jvp(lambda v: v * v.sum(), (v,), (v,)),
    "jacrev": lambda v: jacrev(lambda v: v**2 * v.sum())(v),
    "jacfwd": lambda v: jacfwd(lambda v: v**2 * v.sum())(v),
    "hessian": lambda v: hessian(lambda v: (v**3).sum() + v.sin().sum().exp())(v),
    "jacrev twice": lambda v: jacrev(jacrev(lambda v: v.sin().sum()))(v),
    "functionalize": lambda v: functionalize(lambda v: v.clone().mul_(2).add_(1))(v),
    "autograd.functional.jacobian": lambda v: torch.autograd.functional.jacobian(lambda v: v**2 * v.sum(), v),
    "autograd.functional.hessian": lambda v: torch.autograd.functional.hessian(lambda v: (v**3).sum(), v),
    "one hessian an example": lambda v: vmap(hessian(lambda v: (v**3).sum()))(v.expand(2, 3)),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, where it takes derivatives forward
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_functions(bob: sy.VirtualWorker, name: str) -> None:
    v = R(3)
    there = FUNCTIONS[name](v.send(bob))
    assert isinstance(there[0] if isinstance(there, tuple) else there, sy.PointerTensor)
    close(FUNCTIONS[name](v), there)


def test_an_ensemble(bob: sy.VirtualWorker) -> None:
    here, x = [mlp() for _ in range(3)], R(5, 4)
    there = [copy.deepcopy(model).send(bob) for model in here]

    def run(models: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
        parameters, buffers = stack_module_state(models)
        out: torch.Tensor = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
        return out

    close(run(here, x), run(there, x.send(bob)))


def test_functional_call_uses_what_it_is_given(bob: sy.VirtualWorker) -> None:
    model, x = mlp().send(bob), R(5, 4).send(bob)
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert not functional_call(model, zeros, (x,)).get().any()


# -- hooks


def hooked(model: nn.Module, x: torch.Tensor) -> list[Any]:
    seen: list[Any] = []
    model[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    model[0].register_forward_hook(lambda module, inputs, out: out * 2)
    model[1].register_forward_hook(lambda module, inputs, out: seen.append((inputs[0] - out).detach()))
    model[3].register_full_backward_pre_hook(lambda module, grads: (grads[0] * 2,))
    model[3].register_full_backward_hook(lambda module, inner, outer: (inner[0] * 3,))
    model[0].weight.register_hook(lambda g: g * 0.5)
    model[0].bias.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    h = model(x)
    h.retain_grad()
    h.register_hook(lambda g: seen.append(g))
    h.square().sum().backward()
    return [h, h.grad, *[p.grad for p in model.parameters()], *seen]


def test_hooks(bob: sy.VirtualWorker) -> None:
    here, x = mlp(), R(5, 4)
    close(hooked(copy.deepcopy(here), x), hooked(copy.deepcopy(here).send(bob), x.send(bob)))


def test_hooks_stay_over_a_move(bob: sy.VirtualWorker, alice: sy.VirtualWorker) -> None:
    model, seen = mlp(), []
    model[0].register_forward_hook(lambda module, inputs, out: seen.append(out.location))
    model[0].weight.register_hook(lambda g: seen.append(g.location))
    for worker in (bob, alice):
        (model.send if model.location is None else model.move)(worker)
        model(R(5, 4).send(worker)).sum().backward()
        model.zero_grad()
    assert seen == [bob, bob, alice, alice]


def test_checkpointing(bob: sy.VirtualWorker) -> None:
    here, x = mlp(), R(5, 4)
    found = []
    for model, data in ((copy.deepcopy(here), x), (copy.deepcopy(here).send(bob), x.send(bob))):
        checkpoint(model, data, use_reentrant=False).square().sum().backward()
        found.append([p.grad for p in model.parameters()])
    close(*found)


# -- parameters together


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0, float("inf")])
def test_clipping(bob: sy.VirtualWorker, norm: float) -> None:
    here, x = mlp(), R(5, 4)
    found = []
    for model, data in ((copy.deepcopy(here), x), (copy.deepcopy(here).send(bob), x.send(bob))):
        model(data).square().sum().backward()
        clip_grad_value_(model.parameters(), 0.7)
        total = clip_grad_norm_(model.parameters(), 0.3, norm)
        found.append([total, *[p.grad for p in model.parameters()]])
    close(*found)


def test_a_norm_that_is_not_finite_is_an_error_if_asked(bob: sy.VirtualWorker) -> None:
    model = nn.Linear(2, 1).send(bob)
    model(torch.full((1, 2), float("inf")).send(bob)).sum().backward()
    with pytest.raises(RuntimeError, match="non-finite"):
        clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)


def test_parameters_as_a_vector_and_back(bob: sy.VirtualWorker) -> None:
    here, x = mlp(), R(5, 4)
    there = copy.deepcopy(here).send(bob)
    vectors = [parameters_to_vector(model.parameters()) for model in (here, there)]
    close(*vectors)
    for model, vector in zip((here, there), vectors, strict=True):
        vector_to_parameters(vector.detach() * 2, model.parameters())
    close(list(here.parameters()), list(there.parameters()))
    close(here(x), there(x.send(bob)))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (here, there)]
    for model, optimizer, data in zip((here, there), optimizers, (x, x.send(bob)), strict=True):
        model(data).square().sum().backward()
        optimizer.step()
    there.get()
    close(list(here.parameters()), list(there.parameters()))


def test_data_takes_only_what_fits(bob: sy.VirtualWorker, alice: sy.VirtualWorker) -> None:
    x = torch.zeros(2, 3).send(bob)
    for wrong in (torch.ones(2, 3), torch.ones(2, 3).send(alice), torch.ones(3, 2).send(bob), torch.ones(3, 2).send(bob).t(), torch.ones(2, 3).int().send(bob)):
        with pytest.raises(PointerMisuseError, match="same worker, of the same shape"):
            x.data = wrong
    y = torch.ones(2, 3).send(bob)
    x.data = y
    y.mul_(3)
    assert torch.equal(x.get_copy(), torch.full((2, 3), 3.0)), "they share a value, as tensors do"


def test_a_state_dict_crosses_both_ways(bob: sy.VirtualWorker) -> None:
    here, there = cnn(), cnn().send(bob)
    there.load_state_dict(here.state_dict())
    close(list(here.state_dict().values()), list(there.state_dict().values()))
    other = cnn()
    other.load_state_dict(there.state_dict())
    assert other.location is None and not any(isinstance(t, sy.PointerTensor) for t in other.state_dict().values())
    close(list(here.state_dict().values()), list(other.state_dict().values()))


ZEROS = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0], [1.0, -2.0, 3.0]])
PLACES, MASK = torch.tensor([2, 0]), torch.tensor([True, False, True])
TENSORS_OF_THEIR_OWN: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
    "prod": (lambda x: x.prod(), [R(5)]),
    "prod with zeros": (lambda x: x.prod(1), [ZEROS]),
    "cumprod with zeros": (lambda x: x.cumprod(0), [ZEROS]),
    "det": (torch.linalg.det, [R(2, 3, 3)]),
    "det of rank one": (torch.linalg.det, [torch.ones(3, 3)]),
    "index_put": (lambda x, v, i: x.index_put((i,), v), [R(3, 4), R(2, 4), PLACES]),
    "index_put by a mask": (lambda x, v, m: (x * 1).index_put_((m,), v), [R(3, 4), R(4), MASK]),
    "put": (lambda x, v, i: x.put(i, v), [R(3, 4), R(2), PLACES]),
    "eigenvectors": (lambda x: torch.linalg.eigh(x + x.mT).eigenvectors.square(), [R(3, 3)]),
    "masked_scatter": (lambda x, v, m: x.masked_scatter(m, v), [R(2, 3), R(6), MASK]),
    "layer_norm": (lambda x: F.layer_norm(x, (2,)), [R(1, 2)]),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2), [R(1, 6, 3)]),
    "diagonal_scatter": (lambda x, v: torch.diagonal_scatter(x, v, 1), [R(4, 4), R(3)]),
    "select_scatter": (lambda x, v: torch.select_scatter(x, v, 1, 2), [R(4, 4), R(4)]),
    "slice_scatter": (lambda x, v: torch.slice_scatter(x, v, 1, 0, 4, 2), [R(4, 4), R(4, 2)]),
    "conv without bias": (F.conv2d, [R(2, 3, 5, 5), R(4, 3, 2, 2)]),
    "conv_transpose without bias": (F.conv_transpose1d, [R(2, 3, 5), R(3, 4, 2)]),
}
"""Functions whose derivatives are made of zeros and ones that torch makes here, or of other operators than they are themselves."""


def derivatives(function: Callable[..., Any], *operands: torch.Tensor) -> list[torch.Tensor]:
    """The value, its gradients, and the gradients of their squares."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in operands]
    wanted = [x for x in leaves if x.requires_grad]
    value = function(*leaves)
    first = torch.autograd.grad(value.sin().sum(), wanted, create_graph=True)
    second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), wanted)
    return [value.detach(), *[g.detach() for g in first], *second]


@pytest.mark.parametrize("name", TENSORS_OF_THEIR_OWN)
def test_derivatives_with_tensors_of_their_own(bob: sy.VirtualWorker, name: str) -> None:
    function, operands = TENSORS_OF_THEIR_OWN[name]
    here = derivatives(function, *operands)
    close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-4, equal_nan=True)  # det's second at rank one, on some processors
    close(fetched(derivatives(function, *[x.send(bob) for x in operands])), here)  # type: ignore[attr-defined]
    if "mask" not in name:
        plan = sy.func2plan()(lambda *xs: derivatives(function, *xs))
        for _ in range(2):
            close(fetched(plan(*[x.send(bob) for x in operands])), here)  # type: ignore[attr-defined]


@pytest.mark.parametrize("derivative", [jacfwd, jacrev, hessian])
@pytest.mark.parametrize("name", ["prod", "cumprod with zeros", "layer_norm"])
def test_functions_of_derivatives_with_tensors_of_their_own(alice: sy.VirtualWorker, derivative: Any, name: str) -> None:
    function, (x, *_) = TENSORS_OF_THEIR_OWN[name]
    close(derivative(function)(x), derivative(function)(x.send(alice)))  # type: ignore[attr-defined]


def test_data_does_not_cross_on_the_way_backward(bob: sy.VirtualWorker) -> None:
    x = R(3).send(bob).requires_grad_()  # type: ignore[attr-defined]
    x.register_hook(lambda gradient: gradient * torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(LocalTensorMixedError, match="local"):
        x.sum().backward()
