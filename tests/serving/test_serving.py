"""Served models on virtual workers: shared, queried, paused, served again, and the errors that say what to do."""

import itertools
import threading
from types import SimpleNamespace

import pytest
import torch
from engine._parties import as_it_is
from torch import nn

import syftlite as sy
from serving.models import ATTENTIONS, SEQUENCES, cnn, mlp, rows
from syftlite.engine import desk as desks
from syftlite.engine import streams
from syftlite.engine.count import Count
from syftlite.engine.engine import Engine
from syftlite.engine.founding import Founding
from syftlite.engine.holder import Holder
from syftlite.engine.marks import Mark
from syftlite.engine.queries import ModelForm, Served
from syftlite.engine.session import Principal, Role, Session
from syftlite.errors import (
    GetNotPermittedError,
    IdNotUniqueError,
    Misuse,
    ModelStoppedError,
    ObjectNotFoundError,
    ProtocolError,
    SendNotPermittedError,
    SharingAbortedError,
    UnsupportedLayerError,
)
from syftlite.policy.labels import private
from syftlite.serving import client as clients
from syftlite.serving import publish
from syftlite.serving.graph import Builder, Input
from syftlite.serving.publish import batches
from syftlite.testing.peer import number_of
from syftlite.wire import messages as m


@pytest.fixture(scope="module", params=[False, True], ids=["memory", "codec"])
def workers(request):
    made = [sy.VirtualWorker(id=f"serving {name} {request.param}", serialize=request.param) for name in ("alice", "bob", "carol", "dave")]
    yield made
    for worker in made:
        worker.close()


in_memory = pytest.mark.parametrize("workers", [False], ids=["memory"], indirect=True)


@pytest.fixture
def serve(workers):
    models = []

    def serve(graph, holders=2, **options):
        models.append(sy.serve(graph, *workers[:holders], crypto_provider=workers[holders], **options))
        return models[-1]

    yield serve
    for model in models:
        model.stop()


def test_the_answer_is_the_models(serve, workers):
    graph = mlp(12, 16, 8, 5)
    served = serve(graph, batch=4)
    with sy.connect_to_model(*workers[:2]) as client:
        for n in (1, 4, 11):
            x = rows(n, 12, seed=n)
            answer = client.query(x)
            assert answer.dtype == torch.float32
            assert torch.allclose(answer, graph.run(x), atol=1e-3)
        assert torch.allclose(client.query(x.numpy()), graph.run(x), atol=1e-3)
        assert "(rows, 12) -> (rows, 5)" in repr(client)
    assert (served.state, served.served) == ("serving", 8)
    assert "serving alice" in repr(served) and "batches of up to 4" in repr(served)


def test_functions_in_the_middle_are_computed_by_the_holders(serve, workers):
    build, x = Builder(Input((6,))), "input"
    for i, function in enumerate(("silu", "gelu", "sigmoid", "tanh", "softmax")):
        x = build.add("linear", f"dense {i}", [x], {"weight": rows(6, 6, seed=i), "bias": rows(6)})
        x = build.add(function, f"{function} {i}", [x])
    x = build.add("layer_norm", "norm", [x], {"scale": rows(6), "shift": rows(6, seed=1)}, eps=1e-3)
    build.add("softmax", "last", [x])
    graph = build.graph()
    serve(graph, batch=2)
    client = sy.connect_to_model(*workers[:2])
    assert [name for name, _ in client.form.last] == ["softmax"]
    assert torch.allclose(client.query(rows(2, 6, seed=3)), graph.run(rows(2, 6, seed=3)), atol=1e-3)


def test_functions_of_a_torch_module_are_computed_by_the_holders(serve, workers):
    torch.manual_seed(0)
    hidden = [nn.GELU("tanh"), nn.ELU(0.5), nn.SELU(), nn.Softplus(), nn.SiLU(), nn.LayerNorm(6)]
    module = nn.Sequential(*[layer for function in hidden for layer in (nn.Linear(6, 6), function)], nn.Linear(6, 2)).eval()
    serve(module, batch=2, input_shape=(6,))
    x = rows(2, 6)
    assert torch.allclose(sy.connect_to_model(*workers[:2]).query(x), module(x).detach(), atol=1e-3)


