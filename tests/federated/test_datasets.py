"""Datasets that travel: every row is at exactly one place, and comes back as it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

import syftlite as sy
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import ApprovalRequiredError, ConfigurationError, GetNotPermittedError, PointerMisuseError, WorkerNotFoundError
from syftlite.transports.memory import MemoryTransport


def rows(n):
    return torch.arange(2.0 * n).view(n, 2), torch.arange(n)


def test_a_dataset_travels_and_comes_back(bob, alice):
    data, targets = rows(4)
    dataset = sy.BaseDataset(data, targets)
    assert dataset.location is None and len(dataset) == 4 and dataset[1][1] == 1
    assert dataset.send(bob) is dataset and dataset.location is bob and len(dataset) == 4
    assert isinstance(dataset[0][0], sy.PointerTensor) and dataset[2][0].get().tolist() == [4.0, 5.0]
    assert type(data) is torch.Tensor, "what it was made of stays as it is"
    assert dataset.send(alice.id).location is alice and "alice" in repr(dataset)
    back = dataset.get()
    assert back is dataset and torch.equal(back.data, data) and torch.equal(back.targets, targets)
    assert bob._objects == {} == alice._objects
    with pytest.raises(PointerMisuseError, match="here already"):
        dataset.get()


def test_labels_are_found_where_it_is(bob):
    dataset = sy.BaseDataset(*rows(3)).tag("#toy").describe("three rows")
    assert bob.search("#toy") == []
    dataset.send(bob)
    (data,), (targets,) = bob.search("#toy", "#data"), bob.search("#toy", "#target")
    assert data.shape == (3, 2) and targets.shape == (3,) and data.description == "three rows"
    dataset.tag("#small")
    assert len(bob.search("#small", "#toy")) == 2
    assert sy.BaseDataset(data, targets).tag("#mine").send(bob).location is bob


def test_a_transform_applies_to_each_row_wherever_it_is(bob):
    dataset = sy.BaseDataset(*rows(3), transform=lambda row: row / row.max())
    here = dataset[1][0]
    assert here.tolist() == pytest.approx([2 / 3, 1.0])
    dataset.send(bob)
    assert torch.equal(dataset[1][0].get(), here)
    assert torch.equal(dataset.rows(slice(1, 3))[0].get()[0], here)


@pytest.mark.parametrize(
    ("data", "targets"),
    [(torch.ones(2, 2), torch.ones(3)), (torch.ones(()), torch.ones(())), (torch.ones(2), torch.ones(()))],
    ids=["lengths", "no rows", "no targets"],
)
def test_data_and_targets_fit_each_other(data, targets):
    with pytest.raises(ConfigurationError, match="rows in common"):
        sy.BaseDataset(data, targets)


def test_data_and_targets_are_at_one_place(bob, alice):
    with pytest.raises(ConfigurationError, match="different places"):
        sy.BaseDataset(torch.ones(2).send(bob), torch.ones(2))
    with pytest.raises(ConfigurationError, match="different places"):
        sy.BaseDataset(torch.ones(2).send(bob), torch.ones(2).send(alice))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 23), workers=st.integers(1, 5))
def test_every_row_is_at_exactly_one_worker(n, workers):
    holders = [sy.VirtualWorker(id=f"holder{i}") for i in range(workers)]
    data, targets = rows(n)
    fds = sy.BaseDataset(data, targets).federate(holders)
    sizes = [len(d) for d in fds.datasets.values()]
    assert len(fds) == n == sum(sizes) and len(sizes) == min(n, workers) and max(sizes) - min(sizes) <= 1
    parts = [fds.get_dataset(w) for w in list(fds.workers)]
    assert torch.equal(torch.cat([p.data for p in parts]), data) and torch.equal(torch.cat([p.targets for p in parts]), targets)
    assert len(fds) == 0 and all(h._objects == {} for h in holders)


def test_a_federated_dataset(bob, alice):
    fds = sy.BaseDataset(*rows(5)).tag("#five").federate((bob, alice))
    assert fds.workers == [bob.id, alice.id] and fds[bob.id].location is bob is fds[bob].location and len(fds[alice]) == 3
    assert f"{bob.id} (2)" in repr(fds) and len(bob.search("#five")) == 2
    with pytest.raises(WorkerNotFoundError, match=alice.id):
        fds["nobody"]
    with pytest.raises(ConfigurationError, match="two datasets"):
        sy.FederatedDataset([fds[bob], sy.BaseDataset(*rows(1)).send(bob)])
    with pytest.raises(ConfigurationError, match="send"):
        sy.FederatedDataset([sy.BaseDataset(*rows(1))])
    with pytest.raises(PointerMisuseError, match=r"get\(\)"):
        fds[bob].federate([alice])
    with pytest.raises(ConfigurationError, match="workers"):
        sy.BaseDataset(*rows(1)).federate([])


def test_any_dataset_of_torch_is_split(bob, alice):
    sy.TorchHook(torch)

    class Squares(Dataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return torch.tensor([float(index), index**2]), index % 2

    fds = Squares().federate((bob, alice))
    assert fds[bob].get().data.tolist() == [[0, 0], [1, 1], [2, 4]] and fds[alice].get().targets.tolist() == [1, 0, 1, 0]
    with pytest.raises(ConfigurationError, match="3 fields"):
        TensorDataset(*[torch.ones(2)] * 3).federate([bob])
    with pytest.raises(ConfigurationError, match="empty"):
        TensorDataset(torch.ones(0, 2), torch.ones(0)).federate([bob])


def test_private_rows_stay():
    engine = Engine("dataset-clinic")
    engine.load("data", torch.ones(3, 2), ["#icu", "#data"], private=True)
    engine.load("targets", torch.ones(3), ["#icu", "#target"], private=True)
    carol = sy.BaseWorker("dataset-clinic", MemoryTransport(engine, Principal("carol", Role.SCIENTIST)))
    dataset = sy.BaseDataset(carol.search("#icu", "#data")[0], carol.search("#icu", "#target")[0])
    with pytest.raises(GetNotPermittedError):
        dataset.get()
    with pytest.raises(ApprovalRequiredError) as refused:
        dataset.get(reason="all rows")
    assert refused.value.request.state == "pending" and dataset.location is carol


def test_of_fewer_rows_than_workers_the_first_workers_get_one_each(bob, alice):
    third = sy.VirtualWorker(id="no-row")
    fds = sy.BaseDataset(torch.arange(2.0).view(2, 1), torch.arange(2)).federate([bob, alice, third])
    assert fds.workers == [bob.id, alice.id] and [len(d) for d in fds.datasets.values()] == [1, 1]
    third.close()


ROWS = sy.BaseDataset(torch.ones(4, 2), torch.zeros(4))


@pytest.mark.parametrize("workers", [None, 3, "bob", sy.local_worker])
def test_workers_are_a_list(workers):
    with pytest.raises(ConfigurationError, match="federate.. takes a list of workers"):
        ROWS.federate(workers)


@pytest.mark.parametrize("parts", [None, 3, [3], ROWS, [ROWS, None]])
def test_a_federated_dataset_is_of_datasets(parts):
    with pytest.raises(ConfigurationError, match="a list of BaseDatasets"):
        sy.FederatedDataset(parts)


def test_what_is_no_transform_or_dataset_is_named():
    with pytest.raises(ConfigurationError, match="transform is a function of a row"):
        sy.BaseDataset(torch.ones(2), torch.ones(2), transform=3)
    for whole, match in ((None, "a dataset is a BaseDataset"), (torch.ones(3), "a dataset is"), ((torch.ones(3), torch.ones(3)), "together")):
        with pytest.raises(ConfigurationError, match=match):
            sy.federated.split_iid(whole, 2)
