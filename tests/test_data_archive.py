"""Archives made by hand, byte by byte where Python's own writers are too honest."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib

import pytest
from archives import fails, member, tar_bytes

from spaced_kd.data.archive import Limits, index_tar, read_members
from spaced_kd.data.zip_archive import ZipArchive
from spaced_kd.errors import DataError

GOOD = {"a/one.txt": b"first " * 100, "a/two.bin": bytes(range(256)), "empty": b""}
LIMITS = Limits(members=8, member_bytes=1 << 22, total_bytes=1 << 23, ratio=2000.0)


def good_members():
    folder = member("a", type=tarfile.DIRTYPE)
    return [folder, *(member(name, content) for name, content in GOOD.items())]


def entry(name, content=b"", **fields):
    """Describe a zip member; `fields` overwrite what an honest writer would say."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(content) + deflate.flush()
    values = {
        "name": name.encode(),
        "local_name": name.encode(),
        "packed": packed,
        "packed_size": len(packed),
        "size": len(content),
        "crc": zlib.crc32(content),
        "flags": 0x800,
        "method": 8,
        "mode": 0,
        "at": None,
        "extra": b"",
    }
    return values | fields


def zip_bytes(entries) -> bytes:
    """Write a zip file with exactly these entries, whatever they say."""
    out, listed = bytearray(), bytearray()
    for e in entries:
        at = len(out) if e["at"] is None else e["at"]
        both = struct.pack(
            "<HHHHHLLL",
            20,
            e["flags"],
            e["method"],
            0,
            33,
            e["crc"],
            e["packed_size"],
            e["size"],
        )
        local, name = e["local_name"], e["name"]
        if e["at"] is None:
            out += b"PK\3\4" + both + struct.pack("<HH", len(local), 0) + local
            out += e["packed"]
        listed += b"PK\1\2" + struct.pack("<H", 0x314) + both
        extra, mode = e["extra"], e["mode"] << 16
        listed += struct.pack("<HHHHHLL", len(name), len(extra), 0, 0, 0, mode, at)
        listed += name + extra
    start, count = len(out), len(entries)
    end = struct.pack("<HHHHLLH", 0, 0, count, count, len(listed), start, 0)
    return bytes(out + listed + b"PK\5\6" + end)


def good_entries():
    return [entry("a/"), *(entry(name, content) for name, content in GOOD.items())]