@pytest.mark.parametrize("name", ["by hand", "heads", "norm first", "samples", "recurrent"])
def test_sequences(serve, workers, name):
    make, shape = SEQUENCES[name]
    torch.manual_seed(0)
    module, x = make().eval(), rows(2, *shape)
    serve(module, batch=2, input_shape=shape)
    assert torch.allclose(sy.connect_to_model(*workers[:2]).query(x), module(x).detach(), atol=1e-3)


@pytest.mark.parametrize("name", ["padding and causal", "hidden by hand", "distances", "cross", "the last", "transformer", "places, length first", "adaptive"])
def test_attention_with_masks_of_two_inputs_and_length_first(serve, workers, name):
    make, *shapes = ATTENTIONS[name]
    torch.manual_seed(0)
    module, inputs = make().eval(), [rows(2, *shape) for shape in shapes]
    serve(module, batch=2, example=tuple(rows(2, *shape) for shape in shapes))
    assert torch.allclose(sy.connect_to_model(*workers[:2]).query(*inputs), module(*inputs).detach(), atol=2e-3)


def test_a_rehearsal_tells_what_a_run_takes(serve, workers):
    serve(cnn(), batch=3, output="label")
    client = sy.connect_to_model(*workers[:2])
    for worker in workers[:2]:
        for stream in worker.engine.serving.models["model"][1].streams.values():
            stream.rehearse((8, 8, 1))
            found, stream.requests, used, runs = stream.requests, (), stream.session.used, stream.runs
            stream.rehearse((8, 8, 1))
            assert stream.requests == found and stream.session.used == used and stream.runs == runs
            stream.requests = ()
            client.query(rows(stream.rows, 8, 8, 1))
            assert stream.requests == found and stream.runs == runs + 1


def test_three_holders(serve, workers):
    graph = cnn()
    serve(graph, holders=3, batch=2)
    x = rows(3, 8, 8, 1)
    assert torch.allclose(sy.connect_to_model(*workers[:3]).query(x), graph.run(x), atol=1e-3)


def test_three_and_nobody_else(workers):
    """The third deals: it holds nothing, and hears nothing of a query."""
    graph = cnn()
    with sy.serve(graph, *workers[:3], protocol="aby3", name="three") as served, sy.connect_to_model(*workers[:2], name="three") as client:
        x = torch.randn(2, *graph.inputs[0].row)
        assert torch.allclose(client.query(x), graph.run(x), atol=1e-2)
        assert client.form.members == tuple(worker.id for worker in workers[:3]) and "provider" in repr(served)
    for holders, options in ((workers[:2], {}), (workers[:4], {}), (workers[:3], {"crypto_provider": workers[3]})):
        with pytest.raises(Misuse, match="three"):
            sy.serve(graph, *holders, protocol="aby3", **options)
    with pytest.raises(Misuse, match="no protocol 'spdz'"):
        sy.serve(graph, *workers[:2], crypto_provider=workers[2], protocol="spdz")


def test_only_the_label(serve, workers):
    graph = mlp(12, 16, 5)
    serve(graph, output="label", batch=4)
    x = rows(9, 12)
    answer = sy.connect_to_model(*workers[:2]).query(x)
    assert answer.dtype == torch.int64 and torch.equal(answer, graph.run(x).argmax(1))


def test_a_label_of_one_score_is_its_sign(serve, workers):
    graph = mlp(12, 16, 1, last="sigmoid")
    serve(graph, output="label", batch=8)
    x = rows(8, 12, scale=5, seed=3)
    wanted = (graph.run(x)[:, 0] > 0.5).long()
    assert 0 < wanted.sum() < 8
    assert torch.equal(sy.connect_to_model(*workers[:2]).query(x), wanted)


