"""Sums over workers: right, exact whoever goes, and of PRIVATE data only among those whom its owner knows."""

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.dp.ledger import Account, Cost, Ledger
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import AggregationError, ConfigurationError, QuotaExceededError, code_of
from syftlite.federated.secure import ADVERTISE, CONFIRM, IDENTITY, MASK, SHARE, UNMASK
from syftlite.secagg import Terms
from syftlite.testing.peer import Peer
from syftlite.transports.memory import MemoryTransport, SerializingTransport
from syftlite.wire import messages as m


def worker(name, serialize=False, role=Role.OWNER, **options):
    kind = SerializingTransport if serialize else MemoryTransport
    return sy.BaseWorker(name, kind(Engine(name, **options), Principal("carol", role)))


@pytest.fixture
def five():
    workers = [worker(f"secure-{i}", serialize=i % 2 == 0) for i in range(5)]
    yield workers
    for one in workers:
        one.close()


def fails(worker, stage):
    """Have ``worker`` break down when it is asked for ``stage``."""
    engine = worker.transport.engine
    handler = engine._handlers[m.AGGREGATE]

    def broken(session, request, at, *fields):
        if at >= stage:
            raise MemoryError("no room")
        return handler(session, request, at, *fields)

    engine._handlers[m.AGGREGATE] = broken


def test_a_sum_and_a_weighted_mean(five):
    values = [torch.randn(3, 4) for _ in five]
    sent = {w: v.send(w) for w, v in zip(five, values, strict=True)}
    total = sy.federated.secure_sum(sent)
    torch.testing.assert_close(total.values[0], sum(values).double(), atol=1e-4, rtol=0)
    assert total.clients == tuple(w.id for w in five) and total.dropped == {} and total.weight is None
    rows = {w: torch.zeros(10 * i + 1, 2).send(w) for i, w in enumerate(five)}
    mean = sy.federated.secure_average(sent, rows)
    want = sum(v.double() * (10 * i + 1) for i, v in enumerate(values)) / 105
    torch.testing.assert_close(mean.values[0], want, atol=1e-4, rtol=0)
    assert mean.weight == 105


