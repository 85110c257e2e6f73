"""workers/crypto_provider.py as an operator starts it: a process of its own, a real socket, and holders that are nodes of their own."""

import signal
import subprocess
import sys
from pathlib import Path

import torch

from syftlite.storage.node_config import NodeConfig

WORKER = Path(__file__).parents[2] / "workers" / "crypto_provider.py"


def test_it_provides_for_holders_elsewhere_and_stores_nothing(machine, three_nodes):
    settings = machine.folder / "university.toml"
    settings.write_text('id = "hospital"\nport = 0\n')  # the machine's helper makes tokens for a node of this name
    node = machine.spawn([sys.executable, str(WORKER), str(settings)])
    assert "hospital provides at ws://127.0.0.1:" in node.said
    provider = node.connect(node.token("ann"))
    one, two, _ = three_nodes
    x = torch.tensor([[0.5, -2.0], [3.0, 0.25]])
    shared = x.fix_precision().share(one, two, crypto_provider=provider)
    product = (shared @ shared).get().float_precision()
    assert torch.allclose(product, x @ x, atol=1e-3)
    assert torch.allclose(shared.relu().get().float_precision(), x.relu(), atol=1e-3)
    assert provider.objects_count() == 0
    provider.close()
    code, _, errors = node.signal(signal.SIGTERM)
    assert code == 0 and "Traceback" not in errors


def test_beyond_loopback_without_tls_it_ends_with_code_2(machine):
    settings = machine.folder / "open.toml"
    settings.write_text('host = "0.0.0.0"')
    done = subprocess.run([sys.executable, WORKER, settings], capture_output=True, text=True, env=machine.environment)
    assert done.returncode == 2 and done.stdout == ""
    assert "refusing to listen on 0.0.0.0" in done.stderr and "Traceback" not in done.stderr


def test_the_settings_beside_it_are_for_this_machine_only():
    config = NodeConfig.read(WORKER.with_suffix(".toml"))
    assert (config.id, config.host, config.port, config.data) == ("crypto-provider", "127.0.0.1", 8778, ())


def test_it_is_short():
    assert len(WORKER.read_text().splitlines()) < 60