def test_several_inputs_and_numbers(serve, workers):
    build = Builder(Input((3,), "words", numbers=7), Input((4,), "features"))
    words = build.add("embedding", "embedding", ["words"], {"weight": rows(7, 2)})
    words = build.add("flatten", "flatten", [words])
    both = build.add("concat", "concat", [words, "features"], axis=1)
    build.add("linear", "dense", [both], {"weight": rows(3, 10), "bias": rows(3)})
    graph = build.graph()
    serve(graph, batch=2)
    client = sy.connect_to_model(*workers[:2])
    given = torch.tensor([[0, 6, 3], [2, 2, 1], [5, 0, 0]]), rows(3, 4)
    assert torch.allclose(client.query(*given), graph.run(*given), atol=1e-3)
    with pytest.raises(ValueError, match="whole numbers from 0 to 6, and these reach 7"):
        client.query(torch.tensor([[0, 7, 3]]), rows(1, 4))
    with pytest.raises(ValueError, match="the inputs have 3, 1 rows"):
        client.query(given[0], rows(1, 4))
    with pytest.raises(ValueError, match="the model has 2 inputs"):
        client.query(given[0])


def test_requests_are_counted_told_and_refused_beyond(serve, workers):
    served = serve(mlp(4, 3), num_requests=2)
    client = sy.connect_to_model(*workers[:2])
    client.query(rows(1, 4))
    client.query(rows(5, 4))
    told = []
    assert served.wait(told.append) == 2
    assert [line.split(", ")[1] for line in told] == ["1 row", "5 rows"] and told[1].startswith("request 2: me")
    with pytest.raises(ModelStoppedError, match=r"takes no queries now \(2 served\): its owner may serve\(\) it again"):
        client.query(rows(1, 4))
    served.serve(num_requests=1)
    client.query(rows(1, 4))
    assert served.wait(told.append) == 3 and len(told) == 3
    served.serve()
    client.query(rows(1, 4))
    assert served.state == "serving"
    served.pause()
    assert served.state == "stopped" and served.wait(told.append) == 4


def test_many_queries_at_a_time_each_get_their_own(serve, workers):
    graph = mlp(4, 8, 3)
    serve(graph, batch=4)
    clients = [sy.connect_to_model(*workers[:2]) for _ in range(3)]
    waiting = [(x := rows(1 + i % 3, 4, seed=i), clients[i % 3].query_async(x)) for i in range(30)]
    for x, answer in reversed(waiting):
        assert torch.allclose(answer.get(), graph.run(x), atol=1e-3)
        assert answer.get() is answer.join()


def test_threads_share_a_client(serve, workers):
    if workers[0].transport.__class__.__name__ == "SerializingTransport":
        pytest.skip("one thread at a time encodes")
    graph = mlp(4, 8, 3)
    serve(graph, batch=8)
    client, wrong = sy.connect_to_model(*workers[:2]), []

    def ask(seed):
        for i in range(10):
            x = rows(1, 4, seed=100 * seed + i)
            if not torch.allclose(client.query(x), graph.run(x), atol=1e-3):
                wrong.append((seed, i))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_after_the_end_everybody_is_told(serve, workers):
    served = serve(mlp(4, 3))
    client = sy.connect_to_model(*workers[:2])
    before = [len(worker.engine.sessions) for worker in workers]
    served.stop()
    assert served.state == "not shared" and "not shared" in repr(served)
    assert [len(w.engine.sessions) for w in workers[:2]] == [n - 1 for n in before[:2]], "the shares of the weights are gone"
    with pytest.raises(SharingAbortedError, match="'model' stopped: its owner retired it. Have its owner serve it again"):
        client.query(rows(1, 4))
    with pytest.raises(ObjectNotFoundError, match="serves no model 'model': see that its owner serves it"):
        sy.connect_to_model(*workers[:2])
    with pytest.raises(Misuse, match="not shared: serve"):
        served.wait()
    served.serve()
    assert sy.connect_to_model(*workers[:2]).query(rows(1, 4)).shape == (1, 3)