@pytest.fixture
def write(tmp_path):
    def write(content, name="archive"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def read_zip(path, limits=LIMITS):
    with ZipArchive(path, limits) as opened:
        return {name: opened.read(name) for name in opened}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_tars_give_what_was_put_in(write, pack):
    """Plain and gzip alike; a folder of the same archive is no file."""
    path = write(pack(tar_bytes(good_members())))
    assert read_members(path, GOOD, LIMITS) == GOOD
    fails(lambda: read_members(path, ["a"], LIMITS), path, "no member 'a'")


def test_the_index_of_a_tar_leads_to_the_content(write):
    """Random access reads at these offsets and nowhere else."""
    content = tar_bytes(good_members())
    spans = index_tar(write(content), LIMITS)
    got = {name: content[at : at + size] for name, (at, size) in spans.items()}
    assert got == GOOD


def test_only_a_plain_tar_is_indexed(write):
    """Offsets into unpacked bytes are of no use in a packed file."""
    path = write(gzip.compress(tar_bytes(good_members())))
    fails(lambda: index_tar(path, LIMITS), path, "compressed")


def test_a_tar_cut_short_is_not_indexed(write):
    """The last member's offset would lie behind the end."""
    content = tar_bytes([member("a", b"x" * 5000)])
    for length in (700, 5000, 512 + 4999):
        fails(lambda n=length: index_tar(write(content[:n]), LIMITS), "damaged")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_of_the_standard_library_are_read(write, method):
    """The oracle is Python's writer; also with sizes behind the data (a stream)."""

    class Unseekable(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *arguments):
            raise OSError

    for kind in (io.BytesIO, Unseekable):
        file = kind()
        with zipfile.ZipFile(file, "w", method) as out:
            for name, content in GOOD.items():
                out.writestr(name, content)
        assert read_zip(write(file.getvalue())) == GOOD


def test_zips_made_by_hand_are_read(write):
    """So the hostile ones below are refused for what they change, nothing else."""
    path = write(zip_bytes(good_entries()))
    assert read_zip(path) == GOOD
    with zipfile.ZipFile(path) as oracle:
        assert {name: oracle.read(name) for name in GOOD} == GOOD
    named = [entry("ä.txt", b"x"), entry("b", b"y", mode=stat.S_IFREG | 0o644)]
    assert read_zip(write(zip_bytes(named))) == {"ä.txt": b"x", "b": b"y"}
    with ZipArchive(path, LIMITS) as opened:
        fails(lambda: opened.read("a/"), "no member 'a/'")


NAMES = {
    "absolute": "/etc/passwd",
    "parent": "a/../../b",
    "parent at the end": "a/..",
    "backslash": "..\\b",
    "drive": "C:b",
    "stream": "a/b:c",
    "twice": "a/one.txt",
    "twice but for case": "A/ONE.txt",
    "twice but for dots": "a/./one.txt",
    "twice but for slashes": "a//one.txt",
}
TARS = {kind: member(name, b"x") for kind, name in NAMES.items()} | {
    "symlink": member("x", type=tarfile.SYMTYPE, linkname="/etc"),
    "hard link": member("x", type=tarfile.LNKTYPE, linkname="a/one.txt"),
    "character device": member("x", type=tarfile.CHRTYPE),
    "block device": member("x", type=tarfile.BLKTYPE),
    "fifo": member("x", type=tarfile.FIFOTYPE),
    "contiguous": member("x", b"y", type=tarfile.CONTTYPE),
    "sparse": member("x", type=tarfile.GNUTYPE_SPARSE),
    "sparse in attributes": member(
        "x", b"y", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}
    ),
    "large": member("x", bytes((1 << 22) + 1)),
    "no name": member("", b"x"),
}


@pytest.mark.parametrize("where", [0, len(good_members())])
@pytest.mark.parametrize("kind", TARS)
def test_a_tar_with_one_bad_member_is_refused_whole(write, kind, where):
    """Whichever reader; the members that were asked for are all sound."""
    bad = TARS[kind]
    members = good_members()
    members.insert(where, bad)
    content = tar_bytes(members)
    words = () if where == 0 and "twice" in kind else (repr(bad[0].name),)
    words += ("is a link",) if "link" in kind else ()
    fails(lambda: read_members(write(content), GOOD, LIMITS), "refused", *words)
    packed = write(gzip.compress(content))
    fails(lambda: read_members(packed, GOOD, LIMITS), "refused", *words)
    fails(lambda: index_tar(write(content), LIMITS), "refused", *words)


def fake_size(size):
    """Return the header of a tar member that only claims to have a content."""
    info, _ = member("big")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [1 << 40, -512])
def test_the_size_in_a_tars_header_is_looked_at_before_it_is_used(write, size):
    """Gigabytes would be read, a negative one would lead back to the start for ever."""
    path = write(gzip.compress(fake_size(size)))
    fails(lambda: read_members(path, ["big"], LIMITS), "'big'", size)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [1 << 28, -512])
