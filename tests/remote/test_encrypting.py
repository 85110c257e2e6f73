"""fix_precision, share, encrypt and their ways back: for tensors, in place, and for modules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from _sharing import Parties
from torch import nn

import syftlite as sy
from syftlite.errors import InvalidTensorForRemoteGet, Misuse, PointerMisuseError

Fixed, Shared = sy.FixedPrecisionTensor, sy.AdditiveSharingTensor


@pytest.fixture(scope="module")
def parties():
    parties = Parties("encrypting")
    yield parties
    parties.close()


@pytest.fixture
def among(parties):
    return {"workers": [parties.alice, parties.bob], "crypto_provider": parties.dealer}


@pytest.mark.parametrize("protocol", ["mpc", "snn", "fss"])
def test_encrypt_and_decrypt(among, protocol):
    x = torch.tensor([[1.5, -2.25]])
    secret = x.encrypt(protocol=protocol, **among)
    assert isinstance(secret, Fixed) and isinstance(secret.child, Shared)
    assert torch.equal(secret.decrypt(), x) and torch.equal((secret * 2).decrypt(), x * 2)
    assert x.encrypt(base=10, precision_fractional=3, **among).get().child.tolist() == [[1500, -2250]]


def test_get_leaves_fixed_precision_on(parties):
    secret = torch.tensor([0.5]).fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    got = secret.get()
    assert isinstance(got, Fixed) and not got.is_secret and (got + 1).decode().tolist() == [1.5]
    assert secret.reconstruct().decode().tolist() == secret.get_copy().decode().tolist() == [0.5]
    assert secret.refresh().get().decode().tolist() == secret.copy().get().decode().tolist() == [0.5]


def test_in_place(parties):
    x = y = torch.tensor([1.0, -0.5])
    for step, kind in (
        (lambda: x.fix_precision_(), Fixed),
        (lambda: x.share_(parties.alice, parties.bob, crypto_provider=parties.dealer), Fixed),
        (lambda: x.get_(), Fixed),
        (lambda: x.float_precision_(), torch.Tensor),
        (lambda: x.fix_prec_(base=10), Fixed),
        (lambda: x.float_prec_(), torch.Tensor),
    ):
        assert step() is x and type(x) is kind
    assert y.tolist() == [1.0, -0.5]
    whole = torch.tensor([1, 2])
    assert whole.share_(parties.alice, parties.bob, crypto_provider=parties.dealer) is whole and type(whole) is Shared
    assert (whole + 1).get_().tolist() == [2, 3]


@pytest.mark.parametrize("name", ["float_precision", "float_prec", "decode", "decrypt", "reconstruct", "refresh"])
def test_what_was_never_encrypted(name):
    with pytest.raises(Misuse, match=r"neither in fixed precision nor shared: fix_precision\(\) and share\(\) do that"):
        getattr(torch.ones(2), name)()
    with pytest.raises(InvalidTensorForRemoteGet):
        torch.ones(2).get_()


@pytest.mark.parametrize("scheme", [{}, {"base": 10, "precision_fractional": 3}], ids=["binary", "decimal"])
def test_a_module_there_and_back(parties, scheme):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    assert model.fix_precision(**scheme) is model
    assert model.share(parties.alice, parties.bob, crypto_provider=parties.dealer) is model
    assert all(isinstance(p, Fixed) and isinstance(p, nn.Parameter) and p.is_secret and not p.requires_grad for p in model.parameters())
    assert model.get() is model and all(isinstance(p, Fixed) and not p.is_secret for p in model.parameters())
    assert model.float_precision() is model
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True)) and optimizer.param_groups[0]["params"][0] is parameters[0]
    unit = 1 / (scheme.get("base", 2) ** scheme.get("precision_fractional", 16))
    for name, tensor in model.state_dict().items():
        assert type(tensor) is torch.Tensor and tensor.dtype == before[name].dtype
        assert (tensor.double() - before[name].double()).abs().max() <= unit / 2 + 1e-7, name


def test_a_module_at_a_worker_is_fixed_there(parties):
    model = nn.Linear(2, 1).send(parties.carol).fix_precision()
    assert isinstance(model.weight.child, sy.PointerTensor)
    got = model(torch.ones(1, 2).send(parties.carol).fix_precision())
    assert got.get().decode().shape == (1, 1)


def test_encrypt_a_module(among):
    model = nn.Linear(2, 1)
    weight = model.weight.detach().clone()
    assert model.encrypt(requires_grad=True, **among) is model and model.weight.requires_grad and model.weight.is_secret
    assert model.decrypt() is model and torch.allclose(model.weight, weight, atol=2**-16)
    with pytest.raises(Misuse, match=r"parameters are floats: fix_precision\(\) it first, or encrypt\(\)"):
        model.share(*among["workers"], crypto_provider=among["crypto_provider"])
    with pytest.raises(Misuse, match="no protocol 'xyz'"):
        model.encrypt(protocol="xyz", **among)


def test_gradients_come_with_get(among):
    x = torch.tensor([2.0, -1.0]).encrypt(requires_grad=True, **among)
    (x * x).sum().backward()
    got = x.get()
    assert got.requires_grad and got.grad.decode().tolist() == [4.0, -2.0]


def test_optimizers_are_accepted():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    assert optimizer.fix_precision() is optimizer is optimizer.fix_prec()


def test_names_for_torchs_own():
    array = np.array([[1, 2.5]])
    x = sy.FloatTensor(array)
    array[0, 0] = 7
    assert type(x) is torch.Tensor and x.dtype == torch.float32 and x.tolist() == [[1.0, 2.5]]
    assert sy.zeros(256, 1).shape == (256, 1) and sy.zeros(2, dtype=torch.int64).dtype == torch.int64
    assert sy.FloatTensor([1]).fix_precision().decode().tolist() == [1.0]


def test_data_is_written_over(parties):
    alice, bob, carol = parties.alice, parties.bob, parties.dealer
    w = torch.ones(2).fix_precision().share(alice, bob, crypto_provider=carol, requires_grad=True)
    for _ in range(3):
        (w * w).sum().backward()
        w.data = w.data - 0.1 * w.grad
        w.grad = None
    assert (w.get().decode() - 0.512).abs().max() < 1e-4
    fixed = torch.ones(2).fix_precision()
    fixed.data = fixed.data - 0.5
    assert torch.equal(fixed.decode(), torch.tensor([0.5, 0.5]))
    model = torch.nn.Linear(2, 2).fix_precision().share(alice, bob, crypto_provider=carol)
    values = torch.arange(6.0).fix_precision().share(alice, bob, crypto_provider=carol)
    torch.nn.utils.vector_to_parameters(values, model.parameters())
    assert torch.equal(model.weight.get().decode(), torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    with pytest.raises(PointerMisuseError, match="same shape"):
        w.data = torch.ones(3)


def test_what_was_never_shared_is_got_as_it_is(parties):
    alice, bob, carol = parties.alice, parties.bob, parties.dealer
    bias = torch.zeros(2).fix_precision().share(alice, bob, crypto_provider=carol, requires_grad=True)
    (bias * 2).sum().backward()
    assert not bias.grad.is_secret
    assert torch.equal(bias.grad.get().decode(), torch.tensor([2.0, 2.0])) and torch.equal(bias.grad.decrypt(), torch.tensor([2.0, 2.0]))
    x = torch.ones(2).fix_precision().share(alice, bob, crypto_provider=carol)
    assert torch.equal(torch.zeros_like(x).get().decode(), torch.zeros(2)) and torch.equal(x.get().get().decode(), torch.ones(2))


def test_what_is_shared_is_not_uploaded(parties):
    alice, bob, carol = parties.alice, parties.bob, parties.dealer
    x = torch.ones(2).fix_precision().share(alice, bob, crypto_provider=carol)
    model = torch.nn.Linear(2, 2).fix_precision().share(alice, bob, crypto_provider=carol)
    before = carol.objects_count()
    for send in (lambda: model.send(carol), lambda: model.move(carol), lambda: sy.send(x, carol), lambda: carol.load_data([x])):
        with pytest.raises(Misuse, match="no value here to send"):
            send()
    assert carol.objects_count() == before and isinstance(model.weight, torch.nn.Parameter) and model.weight.is_secret


def test_a_module_of_buffers_alone_comes_back(parties):
    alice, bob, carol = parties.alice, parties.bob, parties.dealer
    norm = torch.nn.BatchNorm2d(3, affine=False).eval()
    norm.fix_precision().share(alice, bob, crypto_provider=carol)
    assert torch.equal(norm.get().running_var.decode(), torch.ones(3))


def test_shares_are_described(parties):
    alice, bob, carol = parties.alice, parties.bob, parties.dealer
    x = torch.ones(2).fix_precision().share(alice, bob, crypto_provider=carol).tag("#a").describe("what it is")
    assert x.description == "what it is" and x.tags == {"#a"}
