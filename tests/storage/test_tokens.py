"""Tokens that a node on loopback leaves for its own user."""

import json

import pytest

from syftlite.errors import AuthenticationError
from syftlite.storage.tokens import announce, discover


def test_what_a_node_announces_its_user_finds(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    path = announce("127.0.0.1", 8777, {"owner": "o" * 43, "scientist": "s" * 43})
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert discover("localhost", 8777, "owner") == "o" * 43
    assert discover("127.0.0.1", 8777, "scientist") == "s" * 43
    for host, port, role in (("127.0.0.1", 8778, "owner"), ("::1", 8777, "owner"), ("127.0.0.1", 8777, "king")):
        with pytest.raises(AuthenticationError, match="token new NAME"):
            discover(host, port, role)
    path.write_text("{")
    with pytest.raises(AuthenticationError, match="is it running"):
        discover("127.0.0.1", 8777, "owner")
    assert json.loads(announce("::1", 8777, {"owner": "x"}).read_text()) == {"owner": "x"}
