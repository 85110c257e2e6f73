"""Two hospitals and a researcher: private answers, mock data, a request, its approval, and a trail that can be proved.

    python examples/two_hospitals.py

    north, south    real nodes in processes of their own, with PRIVATE patients; each publishes a synthetic twin of them
    the researcher  asks private questions, noised at their owner, until the budget is spent; writes the analysis against the twins, runs
                    it on the patients, and asks for its results
    the owners      see who asks, why, what would leave and the program that made it; and decide

The researcher disconnects while the owners decide, and fetches by the request's number. `docs/hospitals.md` tells it as a page.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import torch

import syftlite as sy
from syftlite.storage.audit import entries
from syftlite.storage.journal import verify
from syftlite.storage.keys import load_key, public_of

COLUMNS = "columns: age, systolic"
RANGES = {"age": (18.0, 100.0), "systolic": (80.0, 220.0)}
BINS = torch.arange(20.0, 101.0, 20.0)
"""Edges of the histogram of ages."""


def patients(seed: int, count: int) -> torch.Tensor:
    """(count, 2) float32: age in years, systolic blood pressure in mmHg."""
    generator = torch.Generator().manual_seed(seed)
    age = 20 + 75 * torch.rand(count, generator=generator)
    pressure = 100 + 0.5 * age + 12 * torch.randn(count, generator=generator)
    return torch.stack([age, pressure], 1)


def publish(owner: sy.WebsocketClientWorker, data: torch.Tensor) -> None:
    """What a data officer does once: store the patients, and offer a twin of them."""
    owner.store(data, "#patients", name="patients", description=COLUMNS, private=True)
    owner.set_policy("patients", sy.policy.approve() | sy.policy.dp(epsilon=1.0))
    twin = owner.publish_mock("patients", RANGES, rows=200)
    print(f"{owner.id}: {len(data)} patients stay here; a twin of {twin.shape[0]} is found by {' '.join(twin.tags)}")


def analysis(rows: torch.Tensor) -> torch.Tensor:
    """The mean of each column, and how many patients each span of 20 years has: (2 + 4,) float32. ``rows``: here, or a pointer."""
    ages = rows[:, :1]
    edges = [edge.item() for edge in BINS]
    counts = [((ages >= low) & (ages < high)).float().sum().view(1) for low, high in pairwise(edges)]
    return torch.cat([rows.mean(0), *counts])


def ask(hospital: sy.WebsocketClientWorker) -> str:
    """Try the analysis on the twin, run it on the patients, and ask for the result. Returns the request's number."""
    (twin,) = hospital.search("#patients-mock")
    rehearsal = analysis(twin)
    assert torch.allclose(rehearsal.get(), analysis(twin.get())), "what runs there is what runs here"
    (rows,) = hospital.search("#patients")
    result = analysis(rows)
    try:
        result.get(reason="means and ages for study 12")
    except sy.errors.ApprovalRequiredError as refusal:
        request = refusal.request
        assert isinstance(request, sy.ReleaseRequest)
        print(f"{hospital.id}: the result is PRIVATE; request {request.id} is filed")
        return request.id
    raise AssertionError("PRIVATE data left without approval")


def decide(owner: sy.WebsocketClientWorker) -> None:
    """Look at what waits, and approve what is no row."""
    for request in owner.requests():
        if request.state != "pending":
            continue
        seen = owner.inspect(request, values=True)
        print(f"{owner.id}: {request.principal} asks for {', '.join(request.what)}: {request.reason}")
        print("\n".join(f"    {line}" for line in seen.program))
        if all(value.numel() <= 6 for value in seen.values):
            owner.approve(request, "six numbers of all patients")
        else:
            owner.deny(request, "ask for fewer numbers")


def private_answers(hospital: sy.WebsocketClientWorker) -> tuple[torch.Tensor, torch.Tensor]:
    """What needs nobody's approval, being noised at its owner: (mean age, ages by bins). A third question is one too many."""
    (rows,) = hospital.search("#patients")
    ages = rows[:, 0]
    mean = sy.dp.mean(ages, epsilon=0.4, bounds=RANGES["age"]).get()
    counts = sy.dp.histogram(ages, epsilon=0.4, edges=BINS).get()
    print(f"{hospital.id}: mean age about {mean:.0f}; by 20 years about {', '.join(f'{count:.0f}' for count in counts)} patients")
    try:
        sy.dp.mean(rows[:, 1], epsilon=0.4, bounds=RANGES["systolic"])
    except sy.errors.BudgetExceededError as refusal:
        print(f"{hospital.id}: {refusal}")
    return mean, counts


def greedy(hospital: sy.WebsocketClientWorker) -> str:
    """Ask for a patient. Returns the request's number."""
    (rows,) = hospital.search("#patients")
    return rows[:5].request(reason="five patients, to check").id


def report(results: list[torch.Tensor], counts: list[int]) -> torch.Tensor:
    """Print means and a histogram over both hospitals; returns the pooled means."""
    total = sum(counts)
    means: torch.Tensor = sum(r[:2] * n / total for r, n in zip(results, counts))  # type: ignore[assignment]
    ages: torch.Tensor = sum(r[2:] for r in results)  # type: ignore[assignment]
    print(f"both: mean age {means[0]:.1f} years, mean systolic pressure {means[1]:.1f} mmHg over {total} patients")
    for low, count in zip(BINS, ages):
        print(f"    {int(low):3d} to {int(low) + 20:3d}  {'#' * int(40 * count / ages.max())} {int(count)}")
    return means


def prove(folder: Path, name: str) -> int:
    """Verify a node's audit trail and print what it says of releases. Returns how many records are right."""
    verdict = verify(folder / name / "journal.jsonl", public_of(load_key(folder / name / "node.key")))
    assert verdict.broken is None, verdict.broken
    for entry in entries(folder / name / "journal.jsonl"):
        if entry.event in ("measured", "approved", "denied", "released"):
            print(f"    {entry.who:9} {entry.did}: {entry.decided}")
    return verdict.right


def main() -> torch.Tensor:
    """The story. Returns the pooled means."""
    data = {"north": patients(1, 400), "south": patients(2, 250)}
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        cluster = sy.LocalCluster(*data, threads=1, folder=folder)
        try:
            cluster.start(connect=False)
            for name, rows in data.items():
                with cluster.session(name, "owner") as owner:
                    publish(owner, rows)
            asked, refused = {}, {}
            for name in data:
                with cluster.session(name) as hospital:
                    private_answers(hospital)
                    asked[name], refused[name] = ask(hospital), greedy(hospital)
            for name in data:
                with cluster.session(name, "owner") as owner:
                    decide(owner)
            results = []
            for name in data:
                with cluster.session(name) as hospital:
                    results.append(sy.request(hospital, asked[name]).get())
                    try:
                        sy.request(hospital, refused[name]).wait()
                    except sy.errors.GetNotPermittedError as refusal:
                        print(f"{name}: {refusal}")
            means = report(results, [len(rows) for rows in data.values()])
        finally:
            cluster.stop()
        for name in data:
            print(f"{name}'s trail: {prove(folder, name)} records, none changed")
    return means


if __name__ == "__main__":
    main()
