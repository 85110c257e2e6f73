"""RayWorker: a virtual worker whose engine is in an actor of Ray, anywhere in its cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from syftlite.remote.worker import BaseWorker
from syftlite.transports.ray import Hosts, RayTransport, cores


class RayWorker(BaseWorker):
    """A worker in an actor of Ray. Whoever calls it is its owner, as of a `VirtualWorker`.

    ``hosts``: the actors that it shares with others; without them it gets one of its own, with ``options`` as Ray takes them, such as
    ``num_gpus=1``. ``threads``: torch's, there. ``device``: where its tensors are kept. Needs `pip install "syftlite[ray]"`.
    """

    def __init__(
        self, hook: Any = None, id: str | None = None, data: Iterable[Any] = (), *, hosts: Hosts | None = None,
        threads: int | None = 1, device: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        name = hook if isinstance(hook, str) else id or "ray-worker"
        chosen = hosts if hosts is not None else Hosts(1, threads, **options)
        transport = RayTransport(name, chosen.next(), device)
        try:
            super().__init__(name, transport)
        except BaseException:
            transport.close()
            raise
        self.load_data(data)

    @classmethod
    def several(cls, names: Sequence[str], hosts: Hosts | None = None) -> list[RayWorker]:
        """A worker for each of ``names``, spread over ``hosts``: by default one actor for each core of the cluster."""
        chosen = hosts if hosts is not None else Hosts(min(len(names), cores()))
        return [cls(name, hosts=chosen) for name in names]
