"""A node's settings: what is written is what it means, or an error that names file and key."""

import sys
from dataclasses import fields
from pathlib import Path

import pytest

from syftlite.errors import ConfigurationError
from syftlite.storage import node_config
from syftlite.storage.node_config import DataConfig, NodeConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture
def read(tmp_path):
    def written(text):
        path = tmp_path / "node.toml"
        path.write_text(text, encoding="utf-8")
        return NodeConfig.read(path)

    return written


def test_every_setting(read, tmp_path):
    assert read("""
        id = "hospital"
        host = "0.0.0.0"
        port = 9000
        cert = "tls/node.crt"
        key = "/etc/node.key"
        max_bytes = 1000
        device = "cuda:1"
        tokens = "tokens.json"
        [aggregates_with]
        north = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"
        [[data]]
        file = "x.csv"
        private = true
        name = "x"
        tags = ["#x", "#größe"]
        description = "rows"
        [[data]]
        file = "y.npy"
        private = false
    """) == NodeConfig(
        id="hospital",
        host="0.0.0.0",
        port=9000,
        cert=tmp_path / "tls/node.crt",
        key=Path("/etc/node.key"),
        max_bytes=1000,
        device="cuda:1",
        tokens=tmp_path / "tokens.json",
        aggregates_with={"north": bytes([15]) * 32},
        data=(
            DataConfig(tmp_path / "x.csv", True, "x", ("#x", "#größe"), "rows"),
            DataConfig(tmp_path / "y.npy", False),
        ),
    )


def test_an_empty_file_gives_the_defaults_which_stay_on_this_machine(read):
    assert read("") == NodeConfig() and NodeConfig().host == "127.0.0.1" and NodeConfig().port == 8777


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "prot is no setting; there are id, host, port"),
        ("port = '1'", "port is a whole number, not '1'"),
        ("port = true", "port is a whole number, not True"),
        ("port = 1.5", "port is a whole number, not 1.5"),
        ("port = 70000", "port is 0 to 65535, not 70000"),
        ("max_bytes = 0", "max_bytes is above 0"),
        ("device = 1", "device is text, not 1"),
        ("id = 1", "id is text, not 1"),
        ("id = '../x'", "a node's id is"),
        ("cert = 1", "cert is a file's name, not 1"),
        ("[node]\nid = 'x'", "node is no setting"),
        ("data = 1", "data is written as [[data]]"),
        ("data = ['x.csv']", "data is written as [[data]]"),
        ("[data]\nfile = 'x.csv'", "data is written as [[data]]"),
        ("[[data]]\nfile = 'x.csv'", "data 1: private is missing: it is true or false"),
        ("[[data]]\nprivate = true", "data 1: file is missing: it is a file's name"),
        ("[[data]]\nfile = 'x'\nprivate = true\n[[data]]\nfile = 'y'\nprivate = 'yes'", "data 2: private is true or false, not 'yes'"),
        ("[[data]]\nfile = 'x'\nprivate = 1", "data 1: private is true or false, not 1"),
        ("[[data]]\nfile = 'x'\nprivate = true\ntags = '#x'", "data 1: tags is a list of texts, not '#x'"),
        ("[[data]]\nfile = 'x'\nprivate = true\ntags = [1]", "data 1: tags is a list of texts, not [1]"),
        ("[[data]]\nfile = 'x'\nprivate = true\ntag = ['x']", "data 1: tag is no setting; there are file, private"),
        ("id =", "cannot read"),
    ],
)
def test_what_is_wrong_is_named(read, tmp_path, text, says):
    with pytest.raises(ConfigurationError) as error:
        read(text)
    assert says in str(error.value) and "node.toml" in str(error.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read .*none\.toml"):
        NodeConfig.read(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"cannot read .*bytes\.toml"):
        NodeConfig.read(tmp_path / "bytes.toml")


def test_the_table_of_settings_is_complete():
    assert set(node_config._NODE) == {field.name for field in fields(NodeConfig)}
    assert set(node_config._DATA) == {field.name for field in fields(DataConfig)}
    for name in (*node_config._NODE, *node_config._DATA):
        assert f" {name}" in node_config.__doc__ or f"[{name}]" in node_config.__doc__


def test_the_settings_that_come_with_the_worker_are_right():
    config = NodeConfig.read(ROOT / "workers" / "data_owner.toml")
    assert config.host == "127.0.0.1" and config.id == "data-owner"


def test_what_is_commented_out_there_is_right_too(read):
    lines = (ROOT / "workers" / "data_owner.toml").read_text().splitlines()
    examples = [line.removeprefix("# ") for line in lines if line.startswith("# ") and ("=" in line or "[[" in line)]
    config = read("\n".join(examples))
    assert config.data[0].private and config.tokens and config.cert and config.max_bytes == NodeConfig().max_bytes


def test_without_a_toml_reader_it_says_what_to_install(monkeypatch):
    from syftlite.errors import DependencyError

    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(DependencyError, match=r"syftlite\[cli\]"):
        node_config.toml_reader()
