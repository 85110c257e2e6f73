"""syftlite: ordinary PyTorch on data that stays with its owner."""

from syftlite import dp as dp
from syftlite import errors as errors
from syftlite import federated as federated
from syftlite import fetching as _fetching  # noqa: F401  (tells workers how to fetch a plan)
from syftlite import mpc as mpc
from syftlite import policy as policy
from syftlite import questions as _questions  # noqa: F401  (tells sy.dp how to ask about pointers)
from syftlite import tutorial as tutorial
from syftlite.federated import BaseDataset as BaseDataset
from syftlite.federated import FederatedDataLoader as FederatedDataLoader
from syftlite.federated import FederatedDataset as FederatedDataset
from syftlite.federated import Optims as Optims
from syftlite.federated import PrivateGridNetwork as PrivateGridNetwork
from syftlite.hooks.keras import KerasHook as KerasHook
from syftlite.hooks.numpy import ArrayPointer as ArrayPointer
from syftlite.hooks.numpy import send as send
from syftlite.hooks.tensorflow import TensorFlowHook as TensorFlowHook
from syftlite.hooks.tensorflow import TensorFlowPointer as TensorFlowPointer
from syftlite.hooks.tfe import TFECluster as TFECluster
from syftlite.hooks.tfe import TFEWorker as TFEWorker
from syftlite.hooks.torch import FloatTensor as FloatTensor
from syftlite.hooks.torch import TorchHook as TorchHook
from syftlite.hooks.torch import zeros as zeros
from syftlite.plans import Plan as Plan
from syftlite.plans import func2plan as func2plan
from syftlite.remote import registry as _registry
from syftlite.remote.asking import ReleaseRequest as ReleaseRequest
from syftlite.remote.asking import request as request
from syftlite.remote.client import WebsocketClientWorker as WebsocketClientWorker
from syftlite.remote.client import connect as connect
from syftlite.remote.cluster import LocalCluster as LocalCluster
from syftlite.remote.encrypting import find_shared as find_shared
from syftlite.remote.multi import MultiPointerTensor as MultiPointerTensor
from syftlite.remote.multi import combine_pointers as combine_pointers
from syftlite.remote.node import WebsocketServerWorker as WebsocketServerWorker
from syftlite.remote.pointer import PointerTensor as PointerTensor
from syftlite.remote.ray import RayWorker as RayWorker
from syftlite.remote.sharing import AdditiveSharingTensor as AdditiveSharingTensor
from syftlite.remote.sharing import ReplicatedSharingTensor as ReplicatedSharingTensor
from syftlite.remote.virtual import LocalWorker as LocalWorker
from syftlite.remote.virtual import VirtualWorker as VirtualWorker
from syftlite.remote.worker import BaseWorker as BaseWorker
from syftlite.sandbox import create_sandbox as create_sandbox
from syftlite.sandbox import make_hook as make_hook
from syftlite.serving.client import ModelClient as ModelClient
from syftlite.serving.client import connect_to_model as connect_to_model
from syftlite.serving.model import ServedModel as ServedModel
from syftlite.serving.model import serve as serve
from syftlite.tensors.fixed import FixedPrecisionTensor as FixedPrecisionTensor
from syftlite.tensors.logging import LoggingTensor as LoggingTensor
from syftlite.tensors.private import PrivateTensor as PrivateTensor

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`sy.local_worker` is made when first asked for, so that importing has no effects."""
    if name == "local_worker":
        return _registry.local_worker()
    raise AttributeError(f"module 'syftlite' has no attribute {name!r}")
