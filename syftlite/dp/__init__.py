"""Differential privacy: private answers, private training, what they cost, budgets. Pure: it knows no worker."""

from syftlite.dp.accountant import ORDERS as ORDERS
from syftlite.dp.accountant import Event as Event
from syftlite.dp.accountant import gaussian as gaussian
from syftlite.dp.accountant import mironov as mironov
from syftlite.dp.accountant import noise_for as noise_for
from syftlite.dp.accountant import pure as pure
from syftlite.dp.accountant import rdp as rdp
from syftlite.dp.accountant import tight as tight
from syftlite.dp.queries import budget as budget
from syftlite.dp.queries import count as count
from syftlite.dp.queries import histogram as histogram
from syftlite.dp.queries import map_sum as map_sum
from syftlite.dp.queries import mean as mean
from syftlite.dp.queries import quantile as quantile
from syftlite.dp.queries import sum as sum
from syftlite.dp.queries import variance as variance
from syftlite.dp.training import DPOptimizer as DPOptimizer
from syftlite.dp.training import private_step as private_step
