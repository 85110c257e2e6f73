"""The thread of a lane whose messages wait for other workers."""

import os
import queue

import pytest

from syftlite.transports.lanes import OwnThread


def answer(own, work):
    """What ``work`` returns on the thread ``own``."""
    answers = queue.SimpleQueue()
    own.do(lambda: answers.put(work()))
    return answers.get(timeout=30)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux schedules in batches")
def test_it_preempts_nobody_and_leaves_other_threads_as_they_are():
    own, before = OwnThread("computes"), os.sched_getscheduler(0)
    assert answer(own, lambda: os.sched_getscheduler(0)) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == before
    own.do(None)


def test_where_the_system_forbids_that_it_works_all_the_same(monkeypatch):
    asked = []

    def refuse(*args):
        asked.append(args)
        raise PermissionError

    monkeypatch.setattr(os, "SCHED_BATCH", 3, raising=False)
    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    monkeypatch.setattr(os, "sched_param", lambda priority: priority, raising=False)
    own = OwnThread("computes")
    assert answer(own, lambda: 7) == 7 and asked
    own.do(None)
