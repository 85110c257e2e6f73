"""Splits: every row in exactly one part, and classes as mixed as alpha says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset, TensorDataset, random_split

import syftlite as sy
from syftlite.errors import ConfigurationError, PointerMisuseError
from syftlite.federated import Federation, split_dirichlet, split_iid


def rows(n, classes=4):
    return sy.BaseDataset(torch.arange(n), torch.arange(n) % classes)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5))
def test_an_iid_split_has_every_row_once_and_parts_of_nearly_equal_length(n, parts, seed):
    if parts > n:
        with pytest.raises(ConfigurationError, match=f"{n} rows cannot be split into {parts}"):
            split_iid(rows(n), parts)
        return
    made = split_iid(rows(n), parts, seed=seed)
    assert sorted(torch.cat([p.data for p in made]).tolist()) == list(range(n))
    assert all(torch.equal(p.targets, p.data % 4) for p in made)
    assert max(map(len, made)) - min(map(len, made)) <= 1
    assert all(torch.equal(p.data, q.data) for p, q in zip(made, split_iid(rows(n), parts, seed=seed)))


@given(st.sampled_from([0.05, 1.0, 100.0]), st.integers(1, 6), st.integers(0, 5))
def test_a_dirichlet_split_has_every_row_once(alpha, parts, seed):
    made = split_dirichlet(rows(400), parts, alpha=alpha, least=0, seed=seed)
    assert len(made) == parts and sorted(torch.cat([p.data for p in made]).tolist()) == list(range(400))
    assert all(torch.equal(p.targets, p.data % 4) for p in made)


def largest_share(alpha):
    """The mean, over parts, of the share of a part's largest class."""
    made = split_dirichlet(rows(4000), 10, alpha=alpha, seed=1)
    return sum(float(torch.bincount(p.targets).max()) / len(p) for p in made) / 10


def test_a_small_alpha_gives_parts_of_few_classes_and_a_large_one_of_all():
    assert largest_share(0.1) > 0.6 > 0.4 > largest_share(1000.0) > 0.25


def test_torchs_datasets_are_split_and_are_clients():
    whole = TensorDataset(torch.arange(12.0)[:, None], torch.arange(12) % 2)
    assert sorted(torch.cat([p.data for p in split_iid(whole, 3)]).flatten().tolist()) == list(range(12))
    assert sum(map(len, split_dirichlet(Subset(whole, range(10)), 2, alpha=1.0))) == 10
    parts = [*random_split(TensorDataset(*whole[:9]), [5, 4]), TensorDataset(*whole[9:]), sy.BaseDataset(*whole[:2])]
    federation = Federation(parts, lambda: torch.nn.Linear(1, 2))
    assert [len(data) for _, data, _ in federation.clients] == [5, 4, 3, 2]
    assert torch.equal(federation.clients[2][1].get_copy(), whole[9:][0])
    federation.fit(1, progress=False)
    for odd in (TensorDataset(torch.ones(3)), TensorDataset(*[torch.ones(3)] * 3), Subset(whole, [])):
        with pytest.raises(ConfigurationError, match="fields|empty"):
            Federation([odd, whole], lambda: torch.nn.Linear(1, 2))


def test_what_cannot_be_split_is_refused(bob):
    with pytest.raises(ConfigurationError, match="targets that are classes"):
        split_dirichlet(sy.BaseDataset(torch.ones(4), torch.ones(4)), 2, alpha=1.0)
    with pytest.raises(ConfigurationError, match="alpha above 0"):
        split_dirichlet(rows(4), 2, alpha=0.0)
    with pytest.raises(ConfigurationError, match="take a larger alpha"):
        split_dirichlet(rows(40), 8, alpha=0.01, least=5)
    with pytest.raises(PointerMisuseError, match="get"):
        split_iid(rows(4).send(bob), 2)


@pytest.mark.parametrize("options", [{"parts": "a"}, {"parts": 2.5}, {"parts": None}, {"parts": True}, {"parts": 2, "seed": "a"}, {"parts": 2, "seed": None}])
def test_parts_and_seeds_are_whole_numbers(options):
    dataset = sy.BaseDataset(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64))
    for split in (split_iid, lambda *a, **k: split_dirichlet(*a, alpha=1.0, **k)):
        with pytest.raises(ConfigurationError, match="is a whole number"):
            split(dataset, **options)
    assert len(split_iid(dataset, 2, seed=-1)) == len(split_dirichlet(dataset, 2, alpha=100.0, seed=-1)) == 2


@pytest.mark.parametrize("alpha", ["a", None, float("nan"), float("inf"), 0])
def test_alpha_is_a_number_above_0(alpha):
    with pytest.raises(ConfigurationError, match="alpha above 0, not"):
        split_dirichlet(sy.BaseDataset(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)), 2, alpha=alpha)
