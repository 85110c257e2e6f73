"""What is about to be spent: on disk before, and gone once a checkpoint has it."""

from syftlite.dp.accountant import gaussian
from syftlite.federated.spending import Spending, beside, noted


def test_lines_stay_until_a_checkpoint_has_them(tmp_path):
    path, event, other = tmp_path / "run", gaussian(1.1, 0.1), gaussian(0.7)
    assert noted(path) == {}
    spending = Spending(path)
    spending.note("bob", event, 3)
    spending.note("alice", event, 3)
    spending.note("bob", other, 1)
    assert noted(path) == {"bob": {event: 3, other: 1}, "alice": {event: 3}}
    spending.kept({"bob": {event: 3}, "alice": {event: 2}})
    assert noted(path) == {"bob": {other: 1}, "alice": {event: 3}}
    spending.note("bob", event, 6)
    assert noted(path)["bob"] == {other: 1, event: 6}
    spending.kept({"bob": {event: 6, other: 1}, "alice": {event: 5}})
    assert not beside(path).exists() and not list(tmp_path.iterdir())


def test_a_line_that_was_cut_has_begun_nothing(tmp_path):
    path, event = tmp_path / "run", gaussian(1.1, 0.1)
    Spending(path).note("bob", event, 3)
    with beside(path).open("a") as file:
        file.write('["bob", 1.1, 0.1, 9')
    Spending(path).note("bob", event, 6)
    assert noted(path) == {"bob": {event: 6}}
