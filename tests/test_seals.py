"""A seal fits what was sealed and nothing else, and says where a log has changed."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaced_kd import seals
from spaced_kd.errors import CheckpointError
from spaced_kd.seals import RunningSeal, Seal
from spaced_kd.workdir import write_sealed
from spaced_kd.writers import MetricLog, read_json

LINES = st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"") + b"\n"))


@settings(max_examples=60, deadline=None)
@given(lines=LINES, cut=st.integers(0, 40))
def test_a_running_seal_is_that_of_all_bytes_at_once(lines, cut):
    """Breaks if a seal depends on how often the log was flushed."""
    running = RunningSeal(b"".join(lines[:cut]))
    for line in lines[cut:]:
        running.add(line)
    found, data = running.seal(), b"".join(lines)
    assert found == RunningSeal(data).seal()
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert (found.length, found.lines) == (len(data), len(lines))


@settings(max_examples=60, deadline=None)
@given(lines=LINES.filter(len), data=st.data())
def test_the_only_changed_line_is_named(lines, data):
    """Breaks if somebody has to search a log of a million rows."""
    sealed = RunningSeal(b"".join(lines)).seal()
    place = data.draw(st.integers(0, len(lines) - 1))
    changed = [*lines]
    changed[place] = data.draw(st.binary(max_size=9)).replace(b"\n", b"") + b"\n"
    found = RunningSeal(b"".join(changed)).seal()
    expected = None if changed == lines else place + 1
    assert seals.changed_line(found, sealed) == expected


@pytest.mark.parametrize(
    "changed", [b"b\na\nc\nd\n", b"x\nb\nc\ny\n", b"a\nb\nc\n", b"a\nb\nc\nd\ne\n"]
)
def test_no_line_is_named_where_more_have_changed(changed):
    """Breaks if an exchange, two changes, a loss or an addition accuses one line."""
    sealed = RunningSeal(b"a\nb\nc\nd\n").seal()
    found = RunningSeal(changed).seal()
    assert seals.changed_line(found, sealed) is None
    assert seals.mismatch(found, sealed)


def test_the_sums_are_those_worked_out_by_hand():
    """Breaks if seals of older versions no longer fit: CRC-32 of "a" is e8b7be43."""
    found = RunningSeal(b"a\na\n").seal()
    assert found.plain == 2 * 0xE8B7BE43
    assert found.numbered == (1 + 2) * 0xE8B7BE43
    assert Seal(**json.loads(json.dumps(vars(found)))) == found


def test_a_log_knows_its_seal_without_reading_itself_again(tmp_path):
    """Breaks if a save takes longer the longer the run has been going on."""
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    for number in range(3):
        log.append({"tick": number})
        log.flush()
    whole = RunningSeal(path.read_bytes()).seal()
    assert log.seal() == whole
    resumed = MetricLog(path)
    resumed.truncate(whole.length - 12, None)
    assert resumed.seal() == RunningSeal(path.read_bytes()).seal()
    path.write_bytes(b'{"tick": 0}\n{"tick": 9}\n')  # as long as it was
    assert resumed.seal().sha256 != RunningSeal(path.read_bytes()).seal().sha256


def test_a_log_that_somebody_else_has_written_to_is_not_sealed(tmp_path):
    """Breaks if a checkpoint seals rows that no resume will find in the seal."""
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    log.append({"tick": 0})
    log.flush()
    with path.open("ab") as file:
        file.write(b'{"tick": 7}\n')
    log.append({"tick": 1})
    with pytest.raises(CheckpointError, match="24 bytes, not the 12") as caught:
        log.flush()
    assert "\n" not in str(caught.value)


def test_a_log_with_another_seal_is_refused_and_left_alone(tmp_path):
    """Breaks if a run goes on behind rows that it did not write."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a/b": 51.25}\n{"a/b": 52.5}\n{"a/b": 53.0}\n')
    seal = RunningSeal(path.read_bytes()[:29]).seal()
    MetricLog(path).truncate(29, seal)
    altered = b'{"a/b": 51.25}\n{"a/b": 62.5}\n{"a/b": 53.0}\n'
    path.write_bytes(altered)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl .*line 2 of") as caught:
        MetricLog(path).truncate(29, seal)
    assert "\n" not in str(caught.value) and "new workdir" in str(caught.value)
    assert path.read_bytes() == altered


CONTENT = {"b": [1, 0.1, None], "a": {"2": "\u00e9", "10": True}}


def test_a_sealed_object_is_read_back_without_its_seal(tmp_path):
    """Breaks if a seal depends on layout, order, or keys that JSON makes text."""
    path = tmp_path / "a.json"
    write_sealed(path, CONTENT | {"a": {2: "\u00e9", 10: True}})
    assert read_json(path) == CONTENT
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(stored.items())), indent=7))
    assert read_json(path) == CONTENT
    write_sealed(path, stored)  # a seal is no part of what is sealed
    assert json.loads(path.read_text()) == stored


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.1", "0.2"), (" 1,", " 2,"), ("true", "false"), ('"10"', '"11"')],
)
def test_a_changed_object_is_refused(tmp_path, old, new):
    """Breaks if an altered digit of config, plan or analysis is believed."""
    path = tmp_path / "a.json"
    write_sealed(path, CONTENT)
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(CheckpointError, match=r"a\.json has been changed") as caught:
        read_json(path, "burn it")
    assert "\n" not in str(caught.value) and "; burn it." in str(caught.value)


def test_an_object_of_an_older_version_is_read_without_a_seal(tmp_path):
    """Breaks if an upgrade costs finished runs."""
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    assert read_json(tmp_path / "a.json") == CONTENT
