"""The ledger on disk is never under what was answered, whenever its process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from random import Random

import pytest

from syftlite.dp.ledger import Account, Ledger
from syftlite.storage.database import Database
from syftlite.storage.ledger import LedgerStore

ACCOUNT = Account("icu", "", 50.0, 1e-6)
ASKER = """
import sys
from pathlib import Path
from syftlite.dp.accountant import pure
from syftlite.dp.ledger import Account, Cost, Ledger
from syftlite.storage.database import Database
from syftlite.storage.ledger import LedgerStore
ledger = Ledger(LedgerStore(Database(Path(sys.argv[1]))))
for n in range(10_000):
    key = f"{sys.argv[2]}-{n}"
    ledger.reserve(key, "q", [Account("icu", "", 50.0, 1e-6)], Cost((pure(0.01),)))
    ledger.commit(key, key.encode())
    print(key, flush=True)                       # answered
"""


def charged(path) -> tuple[int, Ledger]:
    database = Database(path)
    rows = database.rows("select sum(uses) from dp_charges")
    return rows[0][0] or 0, Ledger(LedgerStore(database))


@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_killed_at_any_moment_nothing_answered_is_uncharged(tmp_path, rounds):
    path, answered, chance = tmp_path / "node.db", [], Random(1)
    for turn in range(rounds):
        asker = subprocess.Popen([sys.executable, "-c", ASKER, str(path), str(turn)], stdout=subprocess.PIPE, text=True)
        for _ in range(chance.randrange(1, 20)):
            answered.append(asker.stdout.readline().strip())
        os.kill(asker.pid, signal.SIGKILL)
        answered += asker.stdout.read().split("\n")[:-1]
        asker.wait()
        asker.stdout.close()
        total, ledger = charged(path)
        assert len(answered) <= total <= len(answered) + turn + 1  # at most one a kill was charged and not answered
        for key in answered:
            kept = ledger.store.find(key)
            assert kept is not None and kept.result == key.encode()
        assert ledger.standings([ACCOUNT])[0].spent > 0