def test_models_are_averaged_where_they_are(five):
    models = {w: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double() for w in five}
    want = [torch.stack(ts).double().mean(0) for ts in zip(*[[*x.parameters(), *x.buffers()] for x in models.values()], strict=True)]
    want = [w.clone().detach() for w in want]
    result = sy.federated.secure_average({w: model.send(w) for w, model in models.items()})
    for mine, its in zip(result.values, want, strict=True):
        torch.testing.assert_close(mine, its, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stage", [SHARE, MASK, CONFIRM, UNMASK])
def test_a_worker_that_breaks_down_is_left_out_by_name(five, stage):
    values = [torch.full((4,), 2.0**i) for i in range(5)]
    fails(five[3], stage)
    total = sy.federated.secure_sum({w: v.send(w) for w, v in zip(five, values, strict=True)}, clip=16.0)
    gone = stage in (SHARE, MASK)
    assert total.values[0].tolist() == [31.0 - 8.0 * gone] * 4
    assert ("secure-3" in total.clients) is not gone
    assert "no room" in total.dropped["secure-3"] and list(total.dropped) == ["secure-3"]


def lies(worker, stage, answer):
    """Have ``worker`` give ``answer`` of what it should, a list of tensors, at ``stage``."""
    ask = worker.ask

    def lying(kind, *fields):
        told = ask(kind, *fields)
        return (*told[:2], answer(told[2])) if kind == m.AGGREGATE and fields[0] == stage else told

    worker.ask = lying


def other(tensors):
    return [1 - t if i == 0 and t.dtype == torch.uint8 else t for i, t in enumerate(tensors)]


ODD = {
    "nothing": lambda tensors: [],
    "more": lambda tensors: [*tensors, *tensors],
    "empty": lambda tensors: [t[:0] for t in tensors],
    "short": lambda tensors: [t[1:] for t in tensors],
    "a number": lambda tensors: [torch.tensor(3.0, dtype=torch.bfloat16)],
    "complex": lambda tensors: [t.to(torch.complex64) for t in tensors],
    "other bytes": other,
    "random bytes": lambda tensors: [torch.randint(0, 255, t.shape).to(t.dtype) for t in tensors[:1]],
    "nobody": lambda tensors: [torch.tensor([0x80], dtype=torch.uint8)],
    "signed by nobody": lambda tensors: [torch.cat([tensors[0][:-1], 1 - tensors[0][-1:]])],
}


FORMED = {(IDENTITY, "other bytes"), (IDENTITY, "random bytes"), (IDENTITY, "signed by nobody"), (MASK, "other bytes"), (SHARE, "signed by nobody")}


@pytest.mark.parametrize(
    ("stage", "answer"), [(stage, odd) for stage in (IDENTITY, ADVERTISE, SHARE, MASK, CONFIRM) for odd in ODD if (stage, odd) not in FORMED]
)
def test_a_worker_that_answers_what_is_no_answer_is_left_out_by_name(five, stage, answer):
    values = [torch.full((4,), 2.0**i) for i in range(5)]
    lies(five[3], stage, ODD[answer])
    total = sy.federated.secure_sum({w: v.send(w) for w, v in zip(five, values, strict=True)}, clip=16.0, minimum=4, threshold=3)
    gone = stage != CONFIRM
    assert total.values[0].tolist() == [31.0 - 8.0 * gone] * 4
    assert ("secure-3" in total.clients) is not gone and list(total.dropped) == ["secure-3"]


@pytest.mark.parametrize("answer", ["nothing", "more", "empty", "short", "a number", "complex", "random bytes"])
def test_of_what_is_no_revelation_nothing_is_taken(five, answer):
    values = [torch.full((4,), 2.0**i) for i in range(5)]
    lies(five[3], UNMASK, ODD[answer])
    total = sy.federated.secure_sum({w: v.send(w) for w, v in zip(five, values, strict=True)}, clip=16.0, threshold=3)
    assert total.values[0].tolist() == [31.0] * 4 and list(total.dropped) == ["secure-3"]


def test_too_few_is_an_error_and_nothing_is_learned(five):
    for broken in five[:2]:
        fails(broken, MASK)
    with pytest.raises(AggregationError, match=r"3 clients sent a vector, and a sum must have 4.*secure-0, secure-1"):
        sy.federated.secure_sum({w: torch.ones(2).send(w) for w in five})


def test_a_refusal_of_a_worker_is_told(five):
    sent = {w: torch.ones(2).send(w) for w in five}
    sent[five[1]] = torch.tensor([1.0, float("nan")]).send(five[1])
    total = sy.federated.secure_sum(sent)
    assert "NaN" in total.dropped["secure-1"] and total.values[0].tolist() == [4.0, 4.0]
    sent[five[2]] = torch.tensor([100.0, 1.0]).send(five[2])
    total = sy.federated.secure_sum(sent)
    assert total.clipped["secure-2"] == 0.5 and total.values[0].tolist() == [11.0, 4.0]


def test_what_cannot_be_summed_is_refused(five):
    for given in ({five[0]: torch.ones(2)}, {five[0]: torch.ones(2).send(five[0]), five[1]: torch.ones(3).send(five[1])}):
        with pytest.raises(ConfigurationError, match="of the same shapes"):
            sy.federated.secure_sum(given)
    with pytest.raises(ConfigurationError, match="is to be there"):
        sy.federated.secure_sum({five[0]: torch.ones(2).send(five[0]), five[1]: torch.ones(2)})


def test_nothing_stays_behind(five):
    sent = {w: torch.ones(2).send(w) for w in five}
    sy.federated.secure_sum(sent)
    for one in five:
        assert one.objects_count() == 1
        (session,) = [s for s in one.transport.engine.sessions.values() if s.principal.name == "carol"]
        assert session.rounds == {} and session.used == 8


def test_rounds_under_way_count_towards_the_quota():
    engine = Engine("small", max_bytes=100_000)
    terms = Terms.of(bytes(16), {"small": engine.identity.public} | {f"c{i}": i.to_bytes(32, "big") for i in range(63)}, 1).pack()
    peer = Peer(engine)
    peer.say((m.PUT, peer.id(1), torch.frombuffer(bytearray(terms), dtype=torch.uint8), (), ""))
    answers = [peer.say((m.AGGREGATE, 1, ADVERTISE, n, peer.id(1), (), None))[0] for n in range(9)]
    fit = sum(answer[0] == m.VALUES for answer in answers)
    assert 1 < fit < 9 and answers[-1][2] == code_of(QuotaExceededError()) and peer.door.session.used == len(terms) * (1 + 8 * fit) <= 100_000
    peer.say((m.PUT, peer.id(2), torch.tensor([0x80], dtype=torch.uint8), (), ""))
    peer.say(*[(m.AGGREGATE, 1, SHARE, n, peer.id(2), (), None) for n in range(fit)])  # nobody's keys: each round ends
    assert not peer.door.session.rounds and peer.door.session.used == len(terms) + 1


# -- noise that the workers add


@pytest.mark.parametrize("stage", [None, MASK, CONFIRM])
def test_a_sum_has_the_noise_that_was_asked_for_whoever_goes(five, stage):
    if stage is not None:
        fails(five[3], stage)
    values = [torch.randn(100, 200) for _ in five]
    total = sy.federated.secure_sum({w: v.send(w) for w, v in zip(five, values, strict=True)}, clip=300.0, noise_multiplier=0.01, minimum=3)
    present = [v for w, v in zip(five, values, strict=True) if w.id in total.clients]
    left = total.values[0] - sum(present).double()
    assert total.clipped == {} and total.noise == pytest.approx(0.01 * 300 * (len(present) / 3) ** 0.5, rel=1e-3)
    assert abs(float(left.std()) / total.noise - 1) < 0.04 and abs(float(left.mean())) < 6 * total.noise / 20_000**0.5


def test_a_mean_with_noise_has_no_weights(five):
    sent = {w: torch.ones(3).send(w) for w in five}
    mean = sy.federated.secure_average(sent, clip=2.0, noise_multiplier=0.001)
    assert (mean.values[0] - 1).abs().max() < 8 * mean.noise and 0 < mean.noise < 0.001
    with pytest.raises(ConfigurationError, match="without weights"):
        sy.federated.secure_average(sent, sent, noise_multiplier=1.0)


# -- PRIVATE data


def hospitals(known):
    """Three whose scientist may read nothing; each knows the keys of those that ``known`` tells."""
    engines = {f"clinic-{i}": Engine(f"clinic-{i}") for i in range(3)}
    keys = {name: engine.identity.public for name, engine in engines.items()}
    made = []
    for i, (name, engine) in enumerate(engines.items()):
        engine.aggregates_with = known(name, keys)
        engine.load("rows", torch.full((4, 2), float(i + 1)), ["#rows"], private=True)
        made.append(sy.BaseWorker(name, MemoryTransport(engine, Principal("carol", Role.SCIENTIST))))
    return made


def means(workers):
    return {w: w.search("#rows")[0].mean(0) for w in workers}


def test_private_data_is_added_only_among_registered_workers():
    workers = hospitals(lambda name, keys: keys)
    total = sy.federated.secure_sum(means(workers))
    assert total.values[0].tolist() == [6.0, 6.0]
    kept = [record for event, record in workers[0].transport.engine.journal.events if event == "aggregated"]
    assert kept == [{"principal": "carol", "sources": ["rows"], "minimum": 2, "clients": ["clinic-0", "clinic-1", "clinic-2"]}]
    for one in workers:
        one.close()


def test_what_a_policy_lets_go_by_noise_alone_enters_no_sum_without():
    workers = hospitals(lambda name, keys: keys)
    workers[1].transport.engine.policies.set("rows", sy.policy.dp(epsilon=1.0))
    with pytest.raises(AggregationError, match=r"clinic-1: SendNotPermittedError: .*train with PrivateTraining"):
        sy.federated.secure_sum(means(workers), minimum=3)
    workers[1].transport.engine.policies.set("rows", sy.policy.Policy(release=("dave",), free=True))
    with pytest.raises(AggregationError, match="clinic-1: SendNotPermittedError: it derives from PRIVATE data of clinic-1"):
        sy.federated.secure_sum(means(workers), minimum=3)
    for one in workers:
        one.close()


def test_a_rate_counts_sums_among_what_leaves():
    workers = hospitals(lambda name, keys: keys)
    workers[1].transport.engine.policies.set("rows", sy.policy.Policy(aggregate=True, rate="2/d"))
    for _ in range(2):
        assert len(sy.federated.secure_sum(means(workers), minimum=3).clients) == 3
    with pytest.raises(AggregationError, match="clinic-1: SendNotPermittedError"):
        sy.federated.secure_sum(means(workers), minimum=3)
    assert sy.federated.secure_sum(means(workers), minimum=2).clients == ("clinic-0", "clinic-2"), "the others go on"
    for one in workers:
        one.close()


def spent(one):
    (standing,) = sy.dp.budget(one.search("#rows")[0])
    return standing.spent


def charged(event):
    """What ``event`` leaves spent of an account."""
    ledger, account = Ledger(), Account("rows", "", 4.0, 1e-5)
    ledger.reserve("key", "question", [account], Cost((event,), 0.0))
    return ledger.standings([account])[0].spent


def test_what_goes_by_noise_alone_enters_a_sum_that_has_it_and_is_charged():
    """A multiplier of 4 is one of 2 for whoever changes a row: within one clip the vector may turn into its opposite."""
    workers = hospitals(lambda name, keys: keys)
    workers[1].transport.engine.policies.set("rows", sy.policy.dp(epsilon=4.0, delta=1e-5))
    total = sy.federated.secure_sum(means(workers), minimum=3, clip=10.0, noise_multiplier=4.0)
    assert len(total.clients) == 3 and total.noise == pytest.approx(40.0, rel=1e-3)
    once = charged(sy.dp.gaussian(2.0))
    assert spent(workers[1]) == pytest.approx(once, rel=1e-6) and charged(sy.dp.gaussian(4.0)) < once / 1.8
    (record,) = [record for event, record in workers[1].transport.engine.journal.events if event == "aggregated"]
    assert record["noise"] == pytest.approx(4.0)
    with pytest.raises(AggregationError, match=r"clinic-1: BudgetExceededError: .*left"):
        for _ in range(20):
            sy.federated.secure_sum(means(workers), minimum=3, clip=10.0, noise_multiplier=4.0)
    assert once < spent(workers[1]) <= 4.0
    left = sy.federated.secure_sum(means(workers), minimum=2, clip=10.0, noise_multiplier=4.0)
    assert left.clients == ("clinic-0", "clinic-2"), "the others go on"
    for one in workers:
        one.close()


def test_that_it_failed_on_private_values_is_not_told_where_noise_covers_it():
    """A row's value as an index into a table of two: it fails where that is 2, and only there."""
    workers = hospitals(lambda name, keys: keys)
    vectors = {}
    for one in workers:
        one.transport.engine.policies.set("rows", sy.policy.dp(epsilon=30.0, delta=1e-5))
        vectors[one] = torch.ones(2, 5).send(one).index_select(0, one.search("#rows")[0][:1, 0].long() - 1)
    total = sy.federated.secure_sum(vectors, minimum=3, clip=10.0, noise_multiplier=2.0)
    assert len(total.clients) == 3 and total.dropped == {}
    with pytest.raises(AggregationError):
        sy.federated.secure_sum(vectors, minimum=3)
    for one in workers:
        one.close()


@pytest.mark.parametrize("known", [lambda name, keys: None, lambda name, keys: {n: bytes(32) for n in keys if n != name}])
def test_private_data_is_not_added_among_strangers(known):
    workers = hospitals(known)
    with pytest.raises(AggregationError) as refusal:
        sy.federated.secure_sum(means(workers))
    assert "clinic-0" in str(refusal.value)
    for one in workers:
        one.close()


def test_a_conductor_that_invents_clients_learns_nothing_of_a_registered_one():
    """Two of its own beside one hospital: the sum of three would be that one's. The hospital does not know them."""
    (hospital, *others) = hospitals(lambda name, keys: keys)
    sybils = [worker(f"sybil-{i}") for i in range(2)]
    vectors = means([hospital]) | {s: torch.zeros(2).send(s) for s in sybils}
    with pytest.raises(AggregationError):
        sy.federated.secure_sum(vectors, minimum=3)
    assert not [1 for event, _ in hospital.transport.engine.journal.events if event == "aggregated"]
    for one in (hospital, *others, *sybils):
        one.close()


def test_over_sockets_between_processes(three_nodes):
    sent = {w: torch.full((5,), float(i)).send(w) for i, w in enumerate(three_nodes)}
    assert sy.federated.secure_sum(sent).values[0].tolist() == [3.0] * 5


def test_complex_numbers_are_refused(five):
    with pytest.raises(ConfigurationError, match="view_as_real"):
        sy.federated.secure_sum({one: (torch.ones(2) * 1j).send(one) for one in five})


@pytest.fixture
def pair():
    workers = [sy.VirtualWorker(id=f"pair-{i}") for i in range(2)]
    yield workers
    for worker in workers:
        worker.close()


def test_what_is_cut_is_warned_of(pair, caplog):
    total = sy.federated.secure_sum({worker: torch.tensor([1000.0, 1.0]).send(worker) for worker in pair})
    assert total.values[0].tolist() == [16.0, 2.0] and "cut to it, of pair-0 (0.5), pair-1 (0.5): a larger clip=" in caplog.text
    caplog.clear()
    mean = sy.federated.secure_average({worker: torch.tensor([1000.0, 1.0]).send(worker) for worker in pair}, clip=2000.0)
    assert mean.values[0].tolist() == [1000.0, 1.0] and not caplog.records


@pytest.mark.parametrize(
    ("vector", "weights", "options", "match"),
    [
        (lambda w: None, None, {}, "adds a pointer, several, or a module"),
        (lambda w: torch.ones(2).send(w), lambda w: 3, {}, "weights are .* of pair-0 it is int"),
        (lambda w: torch.ones(2).send(w), lambda w: torch.ones(3), {}, "weights are .* it is Tensor"),
        (lambda w: torch.ones(2).send(w), None, {"cli": 3}, "no option cli"),
    ],
)
def test_what_no_sum_is_of_is_named(pair, vector, weights, options, match):
    given = None if weights is None else {w: weights(w) for w in pair}
    with pytest.raises(ConfigurationError, match=match):
        sy.federated.secure_average({w: vector(w) for w in pair}, given, **options)
    if given is not None:
        with pytest.raises(ConfigurationError, match="for each worker that adds"):
            sy.federated.secure_average({w: vector(w) for w in pair}, {pair[0]: torch.ones(3).send(pair[0])})