def test_serving_under_a_name_again_replaces_it(serve, workers):
    serve(mlp(4, 3), name="digits")
    old = sy.connect_to_model(*workers[:2], name="digits")
    graph = mlp(4, 3, seed=5)
    serve(graph, name="digits")
    with pytest.raises(SharingAbortedError, match="its owner serves it anew"):
        old.query(rows(1, 4))
    new = sy.connect_to_model(*workers[:2], name="digits")
    assert torch.allclose(new.query(rows(1, 4)), graph.run(rows(1, 4)), atol=1e-3)


def test_a_model_is_its_owners(serve, workers):
    serve(mlp(4, 3), name="mine")
    engine = workers[0].engine
    owner, place = engine.serving.models["mine"]
    engine.serving.models["mine"] = ("someone else", place)
    with pytest.raises(IdNotUniqueError, match="has a model 'mine' of someone else's: choose another name"):
        sy.serve(mlp(4, 3), *workers[:2], crypto_provider=workers[2], name="mine")
    engine.serving.models["mine"] = (owner, place)


def test_of_two_who_serve_under_one_name_at_once_the_first_keeps_it(workers, monkeypatch):
    serving = workers[0].engine.serving
    made, stopped = Founding.desk, []
    first = type("Place", (), {"leave": lambda self, session: None, "stop": lambda self, why: stopped.append(why)})()

    def overtaken(founding, member):
        place = made(founding, member)
        if founding.engine is workers[0].engine:
            serving.models["ours"] = ("someone else", first)  # ... becomes that on another thread
        return place

    monkeypatch.setattr(Founding, "desk", overtaken)
    with pytest.raises((IdNotUniqueError, SharingAbortedError)):
        sy.serve(mlp(4, 3), *workers[:2], crypto_provider=workers[2], name="ours")
    assert serving.models.pop("ours") == ("someone else", first) and not stopped


def test_a_model_is_for_those_whom_its_owner_names(serve, workers):
    serve(mlp(4, 3), clients=("ben", "clara"), name="theirs")
    with pytest.raises(ObjectNotFoundError) as hidden:
        sy.connect_to_model(*workers[:2], name="theirs")
    with pytest.raises(ObjectNotFoundError) as missing:
        sy.connect_to_model(*workers[:2], name="nobody's")
    assert str(hidden.value) == str(missing.value).replace("nobody's", "theirs").replace('"theirs"', "'theirs'"), "both answer alike"
    graph = mlp(4, 3)
    serve(graph, clients=["me"], name="mine")
    assert torch.allclose(sy.connect_to_model(*workers[:2], name="mine").query(rows(2, 4)), graph.run(rows(2, 4)), atol=1e-3)
    with pytest.raises(Misuse, match="clients= are names of principals"):
        sy.serve(mlp(4, 3), *workers[:2], crypto_provider=workers[2], clients="ben")


def test_a_weight_of_private_data_is_in_no_model(serve, workers, monkeypatch):
    recorded = publish._recorded

    def marked(lowered, weights, *rest):
        programs = recorded(lowered, weights, *rest)
        (bias,) = [weight for weight in weights.values() if weight.dim() == 1]
        share = bias.child.shares[0]
        share.location.transport.flush()
        _, cell = share.location.transport.session.look_up(share._handle.id)
        cell.mark = Mark(private("patients")._replace(shared=True), None)
        return programs

    monkeypatch.setattr(publish, "_recorded", marked)
    with pytest.raises(SendNotPermittedError, match="takes part in no model without its owner's permit"):
        serve(mlp(4, 3))


