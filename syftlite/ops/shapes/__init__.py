"""Operators on meta tensors by rule: what they give is known from shapes, strides and dtypes.

    run(func, args, kwargs)      the rule, where there is one and it is sure; torch's own meta kernel elsewhere
    ByRule                       while this mode is on, every operator runs so

    rules.py                     what a rule is, and running by them
    strides.py                   the order of a fresh result's dimensions in memory
    elementwise.py, moves.py     the rules

torch's meta kernels are Python references: they take 60-290 us where a rule takes 10, and the first one of a process imports torch's
compiler, which takes seconds. Operators without a rule, and operands that do not fit, are torch's: errors are in its words.
"""

from syftlite.ops.shapes import elementwise as elementwise  # these enter the rules
from syftlite.ops.shapes import moves as moves
from syftlite.ops.shapes.rules import RULES, ByRule, Unsure, run

__all__ = ["RULES", "ByRule", "Unsure", "run"]
