"""For tests: a deterministic simulator of clients, nodes and the links between them. Nothing else of the package imports this."""

from syftlite.testing.links import Faults as Faults
from syftlite.testing.simulator import Simulator as Simulator