def test_a_headers_header_cannot_fill_the_memory(write, kind, size):
    """tarfile reads names and attributes whole, before anybody sees the member."""
    info, _ = member("x", type=kind)
    info.size = size
    path = write(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    reads = []
    original = gzip.GzipFile.read

    def spy(self, size=-1):
        reads.append(size)
        return original(self, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip.GzipFile, "read", spy)
        fails(lambda: read_members(path, ["x"], LIMITS), path, "headers")
    assert reads and max(reads) <= 1 << 20 and min(reads) > 0


def test_a_headers_header_that_is_too_large_is_found_by_the_member_before(write):
    """It has no name of its own yet; among thousands of members, where is it?"""
    info, _ = member("x", type=tarfile.XHDTYPE)
    info.size = 1 << 28
    content = tar_bytes(good_members()).rstrip(b"\0")
    content += bytes(-len(content) % 512) + info.tobuf(tarfile.GNU_FORMAT)
    path = write(content + bytes(1 << 20))
    fails(lambda: read_members(path, GOOD, LIMITS), "headers behind member 'empty'")


def test_headers_of_headers_end_in_one_line(write):
    """Each is read inside the last; a thousand exhaust Python's stack."""
    info, _ = member("x", type=tarfile.GNUTYPE_LONGNAME)
    info.size = 512
    block = info.tobuf(tarfile.GNU_FORMAT) + bytes(512)
    path = write(block * 1010)
    fails(lambda: read_members(path, ["x"], LIMITS), path)
    fails(lambda: index_tar(path, LIMITS), path)


def many(make, count):
    return [make(f"x{i}", b"y") for i in range(count)]


def zeros(make, count, size):
    return [make(f"x{i}", bytes(size)) for i in range(count)]


LIMIT_CASES = [
    (lambda make: many(make, 9), LIMITS, ("'x8'", "8 others")),
    (lambda make: zeros(make, 3, 1 << 22), LIMITS, ("'x2'", 12 << 20, 8 << 20)),
    (
        lambda make: zeros(make, 2, 700_000),
        Limits(ratio=50.0),
        ("'x1'", "1400000", "50 times"),
    ),
]


@pytest.mark.parametrize(("members", "limits", "words"), LIMIT_CASES)
def test_count_total_and_ratio_are_limited(write, members, limits, words):
    """Bombs: many members, many large ones, or much from few bytes."""
    path = write(gzip.compress(tar_bytes(members(member))))
    fails(lambda: read_members(path, ["x0"], limits), *words)
    path = write(zip_bytes(members(entry)))
    fails(lambda: read_zip(path, limits), *words)


@pytest.mark.parametrize(("members", "limits", "words"), LIMIT_CASES)
def test_what_reaches_a_limit_without_passing_it_is_read(write, members, limits, words):
    """One member less than above is an honest archive."""
    path = write(gzip.compress(tar_bytes(members(member)[:-1])))
    assert len(read_members(path, ["x0"], limits)) == 1
    path = write(zip_bytes(members(entry)[:-1]))
    assert "x0" in read_zip(path, limits)


ZIPS = {kind: entry(name, b"x") for kind, name in NAMES.items()} | {
    "symlink": entry("x", b"/etc/passwd", mode=stat.S_IFLNK | 0o777),
    "device": entry("x", mode=stat.S_IFCHR | 0o600),
    "fifo": entry("x", mode=stat.S_IFIFO | 0o600),
    "socket": entry("x", mode=stat.S_IFSOCK | 0o600),
    "folder with content": entry("x/", b"y"),
    "encrypted": entry("x", b"y", flags=0x1),
    "strongly encrypted": entry("x", b"y", flags=0x41),
    "hidden list": entry("x", b"y", flags=0x2000),
    "patch": entry("x", b"y", flags=0x20),
    "bzip2": entry("x", b"y", method=12),
    "lzma": entry("x", b"y", method=14),
    "large": entry("x", size=(1 << 22) + 1),
    "zero in the name": entry("x\0y", b"y"),
    "no name": entry("", b"y"),
}


@pytest.mark.parametrize("where", [0, len(good_entries())])
@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_with_one_bad_member_is_refused_before_any_is_read(write, kind, where):
    """All entries are looked at when it is opened."""
    bad = ZIPS[kind]
    entries = good_entries()
    entries.insert(where, bad)
    path = write(zip_bytes(entries))
    words = () if where == 0 and "twice" in kind else (repr(bad["name"].decode()),)
    words += ("is a link",) if "link" in kind else ()
    fails(lambda: ZipArchive(path, LIMITS), "refused", *words)


TEXT = b"some text " * 50
LIES = {
    "more than declared": {"size": 20},
    "less than declared": {"size": len(TEXT) + 1},
    "more, with the checksum of the part": {"size": 20, "crc": zlib.crc32(TEXT[:20])},
    "checksum": {"crc": 1},
    "packed bytes behind the end": {"packed": zlib.compress(TEXT)[2:-4] + b"junk"},
    "cut short": {"packed_size": 9},
    "stored of another size": {"method": 0},
    "no deflate stream": {"packed": b"\xff" * 40},
    "another name at its place": {"local_name": b"lye"},
}


@pytest.mark.parametrize("kind", LIES)
def test_a_member_other_than_its_header_says_is_refused(write, kind):
    """Python's own reader cuts one of these to the declared size, without a word."""
    lie = entry("lie", TEXT) | LIES[kind]
    if "packed" in LIES[kind]:
        lie["packed_size"] = len(lie["packed"])
    path = write(zip_bytes([lie, entry("z", b"x" * 99)]))
    with ZipArchive(path, LIMITS) as opened:
        fails(lambda: opened.read("lie"), path, "'lie'")
        assert opened.read("z") == b"x" * 99


def test_a_bomb_that_lies_about_its_size_is_not_unpacked(write, monkeypatch):
    """A thousand bytes of zeros a byte; what is not asked for is never made."""
    made = []
    real = zlib.decompressobj

    class Spy:
        def __init__(self, *arguments):
            self.inner = real(*arguments)

        def decompress(self, data, most):
            made.append(self.inner.decompress(data, most))
            return made[-1]

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Spy)
    bomb = entry("bomb", bytes(1 << 24)) | {
        "size": 1000,
        "crc": zlib.crc32(bytes(1000)),
    }
    with ZipArchive(write(zip_bytes([bomb])), LIMITS) as opened:
        fails(lambda: opened.read("bomb"), "'bomb'", "declares")
    assert [len(piece) for piece in made] == [1001]


