"""Federated training on nodes in processes of their own is the training that virtual workers do."""

import torch
from torch import nn

import syftlite as sy


def test_training_on_real_nodes(monkeypatch, three_nodes):
    torch.manual_seed(1)
    data = torch.randn(12, 3)
    target = data @ torch.tensor([[1.0], [-2.0], [0.5]])
    model, reference = nn.Linear(3, 1), nn.Linear(3, 1)
    reference.load_state_dict(model.state_dict())
    nodes = three_nodes[:2]
    fds = sy.BaseDataset(data, target).tag("#toy").federate(nodes)
    loader = sy.FederatedDataLoader(fds, batch_size=4)
    optimizer, local = (torch.optim.Adam(m.parameters(), lr=0.05) for m in (model, reference))
    asked = []
    for node in nodes:
        ask = node.transport.ask
        monkeypatch.setattr(node, "ask", lambda *a, ask=ask: asked.append(a[0]) or ask(*a))
    assert len(list(loader)) == 4 and asked == [], "batches wait for nothing"
    for _ in range(2):
        for (x, y), rows in zip(loader, ((0, 4), (4, 6), (6, 10), (10, 12)), strict=True):
            assert y.location is x.location
            part = slice(*rows)
            for m, o, inputs, outputs in (
                (model.send(x.location), optimizer, x, y),
                (reference, local, data[part], target[part]),
            ):
                o.zero_grad()
                (m(inputs) - outputs).pow(2).mean().backward()
                o.step()
            model.get()
    assert torch.allclose(model.weight, reference.weight, atol=1e-6)
    multi = torch.ones(2).send(*nodes)
    assert (multi * 2).get(sum_results=True).tolist() == [4.0, 4.0]
    found = sy.PrivateGridNetwork(*nodes).search("#toy", "#data")
    assert {worker: pointers[0].shape for worker, pointers in found.items()} == {"first node": (6, 3), "second node": (6, 3)}
