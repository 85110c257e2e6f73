"""What each kind of message is to whoever runs it: whether it waits, and for whom, and whether something may leave by it."""

from __future__ import annotations

from syftlite.wire import messages as m

JOURNALLED = frozenset({m.FILE, m.STATUS, m.STORE, m.DECIDE, m.TAKE, m.INSPECT, m.POLICY, m.PROTECT, m.MEASURE, m.MAP})
"""Messages that end on disk. A GET does when it is about PRIVATE values."""
TOGETHER = frozenset({m.JOIN, m.REPLICATE, m.COMPUTE, m.DEAL, m.SPLIT, m.SPREAD, m.REPLAY, m.SERVE})
"""Messages that wait for other workers."""
SLOW = JOURNALLED | TOGETHER | {m.AGGREGATE, m.BUDGET, m.SHIP, m.FIND, m.LIST, m.CLEAR, m.PENDING, m.REVEAL, m.RETIRE}
"""Messages that never run on the event loop's thread: those, and the ones that take the longer the more is stored."""
WAITS_FOR_DEVICE = frozenset({m.PUT, m.ASK, m.GET, m.ARRIVED})
"""And at a worker with a device of its own, those that wait until it has done what was asked before."""
RELEASING = frozenset({m.GET, m.TAKE, m.ASK, m.FILE, m.SHIP, m.SPLIT, m.SPREAD, m.STORE, m.MEASURE, m.MAP, m.AGGREGATE})
"""Messages that may let something go: what led to them is recorded first."""
