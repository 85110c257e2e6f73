"""Plans: a function recorded once as the messages that it sends, replayed at a worker by one message.

    @func2plan(args_shape=[(3,)])          def f(x): ...          a function
    class Net(Plan): def forward(self, x)                         a function with state: its modules and tensors
    @func2plan(state=(model, optimizer))   def step(x, y): ...    a training step: forward, backward and optimizer in one message

There is no tracer and no second kind of tensor: the function runs on pointers at a `Recorder` (remote/recorder.py), torch does what it
always does, and what would have been sent is the program. It is recorded twice; a constant that differs is refused with its line.

    plan.py        Plan: calling, scanning, sending, saving
    arguments.py   by position, whichever way they are given
    recordings.py  what was recorded: a program for each form of inputs and state
    settings.py    learning rates, training modes, autocast: what is part of a program though it is no tensor
    placed.py      what of a plan is at workers
    shared.py      plans over shares
    function.py    func2plan
"""

from syftlite.plans.function import func2plan
from syftlite.plans.plan import Plan

__all__ = ["Plan", "func2plan"]
