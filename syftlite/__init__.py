"""syftlite: ordinary PyTorch on data that stays with its owner."""

from syftlite import errors as errors
from syftlite.hooks.torch import TorchHook as TorchHook
from syftlite.remote.pointer import PointerTensor as PointerTensor
from syftlite.remote.worker import BaseWorker as BaseWorker
from syftlite.remote.worker import VirtualWorker as VirtualWorker
from syftlite.remote.worker import WebsocketClientWorker as WebsocketClientWorker
