"""The ledger: nobody overspends, a retry is free, a crash stays charged; in memory and on disk alike."""

from __future__ import annotations

import re
import threading

import pytest

from syftlite.dp.accountant import pure
from syftlite.dp.ledger import KEPT, Account, Cost, Ledger, MemoryStore
from syftlite.dp.noise import variation
from syftlite.errors import BudgetExceededError, ConfigurationError
from syftlite.storage.database import Database
from syftlite.storage.ledger import LedgerStore

ALL = Account("icu", "", 1.0, 1e-6)
ANN = Account("icu", "ann", 0.3, 1e-6)
TENTH = Cost((pure(0.1),))


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else LedgerStore(Database(tmp_path / "node.db"))


def count(ledger: Ledger, accounts, cost=TENTH, tries: int = 100, prefix: str = "") -> int:
    for n in range(tries):
        try:
            ledger.reserve(f"{prefix}{n}", "q", accounts, cost)
        except BudgetExceededError:
            return n
    return tries


def test_a_release_must_fit_every_account(store):
    ledger = Ledger(store)
    assert count(ledger, [ALL, ANN]) == 2  # the third would fit the dataset's
    with pytest.raises(BudgetExceededError, match=r"icu: .* left of epsilon 1 .*icu for ann: .* left of epsilon 0.3"):
        ledger.reserve("more", "q", [ALL, ANN], TENTH)
    assert count(ledger, [ALL], prefix="b") == 7


def test_pure_answers_may_take_all_of_a_budget_also_after_a_restart(store):
    half = Cost((pure(0.5),))
    assert count(Ledger(store), [ALL], half, 1) == 1 and count(Ledger(store), [ALL], half, prefix="again") == 1


def test_what_was_refused_costs_nothing(store):
    ledger = Ledger(store)
    before = ledger.standings([ALL])
    with pytest.raises(BudgetExceededError):
        ledger.reserve("k", "q", [ALL], Cost((pure(5.0),)))
    assert ledger.standings([ALL]) == before and before[0].left == 1.0


@pytest.mark.parametrize(("epsilon", "delta"), [(100.0, 1e-6), (1e6, 1e-5), (44.0, 1e-9), (1.0, 1e-28), (1.0, 1e-300)])
def test_an_account_for_which_tables_are_not_exact_enough_is_told_of_that(store, epsilon, delta):
    account, vector = Account("icu", "", epsilon, delta), Cost((pure(0.01),), variation(10**6))
    for tried in ([account], [Account("ward", "", 1.0, 1e-6), account]):
        with pytest.raises(BudgetExceededError, match=r"at delta .* and icu has .* a smaller epsilon or a larger delta") as refusal:
            Ledger(store).reserve("k", "q", tried, vector)
    told = re.search(r"up to epsilon ([\d.]+)", str(refusal.value))
    if told is None:
        assert "for none" in str(refusal.value) and delta < 1e-20
    else:
        Ledger(store).reserve("k", "q", [account._replace(epsilon=float(told[1]) * 0.99)], vector)


def test_an_account_with_two_budgets_is_charged_once_also_after_a_restart(store):
    ledger, budgets = Ledger(store), [ALL, ALL._replace(epsilon=0.5)]
    ledger.reserve("k", "q", budgets, TENTH)
    spent = ledger.standings(budgets)
    assert spent[0].spent == spent[1].spent and Ledger(store).standings(budgets) == spent


def test_a_retry_is_free_and_brings_the_same(store):
    ledger = Ledger(store)
    assert ledger.reserve("k", "q", [ALL], TENTH) is None
    ledger.commit("k", b"answer")
    spent = ledger.standings([ALL])
    assert ledger.reserve("k", "q", [ALL], TENTH) == b"answer"
    assert ledger.standings([ALL]) == spent
    with pytest.raises(ConfigurationError, match="another question"):
        ledger.reserve("k", "another", [ALL], TENTH)


def test_what_was_not_committed_stays_charged_and_may_be_tried_again(store):
    Ledger(store).reserve("k", "q", [ALL], TENTH)
    again = Ledger(store)
    assert again.standings([ALL])[0].spent == pytest.approx(0.1, rel=0.05)
    assert again.reserve("k", "q", [ALL], TENTH) is None
    assert again.standings([ALL])[0].spent == pytest.approx(0.1, rel=0.05)


def test_a_smaller_budget_holds_at_once_for_what_was_spent(store):
    ledger = Ledger(store)
    assert count(ledger, [ALL], tries=5) == 5
    with pytest.raises(BudgetExceededError, match="0 left of epsilon 0.2"):
        ledger.reserve("more", "q", [ALL._replace(epsilon=0.2)], Cost((pure(0.001),)))


def test_no_account_is_no_budget(store):
    with pytest.raises(BudgetExceededError, match="no account"):
        Ledger(store).reserve("k", "q", [], TENTH)


def test_requests_at_once_cannot_overspend_together(store):
    ledger = Ledger(store)
    admitted: list[str] = []
    start = threading.Barrier(8)

    def ask(name: str) -> None:
        start.wait()
        for n in range(5):
            try:
                ledger.reserve(f"{name}-{n}", "q", [ALL], TENTH)
                admitted.append(name)
            except BudgetExceededError:
                pass

    threads = [threading.Thread(target=ask, args=(str(k),)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 9  # as many as one after the other


def test_a_store_that_fails_admits_nothing(store, monkeypatch):
    ledger = Ledger(store)
    monkeypatch.setattr(store, "charge", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        ledger.reserve("k", "q", [ALL], TENTH)
    assert ledger.standings([ALL])[0].spent == 0


def test_what_was_too_large_to_keep_is_answered_once(store):
    ledger = Ledger(store)
    ledger.reserve("k", "q", [ALL], TENTH)
    ledger.commit("k", bytes(KEPT + 1))
    for again in (ledger, Ledger(store)):  # and after a restart
        with pytest.raises(ConfigurationError, match="was answered"):
            again.reserve("k", "q", [ALL], TENTH)


def test_no_request_is_computed_twice_at_a_time_nor_again_once_it_was_answered(store):
    ledger = Ledger(store)
    ledger.reserve("k", "q", [ALL], TENTH)
    with pytest.raises(ConfigurationError, match="is being answered"):
        ledger.reserve("k", "q", [ALL], TENTH)
    ledger.abandon("k")  # it failed, and nobody was told anything
    assert ledger.reserve("k", "q", [ALL], TENTH) is None
    ledger.commit("k", b"result")
    assert ledger.reserve("k", "q", [ALL], TENTH) == b"result"
