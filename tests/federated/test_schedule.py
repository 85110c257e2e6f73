"""Learning rates over rounds, as torch's schedulers give them."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import syftlite as sy
from syftlite.errors import ConfigurationError
from syftlite.federated import Federation, LocalTraining, PrivateTraining
from syftlite.federated.schedule import Schedule

torch.manual_seed(0)
X, Y = torch.randn(24, 4), torch.randint(0, 2, (24,))
MAKES = {
    "steps": lambda o: lrs.StepLR(o, 2, 0.1),
    "cosine": lambda o: lrs.CosineAnnealingLR(o, 5),
    "warm": lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o, 0.1, total_iters=2), lrs.ExponentialLR(o, 0.5)], [2]),
    "plateau": lambda o: lrs.ReduceLROnPlateau(o, patience=0, threshold=0.5),
}


def network():
    torch.manual_seed(1)
    return nn.Linear(4, 2)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


@pytest.fixture
def owner():
    worker = sy.VirtualWorker(id="scheduled")
    yield sy.BaseDataset(X, Y).federate([worker])
    worker.close()


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("buffer", [None, 1])
def test_a_step_after_each_round(owner, name, buffer):
    """One client with one batch: a round is a step of plain torch."""
    federation = Federation(owner, network, optimizer=sgd, scheduler=MAKES[name], batch_size=24, buffer=buffer)
    model = network()
    optimizer = sgd(model.parameters())
    scheduler, rates = MAKES[name](optimizer), set()
    for result in federation.fit(7, progress=False):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        assert abs(result.loss - loss.item()) < 1e-5
        scheduler.step(*(result.loss,) * (name == "plateau"))
        rates.add(optimizer.param_groups[0]["lr"])
    assert len(rates) > 1 and torch.allclose(model.weight, federation.model.weight, atol=1e-5)


@pytest.mark.parametrize("name", MAKES)
def test_a_run_that_goes_on_has_the_rates_that_it_would_have_had(owner, tmp_path, name):
    path = tmp_path / "run.safetensors"

    def make(**given):
        return Federation(owner, network, optimizer=sgd, scheduler=MAKES[name], batch_size=7, **given)

    whole = make()
    whole.fit(6, progress=False)
    make(checkpoint=path).fit(3, progress=False)
    resumed = make().resume(path)
    resumed.fit(3, progress=False)
    assert torch.equal(whole.model.weight, resumed.model.weight)
    resumed.resume(path).fit(3, progress=False)  # back to the third round
    assert torch.equal(whole.model.weight, resumed.model.weight)


def test_settings_are_those_of_so_many_rounds():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Schedule(optimizer, lambda o: lrs.OneCycleLR(o, 2.0, total_steps=10))
    seen = []
    for rounds in range(10):
        schedule.follow([0.0] * rounds)
        seen.append({k: v for k, v in optimizer.param_groups[0].items() if k != "params"})
    assert len({group["lr"] for group in seen}) > 5 and len({group["betas"] for group in seen}) > 5
    for rounds in (4, 0, 9):
        schedule.follow([0.0] * rounds)
        assert {k: v for k, v in optimizer.param_groups[0].items() if k != "params"} == seen[rounds]


def test_what_is_no_schedule_is_refused(owner):
    with pytest.raises(ConfigurationError, match="scheduler is a function"):
        Federation(owner, network, scheduler=0.1)
    with pytest.raises(ConfigurationError, match=r"makes a torch\.optim\.lr_scheduler"):
        LocalTraining(network, nn.functional.cross_entropy, sgd, scheduler=lambda optimizer: 0.1)
    private = PrivateTraining(network, l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=4, steps=1)
    with pytest.raises(ConfigurationError, match="scheduler: settings of the usual training"):
        Federation(owner, network, training=private, scheduler=MAKES["steps"])
    schedule = Schedule(sgd(network().parameters()), MAKES["plateau"])
    with pytest.raises(ConfigurationError, match="nobody's to see"):
        schedule.follow([None])
