"""Training on data that several workers hold: datasets split over them, batches that stay there, models averaged."""

from syftlite.federated.average import accuracy as accuracy
from syftlite.federated.average import extract_batches_per_worker as extract_batches_per_worker
from syftlite.federated.average import federated_avg as federated_avg
from syftlite.federated.datasets import BaseDataset as BaseDataset
from syftlite.federated.datasets import FederatedDataset as FederatedDataset
from syftlite.federated.datasets import federate as federate
from syftlite.federated.grid import PrivateGridNetwork as PrivateGridNetwork
from syftlite.federated.loader import FederatedDataLoader as FederatedDataLoader
from syftlite.federated.optims import Optims as Optims
