"""The client's half of a `TFEWorker`: it queries a served model, and neither the workers nor the model's owner see what it asks or gets.

client.connect_to_model((1, 28, 28, 1), (1, 10), cluster)      one authenticated channel to each holder, for its own shares alone
client.query_model(image)                                      a numpy array
client.query_model_async(image); client.query_model_join()
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from syftlite.errors import Misuse
from syftlite.serving.client import TIMEOUT, Answer, Holder, ModelClient

Array = np.ndarray[Any, Any]


class TFEClient:
    """See `TFEWorker`."""

    def __init__(self) -> None:
        self._client: ModelClient | None = None
        self._batch: int | None = None
        self._asked: deque[Answer] = deque()

    def connect_to_model(
        self,
        input_shape: Sequence[int | None],
        output_shape: Sequence[int | None],
        *workers: Any,
        name: str = "model",
        timeout: float = TIMEOUT,
    ) -> None:
        """Open one channel to each holder of the model that ``workers`` serve: a `TFECluster`, or its workers in its order.

        ``input_shape`` and ``output_shape`` are those of one query, with its batch first: (1, 28, 28, 1), (1, 10). ``timeout`` (s): how
        long an answer may take. Raises `Misuse` if the model has other shapes.
        """
        members = list(_flat(workers))
        if len(members) < 3:
            raise Misuse(f"a model is served by two workers or more and one that deals for them: name all, not {len(members)}")
        self.disconnect()
        client = _opened(members[:-1], name, timeout)
        try:
            self._batch = self._fits(client, input_shape, output_shape)
        except BaseException:
            client.close()
            raise
        self._client = client

    def _fits(self, client: ModelClient, input_shape: Sequence[int | None], output_shape: Sequence[int | None]) -> int | None:
        (batch, *row), (_, *out) = ([None if n is None else int(n) for n in shape] for shape in (input_shape, output_shape))
        if len(client.form.inputs) != 1:
            raise Misuse(f"the model has {len(client.form.inputs)} inputs: sy.connect_to_model(...).query(first, second) takes several")
        takes, gives = client.form.inputs[0][0], list(client.form.output)
        if list(takes) != row or gives != out:
            told = f"{(batch, *row)} and {(batch, *out)}"
            raise Misuse(f"the model takes {(batch, *takes)} and gives {(batch, *gives)}, and connect_to_model() says {told}")
        return batch

    def query_model(self, data: Any) -> Array:
        """The model's answer for ``data``, an array of the input's shape or of several such rows: a numpy array.

        Raises ValueError for another shape, `SharingAbortedError` that names the worker which is gone and the command to start it."""
        return self._model.query(self._rows(data)).numpy()

    def query_model_async(self, data: Any) -> Answer:
        """Ask, and do not wait: `query_model_join` does."""
        answer = self._model.query_async(self._rows(data))
        self._asked.append(answer)
        return answer

    def query_model_join(self) -> Array:
        """The answer to the oldest query of `query_model_async` that was not read yet: a numpy array."""
        if not self._asked:
            raise Misuse("nothing was asked: query_model_async(data) first")
        return self._asked.popleft().get().numpy()

    @property
    def _model(self) -> ModelClient:
        if self._client is None:
            raise Misuse("this client is connected to no model: connect_to_model(input_shape, output_shape, cluster) first")
        return self._client

    def _rows(self, data: Any) -> torch.Tensor:
        """``data`` as a batch: of the model's own dtype, and with the batch's axis if it is one row without it."""
        (shape, numbers) = self._model.form.inputs[0]
        rows = torch.as_tensor(np.ascontiguousarray(data, dtype=np.int64 if numbers else np.float32))
        return rows.unsqueeze(0) if tuple(rows.shape) == tuple(shape) and self._batch == 1 else rows

    def disconnect(self) -> None:
        """Close the channels to the model."""
        if self._client is not None:
            self._client.close()
        self._client, self._batch = None, None
        self._asked.clear()

    def _of(self) -> str:
        return "" if self._client is None else f" of {self._client.name!r}"


def _flat(workers: Sequence[Any]) -> Iterator[Any]:
    """Workers, of which some may come as a cluster or a list."""
    for given in workers:
        yield from getattr(given, "workers", given if isinstance(given, (list, tuple)) else (given,))


def _opened(holders: Sequence[Any], name: str, timeout: float) -> ModelClient:
    channels: list[Holder] = []
    try:
        for worker in holders:
            channels.append(Holder.of(worker.uri, worker.token, worker.ca))
        return ModelClient(channels, name, timeout)
    except BaseException:
        for channel in channels:
            channel.transport.close()
        raise
