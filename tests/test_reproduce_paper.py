"""The paper's numbers are the printed ones, and contradict one another as noted."""

import json
import pathlib
import re
import statistics
from decimal import Decimal

import pytest

from spaced_kd.errors import ConfigError, DataError
from spaced_kd.reproduce import paper
from spaced_kd.reproduce.paper import Number, Table

PAPER = paper.load()
# Rows times columns as counted by eye in the paper, differences included.
COUNTS = {
    "table1": 14 * 4,
    "table2": 10 * 4,
    "table3": 5 * 3,
    "table4": 6 * 3,
    "table5": 6 * 9,
    "table6": 10 * 7,
    "table7": 4 * 4,
    "table8": 4 * 3,
    "table9": 7 * 3,
    "table10": 5 * 2,
    "table11": 6,
    "table12": 12 * 9,
    "table13": 3 * 3,
}
# What the paper prints across, and we down: epochs and networks are our rows.
TURNED = ("table7", "table8", "table13")
WIDE = ("table5", "table12")
NUMBERS = re.compile(r"(?:(?:^|\s)[+-]?\d+\.\d+)+$")


@pytest.fixture(scope="module")
def text(shared_data) -> list[str]:
    """The lines of the paper's text, where it lies beside the shared data."""
    files = sorted((shared_data.parent / "paper").glob("*.txt"))
    found = [f.read_text(encoding="utf-8") for f in files]
    found = [t for t in found if "Table 13:" in t]
    if not found:
        pytest.skip(f"needs the shared data: no paper in {shared_data.parent}/paper")
    return found[0].splitlines()


def _printed(text: list[str], name: str) -> list[tuple[str, list[str]]]:
    """A table's lines in the text: what stands before the numbers, and the numbers."""
    caption = f"Table {name.removeprefix('table')}:"
    start = next(n for n, line in enumerate(text) if line.startswith(caption))
    lines = []
    for line in text[start + 1 :]:
        if not line.strip() or line.startswith("Table "):
            break
        numbers = NUMBERS.search(line.rstrip())
        if numbers and not line.startswith("Interval (epoch)"):
            lines.append((line[: numbers.start()], numbers[0].split()))
    return lines


def _ours(table: Table) -> list[list[str]]:
    """Our numbers, in the lines in which the paper prints them."""
    rows = [[str(n) for n in row.numbers.values()] for row in table.rows.values()]
    if table.name in TURNED:
        return [list(column) for column in zip(*rows, strict=True)]
    if table.name in WIDE:
        return [sum(rows[k : k + 3], []) for k in range(0, len(rows), 3)]
    return rows


@pytest.mark.parametrize("name", COUNTS)
def test_every_number_is_that_of_its_table_in_the_text(text, name):
    """All of them, line by line and in order: no digit, and no number more or less."""
    printed = [numbers for _, numbers in _printed(text, name)]
    if name == "table12":
        assert [n[0] for n in printed] == 6 * ["3.0", "5.0"]  # intensities
        printed = [n[1:] for n in printed]
    assert _ours(PAPER.tables[name]) == printed
    assert sum(map(len, printed)) == COUNTS[name]


@pytest.mark.parametrize("name", [n for n in COUNTS if n not in (*TURNED, *WIDE)])
def test_every_row_is_about_what_its_line_in_the_text_names(text, name):
    """Else a right number would be compared with another network's."""
    data = ""
    lines = _printed(text, name)
    for (label, _), row in zip(lines, PAPER.tables[name].rows.values(), strict=True):
        label = label.replace("×\\times×", " x").casefold()
        known = {r.data.casefold() for r in PAPER.tables[name].rows.values()}
        data = next((d for d in known if label.startswith(d)), data)
        own = row.label.partition(" / ")[0]
        assert own.casefold() in label
        assert data in ("", row.data.casefold())


@pytest.mark.parametrize("name", WIDE)
def test_every_corruption_is_the_one_of_its_line(text, name):
    rows = list(PAPER.tables[name].rows.values())
    names: list[str] = []
    for label, _ in _printed(text, name):
        names.append(label or names[-1])
    own = [row.data.split() for row in rows[::3]]
    assert [corruption for corruption, _ in own] == names
    severities = ["1"] * 6 if name == "table5" else 6 * ["3", "5"]
    assert [severity for _, severity in own] == severities
    networks = ["ResNet-18", "ResNet-50", "ResNet-101"]
    assert [row.model for row in rows] == len(own) * networks


