"""The public face: exactly these names, each documented."""

import inspect
import subprocess
import sys

import syftlite as sy

PUBLIC = {
    "AdditiveSharingTensor",
    "ArrayPointer",
    "BaseDataset",
    "BaseWorker",
    "FederatedDataLoader",
    "FederatedDataset",
    "FixedPrecisionTensor",
    "FloatTensor",
    "KerasHook",
    "LocalCluster",
    "LocalWorker",
    "LoggingTensor",
    "ModelClient",
    "MultiPointerTensor",
    "Optims",
    "Plan",
    "PointerTensor",
    "PrivateGridNetwork",
    "PrivateTensor",
    "RayWorker",
    "ReleaseRequest",
    "ReplicatedSharingTensor",
    "ServedModel",
    "TFECluster",
    "TFEWorker",
    "TensorFlowHook",
    "TensorFlowPointer",
    "TorchHook",
    "VirtualWorker",
    "WebsocketClientWorker",
    "WebsocketServerWorker",
    "combine_pointers",
    "connect",
    "find_shared",
    "connect_to_model",
    "create_sandbox",
    "dp",
    "errors",
    "federated",
    "func2plan",
    "make_hook",
    "request",
    "mpc",
    "send",
    "serve",
    "tutorial",
    "zeros",
}
PACKAGES = {"engine", "fetching", "hooks", "ops", "policy", "randomness", "secagg", "remote", "serving", "storage", "transports", "wire", "testing", "cli", "plans", "questions", "sandbox", "tensors"}


def test_the_face_has_these_names_and_no_others():
    names = {name for name in vars(sy) if not name.startswith(("_", "@"))}  # pytest rewrites asserts with names of its own
    assert names - PACKAGES == PUBLIC


def test_every_public_name_is_documented():
    for name in PUBLIC:
        member = getattr(sy, name)
        assert inspect.getdoc(member), name
        if inspect.isclass(member):
            for attribute, value in vars(member).items():
                if not attribute.startswith("_") and callable(value):
                    assert inspect.getdoc(value), f"{name}.{attribute}"


def test_what_the_packages_for_training_offer_is_documented():
    for package in (sy.dp, sy.federated):
        names = [name for name, member in vars(package).items() if not name.startswith("_") and callable(member)]
        assert len(names) > 10 and all(inspect.getdoc(getattr(package, name)) for name in names)
    assert callable(sy.dp.private_step)


def test_every_error_is_documented_and_exported_once():
    for name, member in vars(sy.errors).items():
        if inspect.isclass(member) and issubclass(member, sy.errors.SyftliteError):
            assert inspect.getdoc(member), name


def test_importing_changes_nothing_in_torch():
    program = """
import torch
from torch import nn
before = {c: set(vars(c)) for c in (torch.Tensor, nn.Module)}
names = set(vars(torch))
import syftlite
assert {c: set(vars(c)) for c in before} == before
assert set(vars(torch)) - names <= {"_dynamo", "_inductor"}, set(vars(torch)) - names
original = {c: dict(vars(c)) for c in before}
syftlite.TorchHook(torch)
syftlite.TorchHook()
for c, members in original.items():
    for name, member in members.items():
        assert vars(c)[name] is member, name
added = set(vars(torch.Tensor)) - set(original[torch.Tensor])
assert added >= {"send", "get", "tag"}, added
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_local_worker_is_one():
    assert sy.local_worker is sy.local_worker
    assert sy.local_worker.id == "me"
    assert sy.TorchHook().local_worker is sy.local_worker
