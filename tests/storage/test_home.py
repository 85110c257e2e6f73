"""Where things are kept."""

import os
from pathlib import Path

import pytest

from syftlite.errors import ConfigurationError
from syftlite.storage.home import home, node_folder, write_private


def test_it_is_where_the_environment_says_or_in_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "a" / "b"))
    assert home() == tmp_path / "a" / "b" and home().stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("SYFTLITE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == Path(tmp_path) / ".syftlite"


def test_a_nodes_folder_is_made_only_for_a_node(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="no node of this machine is called 'hospital'"):
        node_folder("hospital", make=False)
    assert node_folder("hospital") == node_folder("hospital", make=False) == tmp_path / "nodes" / "hospital"
    for name in ("../x", "", "a/b", ".", "-rf"):
        with pytest.raises(ConfigurationError, match="a node's id"):
            node_folder(name)
    assert os.listdir(tmp_path / "nodes") == ["hospital"]


def test_a_private_file_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_private(path, "old")

    def fail(descriptor):
        raise OSError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="power"):
            write_private(path, "new")
    assert path.read_text() == "old" and path.stat().st_mode & 0o777 == 0o600
    write_private(path, "new")
    assert path.read_text() == "new"
