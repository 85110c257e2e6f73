"""Batch norm with `momentum=None` in a plan: its averages are those of the same calls here, whatever else the plan does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim

import syftlite as sy

LAYERS: dict[str, Any] = {
    "rows": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None)), (5, 3)),
    "images": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3, momentum=None, affine=False)), (4, 2, 3, 3)),
    "one layer twice": (lambda: nn.Sequential(norm := nn.BatchNorm1d(3, momentum=None), nn.Linear(3, 3), norm), (5, 3)),
    "without a history": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None, track_running_stats=False)), (5, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_averages(bob: sy.VirtualWorker, name: str, learns: bool, training: bool) -> None:
    make, shape = LAYERS[name]
    batches = [torch.randn(shape) + n for n in range(4)]
    here = make().train(training)
    found = []
    for net in (here, here.copy().send(bob)):
        remote = net is not here
        optimizer = optim.SGD(net.parameters(), 0.05, momentum=0.9) if learns else None

        def step(x: torch.Tensor, net: Any = net, optimizer: Any = optimizer) -> torch.Tensor:
            if optimizer is None:
                with torch.no_grad():
                    return net(x)  # type: ignore[no-any-return]
            optimizer.zero_grad()
            out = net(x)
            out.square().mean().backward()
            optimizer.step()
            return out  # type: ignore[no-any-return]

        run: Any = sy.func2plan(args_shape=[shape], state=[net, optimizer] if learns else [net])(step) if remote else step
        outs = [run(x.send(bob) if remote else x) for x in batches]
        tensors = [*outs, *net.parameters(), *net.buffers()]
        found.append([t.detach().get_copy() if remote else t.detach() for t in tensors])
        assert all(layer.momentum is None for layer in net.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_what_fails_leaves_the_layer_as_it_was(bob: sy.VirtualWorker) -> None:
    net = nn.BatchNorm1d(3, momentum=None).send(bob)
    mean = net.running_mean
    with pytest.raises((ValueError, RuntimeError)):
        sy.func2plan(args_shape=[(2, 5)], state=[net])(lambda x: net(x))(torch.ones(2, 5).send(bob))
    assert net.momentum is None and net.running_mean is mean