def test_there_are_thirteen_tables_of_the_counted_sizes():
    sizes = {n: len(t.rows) * len(t.columns) for n, t in PAPER.tables.items()}
    assert sizes == COUNTS
    for table in PAPER.tables.values():
        assert all(list(r.numbers) == list(table.columns) for r in table.rows.values())


def test_every_printed_difference_is_that_of_its_columns():
    """The paper has no slip here; a slip of ours would show."""
    wrong = [
        (table.name, row.label)
        for table in PAPER.tables.values()
        for column in table.columns.values()
        for row in table.rows.values()
        if column.minus
        and row.numbers[column.name].value
        != row.numbers[column.minus[0]].value - row.numbers[column.minus[1]].value
    ]
    assert wrong == []
    with_differences = {n for n, t in PAPER.tables.items() if "delta" in t.columns}
    assert with_differences == {f"table{k}" for k in (1, 2, 3, 5, 12, 13)}


def test_table_1_is_table_6_but_for_three_noted_cells():
    """Method, fact 10: the caption says 1.5 epochs, three rows are of others."""
    one, six = PAPER.tables["table1"], PAPER.tables["table6"]
    other = {}
    for label, row in six.rows.items():
        for column in ("baseline", "online"):
            assert one.number(label, column) == row.numbers[column]
        headline = one.number(label, "spaced")
        if headline != row.numbers["spaced_1_5"]:
            other[label] = {c for c, n in row.numbers.items() if n == headline}
    assert other == {
        "ResNet-101 / CIFAR-100": {"spaced_1_0", "spaced_2_0"},
        "PiT-Tiny / CIFAR-100": {"spaced_0_5"},
        "DeiT-Tiny / Tiny-ImageNet": {"spaced_0_5"},
    }
    noted = {
        label for label in one.rows if "Not 1.5 epochs" in _said(one, label, "spaced")
    }
    assert noted == set(other)


def _said(table, label, column):
    """What the notes say of one cell."""
    notes = [n for n in table.notes if not n.rows or label in n.rows]
    return " ".join(n.text for n in notes if not n.columns or column in n.columns)


def test_table_2_copies_its_first_column_but_for_two_noted_cells():
    one, two = PAPER.tables["table1"], PAPER.tables["table2"]
    differ = {
        label
        for label, row in two.rows.items()
        if row.numbers["baseline"] != one.number(label, "baseline")
    }
    assert differ == {"DeiT-Tiny / Tiny-ImageNet", "DeiT-Tiny / ImageNet-100"}
    for label in two.rows:
        notes = _said(two, label, "baseline")
        assert ("Copied from Table 1" in notes) == (label not in differ)
        assert ("Table 1 has" in notes) == (label in differ)


def test_numbers_that_stand_in_two_tables_are_the_same():
    """Tables 3, 9, 10, 11 take up others' runs, as their notes say."""
    tables = PAPER.tables
    headline = tables["table1"].rows["ResNet-18 / CIFAR-100"].numbers
    default = tables["table3"].rows["MSE (Sum)"].numbers
    assert {c: default[c] for c in default} == {c: headline[c] for c in default}
    ahead = tables["table11"].number("CIFAR-100", "ahead_0_0")
    assert ahead == headline["online"]
    for label in tables["table10"].rows:
        spaced = tables["table9"].number(label, "spaced")
        assert tables["table10"].number(label, "spaced") == spaced


def test_the_claims_on_gains_are_checked_by_the_tables():
    """2.32, 3.86, 2.47 and 5.74 of our remarks are counted again here."""
    gains = {
        (name, row.label): float(row.numbers["delta"])
        for name in ("table1", "table2")
        for row in PAPER.tables[name].rows.values()
    }
    tiny = {key: gain for key, gain in gains.items() if "Tiny-ImageNet" in key[1]}
    of = PAPER.tables["table7"]
    at = [float(of.difference(label, "spaced", "online") or 0) for label in of.rows]
    found = {
        f"{statistics.fmean(gains.values()):.2f}",
        f"{max(gains.values()):.2f}",
        f"{max(gain for (table, _), gain in tiny.items() if table == 'table1'):.2f}",
        f"{max(gain for (table, _), gain in tiny.items() if table == 'table2'):.2f}",
        f"{at[2]:.2f}",
    }
    checks = " ".join(claim.check for claim in PAPER.claims)
    assert set(re.findall(r"\d\.\d\d", checks)) == found
    assert (at[3], max(at)) == (5.08, at[2])


