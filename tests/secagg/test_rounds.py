"""Sums are byte-exact whoever goes whenever; what the server has is masked; a lying server is refused."""

import copy
import os

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from syftlite.errors import AggregationError
from syftlite.secagg import Client, Identity
from syftlite.secagg import client as client_module
from syftlite.secagg import server as server_module
from syftlite.secagg.client import Advert
from tests.secagg.rounds import STAGES, Round


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 8), st.data())
def test_sums_are_exact_under_dropout_at_every_stage(count, data):
    most = count - -(-2 * count // 3)
    gone = data.draw(st.dictionaries(st.integers(0, count - 1), st.sampled_from(STAGES), max_size=max(most, 0)))
    round = Round(count, values=7, gone=gone, minimum=2)
    assert torch.equal(round.run(), round.expected())
    assert set(round.server.survivors()) == {i for i in range(count) if gone.get(i) not in ("advertise", "share", "mask")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_client_that_goes_at_a_stage_is_left_out_or_helped_out(stage):
    round = Round(5, gone={3: stage}, weights=[1.0, 2.0, 3.0, 4.0, 5.0], max_weight=8.0, minimum=3)
    assert torch.equal(round.run(), round.expected())
    mean, weight = round.terms.encoding.decode(round.expected())
    left = [i for i in range(5) if i != 3 or stage in ("confirm", "unmask")]
    assert weight == sum(i + 1 for i in left)
    torch.testing.assert_close(mean, sum(round.vectors[i].double() * (i + 1) for i in left) / weight, atol=1e-4, rtol=0)


def test_a_sparse_graph_gives_the_same_sum():
    round = Round(12, neighbours=6, threshold=4, minimum=6, gone={4: "mask", 9: "share"})
    assert torch.equal(round.run(), round.expected())
    assert all(len(boxes) <= 6 for boxes in round.boxes.values())


@pytest.mark.parametrize("stage", STAGES[:3])
def test_too_few_are_an_error_that_names_who_is_gone(stage):
    round = Round(4, minimum=4, gone={2: stage})
    with pytest.raises(AggregationError, match=r"no word of client-2|present, and 4 are needed"):
        round.run()


def test_too_few_shares_at_the_end_are_an_error():
    round = Round(5, minimum=2, gone={0: "unmask", 1: "unmask"})  # four shares of five are needed
    with pytest.raises(AggregationError, match="shares that are needed"):
        round.run()


# -- what the server sees


def test_what_the_server_receives_of_a_client_says_nothing_of_its_vector():
    """The same vector looks uniform, and differs from round to round; so do two clients' shares of it."""
    vectors = [torch.zeros(4096) for _ in range(4)]
    first, second = Round(4, 4096, vectors=vectors), Round(4, 4096, vectors=vectors)
    first.until_masked(), second.until_masked()
    for i in range(4):
        seen = first.masked[i]
        assert not torch.equal(seen, second.masked[i])
        counts = torch.bincount(seen.view(torch.uint8).long(), minlength=256).double()
        chi = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        assert chi < 400  # 255 degrees of freedom: beyond 400 with probability 2e-8


@pytest.mark.parametrize("part", ["own", "pair"])
def test_without_one_of_the_two_masks_the_test_above_would_fail(part, monkeypatch):
    real = client_module.spread

    def without(total, masks):
        own, *pairs = masks
        assert own[1] == 1 and len(pairs) == 3
        real(total, pairs if part == "own" else [])

    monkeypatch.setattr(client_module, "spread", without)
    round = Round(4, 64, vectors=[torch.zeros(64) for _ in range(4)])
    round.until_masked()
    if part == "own":  # whoever learns the pairs' keys (all others gone, or the server's) reads the vector
        total = round.masked[0].clone()
        for v in (1, 2, 3):
            key = client_module.agree(X25519PrivateKey.from_private_bytes(round.clients[v]._masks), round.adverts[0].masks, round.terms.digest, 0, v, "mask")
            real(total, [(key, -client_module.pair_sign(0, v))])
        assert not total.any()
    else:
        assert not round.masked[0].any()


def test_with_every_other_clients_help_a_client_that_survived_stays_masked_until_the_end():
    """All pair masks known (n - 1 clients and the server together), the own mask still covers: its shares are given out last."""
    round = Round(4, 4096, vectors=[torch.zeros(4096) for _ in range(4)])
    round.until_masked()
    total = round.masked[0].clone()
    for v in (1, 2, 3):
        key = client_module.agree(X25519PrivateKey.from_private_bytes(round.clients[v]._masks), round.adverts[0].masks, round.terms.digest, 0, v, "mask")
        client_module.spread(total, [(key, -client_module.pair_sign(0, v))])
    assert total.count_nonzero() > 4000


# -- a server that lies


def advertised(count=4, **options):
    round = Round(count, **options)
    round.adverts = {i: client.advertise() for i, client in round.clients.items()}
    return round


def refused(round, place, method, *given, match):
    client = round.clients[place]
    with pytest.raises(AggregationError, match=match):
        getattr(client, method)(*given)
    assert client._own == client._masks == client._seals == b""
    with pytest.raises(AggregationError, match="each stage runs once"):
        getattr(client, method)(*given)


def test_another_key_in_a_clients_place_is_refused():
    round = advertised()
    forged = Client(round.terms, 1, round.identities[1]).advertise()
    refused(round, 1, "share", {**round.adverts, 1: forged}, match="other keys for this client")
    mallory = Identity()
    unsigned = forged._replace(signature=mallory.sign(forged.text(round.terms.digest, 1)))
    refused(round, 0, "share", {**round.adverts, 1: unsigned}, match="client-1 are not signed")
    stale = Round(4)
    replayed = Client(stale.terms, 2, stale.identities[2]).advertise()
    refused(round, 2, "share", {**round.adverts, 3: replayed}, match="not signed")


def test_one_client_in_two_places_is_refused():
    round = advertised()
    refused(round, 0, "share", {**round.adverts, 2: round.adverts[1]}, match="one key twice")
    refused(advertised(), 1, "share", {}, match="other keys")


def test_a_stranger_is_refused():
    round = advertised()
    refused(round, 0, "share", {**round.adverts, 9: Advert(os.urandom(32), os.urandom(32), os.urandom(32), bytes(64))}, match="a client 9")


def test_too_small_a_crowd_is_refused():
    round = advertised(minimum=3)
    refused(round, 0, "share", {0: round.adverts[0], 1: round.adverts[1]}, match="2 clients are present")


def masked(count=5, **options):
    round = Round(count, **options)
    return round, round.until_masked()


def test_survivors_that_never_shared_or_lack_this_client_are_refused():
    round, _ = masked(gone={4: "share"}, minimum=3)
    refused(round, 0, "confirm", [0, 1, 2, 3, 4], match="never shared")
    refused(round, 1, "confirm", [0, 2, 3], match="said to be left")
    refused(round, 2, "confirm", [2, 3], match="said to be left")


def test_survivors_that_were_never_there_make_no_crowd():
    round, _ = masked(9, gone={6: "mask", 7: "mask", 8: "mask"}, threshold=6, minimum=6)
    refused(round, 0, "confirm", [0, 1, 2, 3, 4, 5, 100, 101, 102], match="never shared")


def test_a_sum_of_one_is_refused_by_everybody():
    with pytest.raises(Exception, match="a sum of one"):
        Round(3, minimum=1)
    round, _ = masked(minimum=2)
    refused(round, 0, "confirm", [0], match="said to be left")


def test_different_survivors_for_different_clients_are_refused():
    """The attack of section 6.1: to a part of them a client is gone, to the others not, so that both of its secrets come out."""
    round, survivors = masked(minimum=2)
    lied = survivors - {4}
    signatures = {i: round.clients[i].confirm(survivors if i < 2 else lied) for i in (0, 1, 2, 3)}
    refused(round, 0, "unmask", signatures, match="told different things")
    refused(round, 2, "unmask", signatures, match="told different things")


def test_without_signatures_nothing_is_revealed():
    round, survivors = masked()
    signatures = {i: round.clients[i].confirm(survivors) for i in survivors}
    few = {i: signatures[i] for i in (0, 1, 2)}
    refused(round, 0, "unmask", few, match="have confirmed, and 3 are needed")


def test_no_client_reveals_both_secrets_of_a_peer():
    round, survivors = masked(gone={4: "mask"}, minimum=3)
    signatures = {i: round.clients[i].confirm(survivors) for i in survivors}
    revealed = round.clients[0].unmask(signatures)
    assert set(revealed.own) == {0, 1, 2, 3} and set(revealed.keys) == {4}
    refused(round, 0, "unmask", signatures, match="each stage runs once")


def test_boxes_that_were_changed_or_swapped_are_refused():
    for tamper in ("bit", "swap"):
        round = advertised()
        sealed = {i: client.share(round.server.present(round.adverts)[i]) for i, client in round.clients.items()}
        boxes = round.server.hand_out(sealed)
        given = copy.deepcopy(boxes)
        if tamper == "bit":
            given[0][1] = given[0][1][:-1] + bytes([given[0][1][-1] ^ 1])
        else:
            given[0][1] = boxes[2][1]
        for i, client in round.clients.items():
            round.server.add(i, client.mask(given[i], round.vectors[i]))
        survivors = round.server.survivors()
        signatures = {i: client.confirm(survivors) for i, client in round.clients.items()}
        refused(round, 0, "unmask", signatures, match="client 1 sealed for client 0 was changed")


def test_a_client_that_lies_about_its_shares_spoils_the_round_and_is_noticed():
    round = Round(4, gone={3: "mask"}, minimum=2)
    survivors = round.until_masked()
    signatures = {i: round.clients[i].confirm(survivors) for i in survivors}
    revealed = {i: round.clients[i].unmask(signatures) for i in survivors}
    wrong = bytes(33 - 1) + b"\7"
    revealed[0] = revealed[0]._replace(keys={3: wrong})
    with pytest.raises(AggregationError, match="a client lies"):
        round.server.total(revealed)


def lied_to(which, liars, count=6, **options):
    """(A round whose ``liars`` give other shares, of every other client's ``which`` secret, and what they revealed.)"""
    round = Round(count, minimum=2, **options)
    survivors = round.until_masked()
    signatures = {i: round.clients[i].confirm(survivors) for i in survivors}
    revealed = {i: round.clients[i].unmask(signatures) for i in survivors}
    for i in liars:
        told = {v: b"\0" + os.urandom(32) for v in getattr(revealed[i], which) if v != i}
        revealed[i] = revealed[i]._replace(**{which: {**getattr(revealed[i], which), **told}})
    return round, revealed


@pytest.mark.parametrize(("which", "gone"), [("own", {}), ("keys", {5: "mask"})])
def test_a_wrong_share_of_anothers_secret_is_left_aside_and_its_giver_known(which, gone):
    round, revealed = lied_to(which, [1], gone=gone, threshold=4)
    assert torch.equal(round.server.total(revealed), round.expected()) and round.server.wrong == {1}
    round, revealed = lied_to(which, [0, 1, 2], gone=gone, threshold=4)
    with pytest.raises(AggregationError, match="client-0, client-1, client-2 gave other shares of .* a client lies"):
        round.server.total(revealed)


@pytest.mark.parametrize("part", ["tags", "tags and commitment"])
def test_without_tags_the_commitment_tells_and_without_either_the_sum_is_wrong(part, monkeypatch):
    round, revealed = lied_to("own", [1], threshold=4)
    monkeypatch.setattr(server_module, "tag", lambda share, terms, sender, receiver, secret: round.sealed[sender][receiver][-32:])
    if part == "tags":
        with pytest.raises(AggregationError, match="of another secret than it has: a client lies"):
            round.server.total(revealed)
    else:
        monkeypatch.setattr(server_module, "committed", lambda own, terms, place: round.adverts[place].own)
        assert not torch.equal(round.server.total(revealed), round.expected())


def test_a_client_that_seals_other_shares_than_it_says_is_refused_by_who_gets_them(monkeypatch):
    real = client_module.seal
    monkeypatch.setattr(client_module, "seal", lambda key, text, terms, a, b, tags: real(key, bytes(66) if (a, b) == (1, 0) else text, terms, a, b, tags))
    round, survivors = masked()
    signatures = {i: round.clients[i].confirm(survivors) for i in survivors}
    refused(round, 0, "unmask", signatures, match="client-1 sealed no shares, or others")


def test_secrets_are_gone_afterwards():
    round = Round(3)
    secrets = [(c._own, c._masks, c._seals) for c in round.clients.values()]
    round.run()
    held = [v for c in round.clients.values() for v in vars(c).values() if isinstance(v, (bytes, dict))]
    assert all(secret not in repr(held).encode() and secret not in held for group in secrets for secret in group)
    assert "secrets gone" in repr(round.clients[0])


def test_the_server_takes_each_vector_once_and_only_of_its_form():
    round, _ = masked()
    with pytest.raises(AggregationError, match="has sent one"):
        round.server.add(0, round.masked[0])
    fresh, _ = masked(gone={4: "mask"}, minimum=3)
    with pytest.raises(AggregationError, match="leave it out"):
        fresh.server.add(4, torch.zeros(3, dtype=torch.int32))