def test_an_answer_of_private_data_leaves_to_its_owner_alone(serve, workers, monkeypatch):
    """The gate is the last door: what it keeps in if a label got that far."""
    run = streams.Stream.run

    async def leaks(self, batch):
        return (await run(self, batch))._replace(label=private("patients"))

    monkeypatch.setattr(streams.Stream, "run", leaks)
    graph, ben = mlp(4, 3), Principal("ben", Role.SCIENTIST)
    serve(graph)
    client = sy.connect_to_model(*workers[:2])
    assert torch.allclose(client.query(rows(2, 4)), graph.run(rows(2, 4)), atol=1e-3), "me, the owner"
    for worker in workers[:2]:
        monkeypatch.setattr(worker.transport.session, "principal", ben)
    with pytest.raises(GetNotPermittedError, match="patients"):
        client.query(rows(2, 4))


def test_the_group_computes_on_after_it_was_handed_over(serve, workers):
    alice, bob, carol = workers[:3]
    x = rows(4, 4)
    shared = x.fix_precision().share(alice, bob, crypto_provider=carol)
    serve(mlp(4, 3))
    assert torch.allclose((shared @ shared).decrypt(), x @ x, atol=1e-3)


def test_what_cannot_be_served_is_named(workers):
    alice, bob, carol = workers[:3]
    build = Builder(Input((4,)))
    x = build.add("linear", "dense", ["input"], {"weight": rows(2, 4)})
    build.add("embedding", "words", [x], {"weight": rows(3, 4)})
    with pytest.raises(UnsupportedLayerError, match="layer 'words': it reads at secret places"):
        sy.serve(build.graph(), alice, bob, crypto_provider=carol)
    for options, told in [
        ({"output": "logits"}, "output is scores or label, not 'logits'"),
        ({"batch": 0}, "a batch has 1 to 4096 rows, not 0"),
        ({"num_requests": 0}, "num_requests is at least 1"),
    ]:
        with pytest.raises(Misuse, match=told):
            sy.serve(mlp(4, 3), alice, bob, crypto_provider=carol, **options)
    with pytest.raises(Misuse, match="label is of one row of scores"):
        sy.serve(cnn_features(), alice, bob, crypto_provider=carol, output="label")


def cnn_features():
    build = Builder(Input((1, 4, 4)))
    build.add("relu", "relu", ["input"])
    return build.graph()


def test_what_a_client_does_wrong_is_told_before_anything_is_sent(serve, workers):
    alice, bob, carol = workers[:3]
    serve(mlp(4, 3))
    client = sy.connect_to_model(alice, bob)
    for x, told in [
        (rows(1, 5), r"input 1 is \(rows, 4\), and this is \(1, 5\)"),
        (rows(4), r"and this is \(4,\)"),
        (rows(0, 4), "at least one row"),
        (rows(1, 4) * 1e9, "does not fit"),
        (rows(1, 4) / 0, "does not fit"),
    ]:
        with pytest.raises(ValueError, match=told):
            client.query(x)
    with pytest.raises(Misuse, match="at least two workers"):
        sy.connect_to_model(alice)
    with pytest.raises(Misuse, match="is named twice"):
        sy.connect_to_model(alice, alice, bob)
    serve(mlp(4, 3), holders=3, name="of three")
    with pytest.raises(Misuse, match=f"'of three' is held by {alice.id}, {bob.id}, {carol.id}, and this is {bob.id}, {alice.id}"):
        sy.connect_to_model(bob, alice, name="of three")
    with pytest.raises(ObjectNotFoundError, match="no model"):
        sy.connect_to_model(alice, carol)


def test_a_name_is_taken_until_nothing_more_is_ordered_under_it(serve, workers):
    """Between a client's end at one holder and the leader's word of it the leader may still order what this holder has."""
    serve(mlp(4, 4), batch=2)
    desk = workers[1].engine.serving.models["model"][1]
    leader, told = desk.leader, []

    class Late:
        def gone(self, holder, channel):
            told.append((holder, channel))

    first, second = (workers[1].engine.open_session(Principal(name, Role.SCIENTIST)) for name in ("ann", "eve"))
    desk.attach(first, "c")
    with pytest.raises(Misuse, match="taken"):
        desk.attach(second, "c")
    desk.leader = Late()
    try:
        desk.leave(first)
        with pytest.raises(Misuse, match="taken"):
            desk.attach(second, "c")
        for holder, channel in told:
            leader.gone(holder, channel)
        desk.attach(second, "c")
    finally:
        desk.leader = leader
    desk.leave(second)
    assert not desk.closing


