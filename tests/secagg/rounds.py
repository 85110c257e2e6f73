"""Whole rounds in this process, with clients that go at any stage."""

import os

import torch

from syftlite.secagg import Client, Identity, Server, Terms

STAGES = ("advertise", "share", "mask", "confirm", "unmask")


class Round:
    """``count`` clients with vectors of ``values`` numbers; ``gone``: at which stage a client stops answering, by place."""

    def __init__(self, count, values=5, gone=None, weights=None, vectors=None, **options):
        self.identities = [Identity() for _ in range(count)]
        members = {f"client-{i}": identity.public for i, identity in enumerate(self.identities)}
        self.terms = Terms.of(os.urandom(16), members, values, **options)
        self.clients = {i: Client(self.terms, i, identity) for i, identity in enumerate(self.identities)}
        self.server = Server(self.terms)
        self.vectors = vectors or [torch.randn(values) for _ in range(count)]
        self.weights, self.gone = weights, gone or {}
        self.masked, self.heard = {}, {}

    def there(self, stage, among):
        return [i for i in among if STAGES.index(self.gone.get(i, "unmask")) > STAGES.index(stage) or i not in self.gone]

    def until_masked(self):
        self.adverts = {i: self.clients[i].advertise() for i in self.there("advertise", self.clients)}
        told = self.server.present(self.adverts)
        self.sealed = {i: self.clients[i].share(told[i]) for i in self.there("share", told)}
        self.boxes = self.server.hand_out(self.sealed)
        for i in self.there("mask", self.boxes):
            given = () if self.weights is None else (self.weights[i],)
            self.masked[i] = self.clients[i].mask(self.boxes[i], self.vectors[i], *given)
            self.server.add(i, self.masked[i])
        return self.server.survivors()

    def run(self):
        survivors = self.until_masked()
        signatures = {i: self.clients[i].confirm(survivors) for i in self.there("confirm", survivors)}
        self.revealed = {i: self.clients[i].unmask(signatures) for i in self.there("unmask", signatures)}
        return self.server.total(self.revealed)

    def expected(self):
        """The sum of the survivors' encoded vectors, in the ring."""
        encoded = [
            self.terms.encoding.encode(self.vectors[i], None if self.weights is None else self.weights[i])[0] for i in self.server.survivors()
        ]
        return sum(encoded[1:], encoded[0])
