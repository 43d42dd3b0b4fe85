"""Identity: the instance stays, the epoch grows, whatever happened in between."""

import json
from pathlib import Path

import pytest

from oracle_hub.errors import ConfigError
from oracle_hub.state import begin_epoch

NOW_US = 1_760_000_000_000_000


def test_first_start_takes_unix_seconds(tmp_path: Path) -> None:
    identity = begin_epoch(tmp_path / "state", NOW_US)
    assert identity.epoch == 1_760_000_000
    assert len(identity.instance) == 36
    assert json.loads((tmp_path / "state" / "identity.json").read_text())["epoch"] == 1_760_000_000


def test_epoch_grows_within_one_second_and_over_a_clock_that_went_back(tmp_path: Path) -> None:
    first = begin_epoch(tmp_path, NOW_US)
    second = begin_epoch(tmp_path, NOW_US)
    third = begin_epoch(tmp_path, NOW_US - 3_600_000_000)
    assert (second.epoch, third.epoch) == (first.epoch + 1, first.epoch + 2)
    assert first.instance == second.instance == third.instance


def test_a_lost_directory_is_another_instance_with_a_later_epoch(tmp_path: Path) -> None:
    first = begin_epoch(tmp_path / "a", NOW_US)
    later = begin_epoch(tmp_path / "b", NOW_US + 1_000_000)
    assert later.epoch > first.epoch
    assert later.instance != first.instance


def test_the_first_epoch_is_remembered_over_restarts(tmp_path: Path) -> None:
    first = begin_epoch(tmp_path, NOW_US, at_least=1)
    assert first.first_epoch == first.epoch
    again = begin_epoch(tmp_path, NOW_US, at_least=first.epoch + 1)
    assert (again.first_epoch, again.epoch) == (first.epoch, first.epoch + 1)


def test_what_came_first_is_not_known_of_an_old_file_nor_where_a_journal_is_older(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text('{"instance":"i","epoch":1750000000}')
    assert begin_epoch(tmp_path, NOW_US).first_epoch is None
    assert begin_epoch(tmp_path / "lost", NOW_US, at_least=1_750_000_001).first_epoch is None


def test_the_journal_knows_when_the_identity_alone_is_lost(tmp_path: Path) -> None:
    assert begin_epoch(tmp_path, NOW_US, at_least=1_800_000_000).epoch == 1_800_000_000


def test_a_foreign_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    path.write_text("not json")
    with pytest.raises(ConfigError, match=r"identity\.json: not an identity file"):
        begin_epoch(tmp_path, NOW_US)
    assert path.read_text() == "not json"


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"state\.directory"):
        begin_epoch(tmp_path / "file" / "state", NOW_US)