@pytest.mark.parametrize("leaves", [0, 1])
def test_a_client_that_leaves_while_its_batch_is_decided_stops_nobody(serve, workers, monkeypatch, leaves):
    """What was taken for a batch is ordered before any word of its client's end, at the leader and at the others."""
    graph = mlp(6, 4)
    serve(graph, batch=2)
    leaver, threads = workers[leaves].engine.serving.models["model"][1], []
    with sy.connect_to_model(*workers[:2]) as gone:
        began, channel = Count.began, leaver.channels[gone._channel]

        def leave_then_begin(self, count):
            if not threads:
                threads.append(threading.Thread(target=leaver.leave, args=(channel.session,)))
                threads[0].start()
                threads[0].join(0.3)  # as far as it comes before the others are told
            began(self, count)

        monkeypatch.setattr(Count, "began", leave_then_begin)
        x = rows(2, 6)
        assert torch.allclose(gone.query(x, timeout=20), graph.run(x), atol=1e-3)
        threads[0].join()
        assert gone._channel not in leaver.channels
    with sy.connect_to_model(*workers[:2]) as other:
        assert torch.allclose(other.query(x), graph.run(x), atol=1e-3)
    assert not leaver.closing and not leaver.waiting


@in_memory
def test_a_client_that_leaves_once_its_query_is_ready_stops_nobody(serve, workers, monkeypatch):
    graph = mlp(6, 4)
    serve(graph, batch=2)
    leader, x = workers[0].engine.serving.models["model"][1], rows(2, 6)
    add = leader.ready.add
    with sy.connect_to_model(*workers[:2]) as gone:
        session = leader.channels[gone._channel].session
        monkeypatch.setattr(leader.ready, "add", lambda *given: add(*given) or leader.leave(session))
        assert torch.allclose(gone.query(x, timeout=20), graph.run(x), atol=1e-3)
    monkeypatch.setattr(leader.ready, "add", add)
    with sy.connect_to_model(*workers[:2]) as other:
        assert torch.allclose(other.query(x, timeout=20), graph.run(x), atol=1e-3)


@in_memory
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_batch_that_is_broken_off_ends_the_model_at_once_for_whoever_waits(serve, workers, monkeypatch, error):
    """In the middle of its rounds, too: one holder has drawn what another has not."""
    serve(mlp(6, 4), batch=2)
    client, digest = sy.connect_to_model(*workers[:2]), desks.Stream.digest

    def broken_off(stream, batch):
        if stream.party.index == 1 or error is KeyboardInterrupt:
            raise error("no room")
        return digest(stream, batch)

    monkeypatch.setattr(desks.Stream, "digest", broken_off)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else SharingAbortedError, match="no room"):
        client.query(rows(1, 6), timeout=5)
    monkeypatch.undo()
    with pytest.raises(SharingAbortedError, match=f"stopped: {error.__name__}: no room"):
        client.query(rows(1, 6), timeout=5)


def asked(worker, desk, number):
    """A session of ``worker`` with a channel, by its name, and what its query of one row waits for."""
    session = worker.engine.open_session(Principal("eve", Role.SCIENTIST))
    desk.attach(session, f"c{number}")
    session.put(session.prefix << 32 | 1, torch.zeros(1, *desk.form.shape, dtype=torch.int64))
    return session, desk.take(session, 1, f"c{number}", 1, session.prefix << 32 | 1)


@in_memory
def test_who_pauses_a_model_has_it_take_nothing_though_places_are_given_back(serve, workers):
    served = serve(mlp(6, 4), num_requests=2)
    leader = workers[0].engine.serving.models["model"][1]
    early, _ = asked(workers[0], leader, 1)
    leader.leave(early)
    assert leader.count.left == 2, "it was not run"
    late, _ = asked(workers[0], leader, 2)
    served.pause()
    leader.leave(late)
    assert leader.count.left == 0 and served.state == "stopped"