def test_table_13_is_named_as_little_different_before_resnet_101():
    """A spot check by hand that a turned table did not swap its axes."""
    table = PAPER.tables["table13"]
    of = {row.model: row.numbers["delta"].text for row in table.rows.values()}
    assert of == {"ResNet-18": "+0.11", "ResNet-50": "+0.38", "ResNet-101": "+1.99"}
    seven = PAPER.tables["table7"].rows["epoch 60"].numbers
    assert [n.text for n in seven.values()] == ["46.62", "52.36", "47.78", "50.22"]


def test_a_number_keeps_its_printed_precision():
    number = Number("70.00")
    assert (str(number), number.decimals, float(number)) == ("70.00", 2, 70.0)
    assert number.minus(Number("64.5")).text == "+5.50"
    assert Number("0.3").minus(Number("0.1")).value == Decimal("0.2")


def test_a_difference_is_the_printed_one_or_that_of_the_numbers():
    tables = PAPER.tables
    printed = tables["table5"].difference("frost 1 / ResNet-50", "spaced", "online")
    assert printed == Number("-0.23")
    assert tables["table4"].difference("BAN", "spaced", "method") == Number("+1.27")
    assert tables["table4"].difference("BAN", "spaced", "interleaved") is None
    assert tables["table4"].number("BAN, generation 3", "method") is None


def test_a_figure_is_the_table_that_it_draws_or_none():
    assert PAPER.table("figure2") is PAPER.tables["table6"]
    assert PAPER.table("figure3") is None
    assert set(PAPER.figures) == {f"figure{k}" for k in range(2, 7)}
    with pytest.raises(ConfigError, match="'table14' is unknown; did you mean"):
        PAPER.table("table14")


def test_the_paper_cannot_be_changed():
    with pytest.raises(TypeError):
        PAPER.tables["table1"].rows["new"] = None  # pyright: ignore[reportIndexIssue]
    assert paper.load() is PAPER


def _broken(change) -> str:
    file = pathlib.Path(paper.__file__).with_name(paper.FILE)
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["tables"]["table1"]["rows"][1]["values"].pop(),
         r"table1: row 'ResNet-50 / CIFAR-100' has 3 values for 4 columns"),
        (lambda c: c["tables"]["table1"]["rows"][0]["values"].__setitem__(0, "6x.12"),
         r"row 'ResNet-18 / CIFAR-100' has '6x.12', which is not a number"),
        (lambda c: c["tables"]["table1"]["rows"][0]["values"].__setitem__(0, 68.1),
         r"has 68.1, which is not a number in a string"),
        (lambda c: c["tables"]["table4"]["rows"][1].update(label="BAN"),
         r"table4: two columns or rows have the same name"),
        (lambda c: c["tables"]["table3"]["notes"][0].update(rows=["L3"]),
         r"table3: row of a note: 'L3' is not among L1, Smooth L1"),
        (lambda c: c["tables"]["table3"]["notes"][0].update(columns=["gain"]),
         r"column of a note: 'gain' is not among online, spaced, delta"),
        (lambda c: c["tables"]["table3"]["columns"][2].update(minus=["a", "b"]),
         r"table3: column delta: 'a' is not among"),
        (lambda c: c["figures"]["figure2"].update(numbers="table14"),
         r"figure2: numbers: 'table14' is not among"),
        (lambda c: c.pop("tables"), r"is damaged \(KeyError: 'tables'\)"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_told_in_one_line(change, message):
    with pytest.raises(DataError, match=message) as error:
        paper.parse(_broken(change))
    assert str(error.value).endswith("install spaced_kd again.")
    assert "\n" not in str(error.value)


def test_the_file_is_shipped():
    """An editable installation finds it in any case, a wheel only if it is listed."""
    setup = pathlib.Path(paper.__file__).parents[2] / "setup.cfg"
    assert "reproduce/*.json" in setup.read_text(encoding="utf-8").split()
