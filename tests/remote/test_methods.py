"""The names that tensors have before they are sent anywhere."""

import copy
import threading

import pytest
import torch

import syftlite as sy
from syftlite.remote import registry


def test_a_tensor_has_a_number_of_its_own(hook):
    tensor = torch.ones(2)
    number = tensor.id
    assert tensor.id == number
    assert copy.deepcopy(tensor).id != number and copy.copy(tensor).id != number and (tensor + 0).id != number


def test_a_tensor_here_is_owned_by_this_process(hook, workers):
    assert torch.ones(2).owner is sy.local_worker
    assert torch.ones(2).send(workers["bob"]).owner is sy.local_worker


def test_a_pointer_made_without_a_place_is_to_a_copy_here(hook, workers):
    tensor = torch.ones(2)
    here, there = tensor.create_pointer(), tensor.create_pointer("bob")
    tensor.zero_()
    assert here.location is sy.local_worker and there.location is workers["bob"]
    assert torch.equal(here.get(), torch.ones(2)) and torch.equal(there.get(), torch.ones(2))


def test_threads_that_ask_for_the_local_worker_first_get_one(monkeypatch):
    made, told = [], []
    thread = threading.Thread(target=lambda: told.append(registry.local_worker()))

    def maker():
        if not made:
            made.append(object())
            thread.start()
            thread.join(0.02)
            return made[0]
        return object()

    monkeypatch.setattr(registry, "_local", [])
    monkeypatch.setattr(registry, "_maker", [maker])
    assert registry.local_worker() is made[0]
    thread.join()
    assert told == made


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_modules_are_scripted_and_traced_as_ever() -> None:
    """TorchScript compiles a module's properties, and what is added to every module is one."""
    model, x = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), torch.ones(4, 2)
    for compiled in (torch.jit.script(model), torch.jit.trace(model, x)):
        assert torch.equal(compiled(x), model(x))
    assert model.location is None