@in_memory
def test_whose_batch_cannot_be_forgotten_elsewhere_is_told_so(serve, workers):
    """The link to a third holder breaks as the client leaves the second."""
    serve(mlp(6, 4))
    leader = workers[0].engine.serving.models["model"][1]

    class Cut:
        def forget(self, channel):
            raise SharingAbortedError("the link broke")

    session, answer = asked(workers[0], leader, 1)
    leader.others = {1: Cut()}
    with leader._running:  # nothing begins
        leader.have(1, ("c1", 1), 1)
        with pytest.raises(SharingAbortedError, match="the link broke"):
            leader.gone(1, "c1")
    assert "connect again" in answer.wait(0)[3]
    leader.leave(session)


def test_of_two_models_of_one_name_and_owner_the_other_ends(monkeypatch):
    """Made at the same time by two of its connections; or one made as the other is retired."""
    engine, made = Engine("alice"), []
    one, two = sessions = [engine.open_session(Principal("ann", Role.OWNER)) for _ in range(2)]
    for session in sessions:
        session.members[1] = Holder.__new__(Holder)
        session.members[1].broken = None
    told = (1, "m", (), (), (None,) * 9, (), None)

    class Place:
        stopped = None

        def stop(self, why):
            if self is made[0]:
                engine.serving.models["m"] = "ann", made[1]
            self.stopped = why

    def desk(founding, member):
        made.append(Place())
        if len(made) == 1:
            engine.serving._serve(two, *told)
            return made[0]
        return made[1]

    monkeypatch.setattr(Founding, "desk", desk)
    engine.serving._serve(one, *told)
    assert engine.serving.models["m"][1] is made[0] and made[1].stopped == "its owner serves it anew"
    engine.serving._retire(one, 1, "m")
    assert engine.serving.models["m"][1] is made[1]


def test_a_desk_that_finds_no_others_leaves_no_thread_behind(monkeypatch):
    engine, owner, closed = Engine("alice"), Principal("ann", Role.OWNER), []
    form = ModelForm(("alice", "bob", "carol"), (1,), (), (1,), 2, 16, False, 1, ())
    founding = Founding(engine, engine.open_session(owner), Served("alone", form, None, engine.gate.permit), (), (), ())
    monkeypatch.setattr("syftlite.engine.founding._additive", lambda member: SimpleNamespace(first=True, last=False))
    monkeypatch.setattr(Founding, "_made", lambda *given: {})
    monkeypatch.setattr(Founding, "_linked", lambda *given: {})
    with pytest.raises(ProtocolError, match="a link for errands"):
        founding._desk(engine.open_session(owner), SimpleNamespace(driver=SimpleNamespace(close=closed.append)))
    for thread in [thread for thread in threading.enumerate() if thread.name == "model alone"]:
        thread.join(5.0)
        assert not thread.is_alive()
    assert closed


