"""`syftlite worker start`: where it listens, what it refuses, how it ends, and what is there again afterwards."""

import datetime
import ipaddress
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import syftlite as sy
from syftlite.storage.home import node_folder
from syftlite.storage.journal import NOTED, FileJournal, records
from syftlite.storage.node_config import NodeConfig
from syftlite.transports.socket import WebsocketClient

RUN = "run"


def test_it_says_where_what_and_how(hospital):
    assert f"node hospital listens on ws://127.0.0.1:{hospital.port}" in hospital.said
    assert f"syftlite data add FILE --tag ... --node 127.0.0.1:{hospital.port}" in hospital.said
    assert f'sy.connect("{hospital.uri}", token=...)' in hospital.said
    assert "syftlite token new NAME --node hospital" in hospital.said
    assert f"syftlite requests --node 127.0.0.1:{hospital.port}" in hospital.said


def test_its_identity_is_printed_as_others_write_it_down_and_stays(machine):
    said = machine.run("worker", "identity", "--id", "north").stdout
    settings = machine.folder / "south.toml"
    settings.write_text(f"[aggregates_with]\n{said}")
    assert said == machine.run("worker", "identity", "--id", "north").stdout != machine.run("worker", "identity", "--id", "east").stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYFTLITE_HOME", str(machine.home))
        north = sy.WebsocketServerWorker.from_config(NodeConfig(id="north", port=0))
        south = sy.WebsocketServerWorker.from_config(replace(NodeConfig.read(settings), id="south", port=0))
    try:
        assert south.engine.aggregates_with == {"north": north.engine.identity.public} and north.engine.aggregates_with is None
    finally:
        north.close(), south.close()


def test_its_users_own_programs_need_no_token(hospital, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(hospital.machine.home))
    worker = sy.connect(hospital.uri)
    assert worker.principal == "scientist"
    worker.close()
    monkeypatch.setenv("SYFTLITE_HOME", str(hospital.machine.folder / "another user"))
    with pytest.raises(sy.errors.AuthenticationError, match="left none for this user"):
        sy.connect(hospital.uri)


def test_it_is_its_users_alone(hospital):
    for path in hospital.machine.home.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.suffix == ".lock", path


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="what listens is read from /proc")
def test_it_listens_on_loopback_only(hospital):
    rows = [line.split() for family in ("tcp", "tcp6") for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == hospital.port]
    assert listening == [f"0100007F:{hospital.port:04X}"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--host", "0.0.0.0"), "refusing to listen on 0.0.0.0: beyond loopback a node needs TLS"),
        (("--host", "::"), "refusing to listen on ::"),
        (("--host", "example.org"), "refusing to listen on example.org"),
        (("--id", "../x"), "a node's id"),
        (("--cert", __file__), "TLS needs both"),
        (("--device", "gpu"), "device 'gpu' is none that torch knows"),
        (("--device", "meta"), "device 'meta' keeps no values"),
        (("--cert", __file__, "--key", __file__), "cannot use certificate"),
    ],
)
def test_what_it_will_not_do_ends_with_code_2(machine, words, says):
    assert says in machine.run("worker", "start", *words, code=2).stderr
    assert not (machine.home / RUN).exists()


def test_a_configuration_that_is_wrong_is_named(machine):
    path = machine.folder / "worker.toml"
    for text, says in (
        ("prot = 1", "worker.toml: prot is no setting"),
        ("host = '0.0.0.0'", "refusing to listen on 0.0.0.0"),
        ("[[data]]\nfile = 'none.csv'\nprivate = true", "none.csv: [Errno 2] No such file"),
        ("[[data]]\nfile = 'worker.toml'\nprivate = true", "a data file ends in"),
    ):
        path.write_text(text)
        assert says in machine.run("worker", "start", "--config", path, code=2).stderr


def test_a_port_or_a_folder_in_use_is_said(hospital):
    port = str(hospital.port)
    said = hospital.machine.run("worker", "start", "--port", port, "--id", "b", code=2).stderr
    assert "cannot listen on 127.0.0.1" in said and "take another port" in said
    assert "another process has" in hospital.machine.run("worker", "start", "--port", "0", "--id", "hospital", code=2).stderr
    hospital.run("requests")


def test_a_damaged_journal_stops_it_from_starting(machine, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(machine.home))
    path = node_folder("n") / "journal.jsonl"
    journal = FileJournal(path)
    for number in range(3):
        journal.append("filed", {"release": str(number)})
    journal.close()
    assert "3 records are right" in machine.run("audit", "verify", "--node", "n").stdout
    text = path.read_text()
    path.write_text(text[:-7])
    torn = machine.run("audit", "verify", "--node", "n").stdout
    assert "2 records are right" in torn and "unfinished line" in torn
    path.write_text(text.replace('"1"', '"9"'))
    assert "record 1 is damaged" in machine.run("audit", "verify", "--node", "n", code=1).stdout
    assert "record 1 is damaged" in machine.run("worker", "start", "--id", "n", "--port", "0", code=2).stderr
    assert "no node of this machine" in machine.run("audit", "verify", "--node", "other", code=2).stderr