def test_members_that_share_bytes_are_refused(write):
    """The best bombs list one packed block many times (D. Fifield, 2019)."""
    first = entry("a", TEXT)
    shared = entry("b", TEXT, at=0)
    fails(lambda: ZipArchive(write(zip_bytes([first, shared])), LIMITS), "overlap")
    inside = entry("b", TEXT, at=40)
    fails(lambda: ZipArchive(write(zip_bytes([first, inside])), LIMITS), "'b'")


def second_name(name, other):
    """Return a member that an extra field, Info-ZIP's 0x7075, gives another name."""
    content = struct.pack("<BL", 1, zlib.crc32(name.encode())) + other.encode()
    extra = struct.pack("<HH", 0x7075, len(content)) + content
    return entry(name, name.encode(), extra=extra)


@pytest.mark.parametrize("other", ["one", "../../one"])
def test_a_second_name_in_an_extra_field_is_never_used(write, other):
    """Python from 3.12 on calls the member by it, past every look at names."""
    path = write(zip_bytes([entry("one", b"1"), second_name("two", other)]))
    with zipfile.ZipFile(path) as python:
        renamed = "two" not in python.namelist()
    if renamed:
        fails(lambda: read_zip(path), "refused", "'two' is also called", other)
    else:
        assert read_zip(path) == {"one": b"1", "two": b"two"}


def test_a_member_beyond_the_end_is_refused_before_memory_is_taken(write):
    """The size that is read is the packed one, which no limit on content looks at."""
    extra = struct.pack("<HHQ", 1, 8, 1 << 62)  # zip64
    far = entry("far", b"x", packed_size=0xFFFFFFFF, extra=extra)
    path = write(zip_bytes([entry("near", b"y"), far]))
    fails(lambda: ZipArchive(path, LIMITS), "refused", "'far' ends at byte 46116860")
    cut = entry("x", b"y" * 9, method=0, packed=b"", packed_size=1 << 20)
    fails(lambda: ZipArchive(write(zip_bytes([cut])), LIMITS), "'x' ends at byte")


def test_damaged_zips_are_one_line(write):
    """Python's reader has an exception of its own for each place."""
    sound = zip_bytes(good_entries())
    for length in (0, 10, len(sound) // 2, len(sound) - 1):
        fails(lambda n=length: read_zip(write(sound[:n])), "damaged")
    for at in range(len(sound)):
        flipped = bytearray(sound)
        flipped[at] ^= 0xFF
        path = write(flipped)
        try:
            assert set(read_zip(path).values()) <= set(GOOD.values())
        except DataError as error:
            assert str(path) in str(error)


def test_the_defaults_admit_the_cifar_archives():
    """9 members, the largest of 155 MB, in archives of 170 MB."""
    limits = Limits()
    assert limits.members >= 9 and limits.member_bytes > 155_250_000
    assert limits.total_bytes > 187_000_000
