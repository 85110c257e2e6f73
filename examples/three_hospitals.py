"""All together: three hospitals learn one model under policies, by DP-SGD, added up securely, with ledgers and audit trails.

    python examples/three_hospitals.py                    scikit-learn's breast cancer data, nodes in processes of their own
    python examples/three_hospitals.py --rounds 20 --plot three_hospitals.png

    policy        each hospital's patients leave by differential privacy alone: epsilon 4 at delta 1e-5, for the whole study
    training      by the hospital: it samples its patients, clips each one's gradient, adds the noise and charges its ledger
    aggregation   masked weights: the researcher sees the mean of three, never one hospital's, which is private even so
    budget        after some rounds the accounts are spent: the next round is refused, and the model stays as it was
    audit         every hospital's trail says who computed what and what it cost, and is verified against its key

The researcher holds the test patients; the model without any of it, on all rows in one place, is trained for comparison.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from arguments import at_least, picture
from torch import nn

import syftlite as sy
from syftlite.federated import Federation, History, PrivateTraining
from syftlite.storage.audit import entries
from syftlite.storage.journal import verify
from syftlite.storage.keys import load_key, public_of

HOSPITALS = ("north", "east", "south")
POLICY = sy.policy.dp(epsilon=4.0, delta=1e-5)
COLUMNS = 30


class Outcome(NamedTuple):
    """What the study gave: its rounds, what plain training reaches, what each hospital's account has spent, and records of its trail."""

    history: History
    plain: float
    spent: dict[str, float]
    records: dict[str, int]


def patients() -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 31) float32 to learn from, (100, 31) to test on: 30 measurements of a tumour, each cut to [-1, 1], and whether it is benign.

    They are scaled by ranges that are stated beforehand, not found in the patients: a mean would be an answer about them.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    x = torch.as_tensor(bunch.data, dtype=torch.float32)
    typical = torch.tensor([14, 19, 92, 650, 0.1, 0.1, 0.09, 0.05, 0.18, 0.06, 0.4, 1.2, 2.9, 40, 0.007, 0.025, 0.03, 0.012, 0.02, 0.004,
                            16, 26, 107, 880, 0.13, 0.25, 0.27, 0.11, 0.29, 0.08])  # fmt: skip
    rows = torch.cat([(x / typical - 1).clamp(-1, 1), torch.as_tensor(bunch.target, dtype=torch.float32)[:, None]], 1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return rows[:-100], rows[-100:]


def network() -> nn.Module:
    """30 measurements in, the logits of two classes out."""
    torch.manual_seed(0)
    return nn.Linear(COLUMNS, 2)


def rows_of(hospital: sy.WebsocketClientWorker) -> sy.BaseDataset:
    """The hospital's patients as data and targets: two views of one PRIVATE table, so that one account pays for both."""
    (table,) = hospital.search("#patients")
    return sy.BaseDataset(table[:, :COLUMNS], table[:, COLUMNS].long())


def plain_accuracy(train: torch.Tensor, test: torch.Tensor) -> float:
    """What the same model reaches on all rows in one place, with nothing hidden."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train[:, :COLUMNS]), train[:, COLUMNS].long()).backward()
        optimizer.step()
    return float((model(test[:, :COLUMNS]).argmax(1) == test[:, COLUMNS].long()).float().mean())


def study(hospitals: Sequence[sy.WebsocketClientWorker], test: torch.Tensor, rounds: int) -> History:
    """The researcher's program: it has a model and three connections, and no patient."""
    training = PrivateTraining(
        network, l2_norm_clip=1.0, noise_multiplier=2.0, batch_size=40, steps=5,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
    )  # fmt: skip
    federation = Federation(
        sy.FederatedDataset([rows_of(hospital) for hospital in hospitals]), network, training=training, aggregation="secure",
        minimum=len(hospitals), evaluate=(test[:, :COLUMNS], test[:, COLUMNS].long()),
    )  # fmt: skip
    for _ in range(rounds):
        try:
            print(federation.fit(1, progress=False)[-1])
        except sy.errors.AggregationError as refusal:
            print(f"no further round: {refusal}")
            break
    return federation.history


def told(folder: Path, name: str) -> int:
    """Verify a hospital's trail and print what it says; returns how many records are right."""
    verdict = verify(folder / name / "journal.jsonl", public_of(load_key(folder / name / "node.key")))
    assert verdict.broken is None, verdict.broken
    did: dict[str, int] = {}
    for entry in entries(folder / name / "journal.jsonl"):
        did[entry.event] = did.get(entry.event, 0) + 1
    print(f"{name}'s trail: {verdict.right} records, none changed: {', '.join(f'{count} {event}' for event, count in did.items())}")
    return verdict.right


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The story."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=at_least(1), default=20)
    options.add_argument("--plot", type=picture, help="draw accuracy and budget to this file")
    chosen = options.parse_args(arguments)
    train, test = patients()
    plain = plain_accuracy(train, test)
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        cluster = sy.LocalCluster(*HOSPITALS, threads=1, folder=folder)
        try:
            cluster.start(connect=False)
            for name, part in zip(HOSPITALS, train.tensor_split(len(HOSPITALS))):
                with cluster.session(name, "owner") as owner:
                    owner.store(part, "#patients", name="patients", description="30 measurements, benign", private=True)
                    owner.set_policy("patients", POLICY)
                    print(f"{name}: {len(part)} patients stay here")
            hospitals = [cluster.connect(name) for name in HOSPITALS]
            try:
                hospitals[0].search("#patients")[0].mean(0).get()
            except sy.errors.GetNotPermittedError as refusal:
                print(f"a mean, without noise: {refusal}")
            history = study(hospitals, test, chosen.rounds)
            standings = {name: sy.dp.budget(rows_of(hospital).data)[0] for name, hospital in zip(HOSPITALS, hospitals)}
            for name, standing in standings.items():
                print(f"{name}'s {standing}")
            for hospital in hospitals:
                hospital.close()
        finally:
            cluster.stop()
        records = {name: told(folder, name) for name in HOSPITALS}
    print(f"{history[-1].metrics['accuracy']:.1%} right of {len(test)} patients that nobody trained on; {plain:.1%} with nothing hidden")
    if chosen.plot:
        print(f"drawn: {history.plot(chosen.plot)}")
    return Outcome(history, plain, {name: standing.spent for name, standing in standings.items()}, records)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