@in_memory
def test_many_batches_and_answers_that_nobody_reads(serve, workers, monkeypatch):
    monkeypatch.setattr(clients, "MAX_UNDERWAY", 3)
    graph = mlp(6, 4)
    serve(graph, batch=2)
    with sy.connect_to_model(*workers[:2], timeout=5.0) as client:
        x = rows(15, 6)
        assert torch.allclose(client.query(x), graph.run(x), atol=1e-3), "more batches than are asked for at once"
        for _ in range(8):
            client.query_async(x[:1])
        waiting = [client.query_async(x[:1]) for _ in range(3)]
        client.timeout = 0.0
        with pytest.raises(Misuse, match=r"get\(\) the answers of some first"):
            client.query_async(x[:1])
        monkeypatch.setattr(client.holders[0].transport, "finish", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            waiting[0].get()
        monkeypatch.undo()
        with pytest.raises(SharingAbortedError, match="query again"):
            waiting[0].get(5.0)
        assert all(torch.allclose(answer.get(5.0), graph.run(x[:1]), atol=1e-3) for answer in waiting[1:])


def test_one_connection_has_so_many_channels(serve, workers, monkeypatch):
    monkeypatch.setattr(desks, "MAX_OWN", 3)
    serve(mlp(4, 4), batch=2)
    desk = workers[1].engine.serving.models["model"][1]
    session = workers[1].engine.open_session(Principal("eve", Role.SCIENTIST))
    for i in range(3):
        desk.attach(session, f"c{i}")
    with pytest.raises(Misuse, match="has 3 channels"):
        desk.attach(session, "more")
    desk.leave(session)


def test_a_query_is_what_was_sent(serve, workers, monkeypatch):
    """What its sender writes through another name of its memory, after it was sent, is no part of it, PRIVATE or not."""
    build = Builder(Input((3,)))
    build.add("linear", "same", ["input"], {"weight": torch.eye(3), "bias": None})
    serve(build.graph(), batch=1)
    assert answered_after_a_write(workers).abs().max() <= 1, "the zeros that it was"
    monkeypatch.setattr(Session, "take_over", as_it_is)
    assert answered_after_a_write(workers).min() >= (7 << 16) - 1, "the flaw, planted, is seen"


def answered_after_a_write(workers):
    aten, counts = torch.ops.aten, itertools.count(1)
    asked = []
    for worker in workers[:2]:
        transport = type(worker.transport)(worker.engine, Principal("eve", Role.SCIENTIST))
        share, other, seven = (transport.prefix << 32 | next(counts) for _ in range(3))
        transport.put(share, torch.zeros(1, 3, dtype=torch.int64), (), "")
        transport.put(seven, torch.full((1, 3), 7 << 16), (), "")
        transport.cast((m.OP, number_of(aten.view.default), (share, (1, 3)), None, other))
        transport.ask(m.ATTACH, "model", "eve")
        asked.append((transport, transport.begin(m.QUERY, "eve", 1, share)))
        transport.cast((m.OP, number_of(aten.copy_.default), (other, seven), None, None))
        transport.flush()
    answer = sum(transport.finish(request)[2][0] for transport, request in asked)
    for transport, _ in asked:
        transport.close()
    return answer


def test_a_share_of_another_form_is_no_part_of_an_answer(serve, workers):
    graph = mlp(4, 8, 3)
    serve(graph, batch=2)
    x = rows(2, 4)
    with sy.connect_to_model(*workers[:2]) as client:
        bob = client.holders[1]
        for change in (lambda s: s[:1], lambda s: s[:, :1], lambda s: s.double(), lambda s: s[None]):
            bob.transport = Altered(workers[1].transport, lambda shares, change=change: [change(shares[0])])
            with pytest.raises(ProtocolError, match=f"{workers[1].id} answered torch"):
                client.query(x)
        for change in (lambda shares: [], lambda shares: shares * 2):
            bob.transport = Altered(workers[1].transport, change)
            with pytest.raises(ProtocolError, match=f"{workers[1].id} answered"):
                client.query(x)
        bob.transport = workers[1].transport
        assert torch.allclose(client.query(x), graph.run(x), atol=1e-3)


class Altered:
    """A transport whose values are ``change``d."""

    def __init__(self, transport, change):
        self.real, self.change = transport, change

    def __getattr__(self, name):
        return getattr(self.real, name)

    def finish(self, *request):
        kind, number, values = self.real.finish(*request)
        return kind, number, self.change(values)


def test_batches_pad_by_a_third_at_most():
    assert batches(1) == [1] and batches(16) == [1, 2, 3, 4, 6, 8, 12, 16] and batches(5) == [1, 2, 3, 4, 5]
    for most in (1, 7, 100, 128):
        sizes = batches(most)
        assert sizes[-1] == most
        assert all(2 * min(s for s in sizes if s >= n) <= 3 * n for n in range(1, most + 1))