def test_killed_it_is_there_again_with_all_that_it_told_of(machine):
    (machine.folder / "x.csv").write_text("1,2\n3,4\n")
    np.save(machine.folder / "offered.npy", np.ones(3, "float32"))
    settings = machine.folder / "hospital.toml"
    settings.write_text('id = "hospital"\n[[data]]\nfile = "offered.npy"\nprivate = true\n')
    node = machine.start("--config", str(settings))
    assert "#offered" in node.said and "PRIVATE" in node.said
    token = node.token("alice")
    node.run("data", "add", machine.folder / "x.csv", "--private", "--description", "rows")
    node.run("data", "add", machine.folder / "x.csv", "--name", "open")
    alice = node.connect(token)
    total = alice.search("#x")[0].sum()
    request = total.request("a sum")
    node.run("approve", request.id)
    assert total.get().item() == 10
    node.process.kill()
    node.process.communicate()
    with pytest.raises(sy.errors.ConnectionLostError):
        alice.objects_count()
    alice.close()

    again = machine.start("--config", str(settings))
    for text in ("#x", "#open", "#offered", "rows"):
        assert text in again.said
    alice = again.connect(token)
    assert torch.equal(alice.search("#open")[0].get(), torch.tensor([[1, 2], [3, 4]]))
    for tag in ("#x", "#offered"):
        with pytest.raises(sy.errors.GetNotPermittedError):
            (alice.search(tag)[0] + 0).get()
    assert "already has a dataset 'x'" in again.run("data", "add", machine.folder / "x.csv", code=1).stderr
    assert "records are right" in machine.run("audit", "verify", "--node", "hospital").stdout
    journal = [(r["event"], r["record"]) for r in records(machine.home / "nodes/hospital/journal.jsonl") if r["event"] not in NOTED]
    assert [event for event, _ in journal][:5] == ["stored", "stored", "filed", "approved", "released"]
    assert journal[3][1]["release"] == journal[2][1]["release"] == request.id

    assert list((machine.home / RUN).glob(f"*{again.port}.json"))
    code, output, errors = again.signal(signal.SIGINT)
    assert (code, output) == (0, "hospital stopped\n") and "Traceback" not in errors
    assert not list((machine.home / RUN).glob(f"*{again.port}.json"))
    with pytest.raises(sy.errors.ConnectionLostError):
        alice.objects_count()
    alice.close()


def test_with_tls_and_tokens(machine):
    cert, key = certificate(machine.folder)
    node = machine.start("--id", "hospital", "--cert", str(cert), "--key", str(key))
    assert node.uri.startswith("wss://")
    assert node.run("requests", "--ca", cert).stdout == "no requests\n"
    assert node.run("ls", "--ca", cert).stdout == "hospital serves nothing yet: syftlite data add FILE --tag ...\n"
    (machine.folder / "x.csv").write_text("1\n")
    node.run("data", "add", machine.folder / "x.csv", "--ca", cert)
    assert "#x" in node.run("ls", "--ca", cert, token=node.token("alice")).stdout
    assert "cannot connect" in node.run("ls", code=1).stderr  # not a certificate that this machine trusts
    with pytest.raises(sy.errors.ConnectionLostError):
        WebsocketClient(f"ws://127.0.0.1:{node.port}", timeout=5)
    code, _, errors = node.signal(signal.SIGTERM)
    assert code == 0 and "Traceback" not in errors

    open_wide = ("worker", "start", "--host", "0.0.0.0", "--port", "0", "--cert", cert, "--key", key, "--id", "public")
    assert "no token or key exists" in machine.run(*open_wide, code=2).stderr


def test_it_ends_in_seconds_though_an_operator_runs_on(machine):
    program = """
import os, signal, threading
import syftlite as sy
from syftlite.remote import node as nodes
from syftlite.transports.client import SocketTransport
from syftlite.wire import messages as m

nodes.STOP_SECONDS = 0.5
node = sy.WebsocketServerWorker(id="busy", port=0).start(wait=False)
running = threading.Event()
def forever(session, request):
    running.set()
    threading.Event().wait()
node.engine._handlers[m.CLEAR] = forever
transport = SocketTransport(node.uri, node._own["scientist"])
for _ in range(20):  # more than the event loop's own thread takes on
    transport.cast((m.DROP, []))
threading.Thread(target=lambda: transport.ask(m.CLEAR), daemon=True).start()
running.wait()
node.wait(ready=lambda: (print("ready", flush=True), os.kill(os.getpid(), signal.SIGTERM)))
print("closed in order")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=machine.environment)
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr
    assert "operators still run" in done.stderr
    assert not list((machine.home / RUN).glob("*.json"))


def test_a_signal_that_another_thread_is_given_is_heard(machine):
    """The kernel may give it to any thread, and a main thread that waits in a lock is not woken then."""
    program = """
import signal, sys, threading
import syftlite as sy

node = sy.WebsocketServerWorker(id="deaf", port=0).start(wait=False)
main = threading.main_thread().ident
other = threading.Thread(target=threading.Event().wait, daemon=True)
other.start()
def tell():
    names = []
    while names[:3] != ["wait"] * 3:  # the node's, an event's, a condition's: not in a thread's start
        names, frame = [], sys._current_frames()[main]
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
    signal.pthread_kill(other.ident, signal.SIGTERM)
node.wait(ready=lambda: threading.Thread(target=tell, daemon=True).start())
print("closed in order")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=machine.environment)
    assert (done.returncode, done.stdout) == (0, "closed in order\n"), done.stderr


def certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hospital")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "node.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "node.key").write_bytes(private)
    return folder / "node.crt", folder / "node.key"
