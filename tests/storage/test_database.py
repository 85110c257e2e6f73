"""The database: whole transactions, on disk when they end, tables by owner, threads and processes side by side."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest

from syftlite.errors import ConfigurationError
from syftlite.storage.database import Database, Schema

SPENT = Schema("ledger", ("create table spent (account text primary key, amount integer not null) strict",))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node" / "node.db"


@pytest.fixture
def database(path):
    database = Database(path)
    database.adopt(SPENT)
    yield database
    database.close()


def test_what_was_written_is_there_for_the_next_process(path, database):
    with database.transaction() as run:
        run("insert into spent values (?, ?)", "icu", 3)
    database.close()
    again = Database(path)
    again.adopt(SPENT)
    assert again.rows("select account, amount from spent") == [("icu", 3)]
    again.close()


def test_it_and_what_lies_beside_it_are_its_users_alone(path, database):
    with database.transaction() as run:
        run("insert into spent values ('icu', 3)")
    files = list(path.parent.iterdir())
    assert {file.name for file in files} == {"node.db", "node.db-wal", "node.db-shm"}
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files) and path.parent.stat().st_mode & 0o777 == 0o700


def test_it_is_as_durable_as_it_says(database):
    assert database.rows("pragma journal_mode") == [("wal",)] and database.rows("pragma synchronous") == [(2,)]


def test_a_block_that_raises_leaves_no_trace(database):
    with pytest.raises(ZeroDivisionError), database.transaction() as run:
        run("insert into spent values ('icu', 3)")
        1 / 0
    assert database.rows("select * from spent") == []


def test_a_block_within_another_is_undone_alone_and_kept_only_with_it(database):
    with database.transaction() as run:
        run("insert into spent values ('outer', 1)")
        with pytest.raises(ZeroDivisionError), database.transaction() as inner:
            inner("insert into spent values ('inner', 2)")
            1 / 0
        with database.transaction() as inner:
            inner("insert into spent values ('second', 2)")
    assert database.rows("select account from spent order by account") == [("outer",), ("second",)]
    with pytest.raises(ZeroDivisionError), database.transaction():
        with database.transaction() as inner:
            inner("insert into spent values ('lost', 2)")
        1 / 0
    assert len(database.rows("select * from spent")) == 2


def test_tables_go_on_from_where_they_were_and_never_back(path, database):
    later = Schema("ledger", (*SPENT.steps, "alter table spent add column at real", "create index by_time on spent (at)"))
    database.adopt(later)
    database.adopt(later)
    assert database.rows("select version from schema where owner = 'ledger'") == [(3,)]
    assert database.rows("select at from spent") == []
    with pytest.raises(ConfigurationError, match="later syftlite"):
        database.adopt(SPENT)


def test_a_step_that_fails_takes_the_others_of_its_time_back(database):
    with pytest.raises(OSError):
        database.adopt(Schema("other", ("create table fine (x integer) strict", "create nonsense")))
    assert database.rows("select name from sqlite_master where name = 'fine'") == []


def test_a_file_that_is_no_database_is_named(path):
    path.parent.mkdir()
    path.write_bytes(b"x" * 5000)
    with pytest.raises(ConfigurationError, match=r"node\.db cannot be used.*move it away"):
        Database(path)
    assert path.read_bytes() == b"x" * 5000


def test_threads_take_turns(database):
    with database.transaction() as run:
        run("insert into spent values ('icu', 0)")

    def spend():
        for _ in range(25):
            with database.transaction() as run:
                ((amount,),) = run("select amount from spent")
                run("update spent set amount = ?", amount + 1)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.rows("select amount from spent") == [(100,)]


SPENDER = """
import sys
from pathlib import Path
from syftlite.storage.database import Database, Schema
database = Database(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    with database.transaction() as run:
        ((amount,),) = run("select amount from spent where account = 'icu'")
        run("update spent set amount = ? where account = 'icu'", amount + 1)
        run("insert into spent values (?, 1)", f"{sys.argv[3]}{number}")
    print(number, flush=True)
"""


def spender(path, times, name):
    return subprocess.Popen([sys.executable, "-c", SPENDER, str(path), str(times), name], stdout=subprocess.PIPE, text=True)


def test_processes_take_turns_too(path, database):
    with database.transaction() as run:
        run("insert into spent values ('icu', 0)")
    both = [spender(path, 20, name) for name in "ab"]
    assert [process.communicate()[1] for process in both] == [None, None] and [p.returncode for p in both] == [0, 0]
    assert database.rows("select amount from spent where account = 'icu'") == [(40,)]


def test_kill_9_loses_nothing_that_was_acknowledged_and_keeps_no_half(path, database):
    with database.transaction() as run:
        run("insert into spent values ('icu', 0)")
    said = 0
    for round_ in range(3):
        process = spender(path, 10_000, f"r{round_}-")
        for _ in range(7 * round_ + 1):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said += 7 * round_ + 1 + len(process.stdout.read().splitlines())
        process.wait()
        process.stdout.close()
        ((amount,),) = database.rows("select amount from spent where account = 'icu'")
        ((rows,),) = database.rows("select count(*) from spent where account != 'icu'")
        assert rows == amount and 0 <= amount - said <= round_ + 1  # what was written and not yet said
    assert database.rows("pragma integrity_check") == [("ok",)]


def test_a_fork_must_open_it_anew(database):
    def child(connection):
        try:
            database.rows("select 1")
        except ConfigurationError as error:
            connection.send(str(error))

    mine, theirs = multiprocessing.Pipe()
    pid = os.fork()
    if pid == 0:
        child(theirs)
        os._exit(0)
    assert mine.poll(10) and "opened before a fork" in mine.recv()
    os.waitpid(pid, 0)


def test_in_memory_it_leaves_no_file():
    database = Database()
    database.adopt(SPENT)
    with database.transaction() as run:
        run("insert into spent values ('icu', 3)")
    assert database.rows("select * from spent") == [("icu", 3)]
    database.close()
