"""Settings: which layer counts, where each value comes from, and what is refused with file, key and line."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from beamkeeper.config import Loaded, Settings, example, load, mask_url, rows
from beamkeeper.config.load import dotted, known_fields
from beamkeeper.config.toml_lines import KeyPath, key_lines
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.status import Service


def loaded(path: Path, text: str | bytes, environ: Mapping[str, str] | None = None, **flags: object) -> Loaded:
    """Load a file with this content."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    overrides = {name.replace("__", "."): value for name, value in flags.items()}
    return load(path, {"HOME": "/home/ada", **(environ or {})}, overrides)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "beamkeeper.toml"


def test_without_any_file_every_setting_is_a_default(tmp_path: Path) -> None:
    found = load(environ={"HOME": str(tmp_path)})
    data_dir = tmp_path / ".local/share/beamkeeper"
    assert found.file is None
    assert {row.origin for row in rows(found)} == {"default"}
    assert found.settings.data_dir == data_dir
    assert found.settings.storage.area_path == data_dir / "storage"
    assert found.settings.acquisition.spool == data_dir / "spool"
    assert found.settings.service_key_file == data_dir / "service.key"
    assert found.settings.database_url(Service.CATALOG) == f"sqlite:///{data_dir}/catalog.db"
    assert found.settings.url("acquisition") == "http://127.0.0.1:22238"
    assert found.settings.listen("storage") == ("127.0.0.1", 22236)


def test_flags_go_over_the_environment_over_the_file_over_defaults(file: Path) -> None:
    text = "[acquisition]\nthreads = 3\nquiet_s = 3\nbatch_files = 3\n"
    environ = {"BEAMKEEPER_ACQUISITION__QUIET_S": "4", "BEAMKEEPER_ACQUISITION__BATCH_FILES": "4"}
    found = loaded(file, text, environ, acquisition__batch_files=5)
    acquisition = found.settings.acquisition
    assert (acquisition.threads, acquisition.quiet_s, acquisition.batch_files) == (3, 4.0, 5)
    assert found.origin == {
        "acquisition.threads": f"file {file}:2",
        "acquisition.quiet_s": "environment BEAMKEEPER_ACQUISITION__QUIET_S",
        "acquisition.batch_files": "flag",
    }
    assert found.origin_of("acquisition.scan_interval_s") == "default"


def test_a_flag_of_none_was_not_given(file: Path) -> None:
    assert loaded(file, 'site = "APS"', site=None).settings.site == "APS"


def test_the_first_file_found_counts(tmp_path: Path) -> None:
    argument, named, data_dir, home = (tmp_path / name for name in ("a.toml", "b.toml", "data", "home"))
    own = home / ".config/beamkeeper/beamkeeper.toml"
    for path, site in ((argument, "1"), (named, "2"), (data_dir / "beamkeeper.toml", "3"), (own, "4")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'site = "{site}"')
    in_home = {"HOME": str(home)}
    with_data = {**in_home, "BEAMKEEPER_DATA_DIR": str(data_dir)}
    with_name = {**with_data, "BEAMKEEPER_CONFIG": str(named)}
    assert load(argument, with_name).settings.site == "1"
    assert load(environ=with_name).settings.site == "2"
    assert load(environ=with_data).settings.site == "3"
    assert load(environ=in_home, overrides={"data_dir": data_dir}).settings.site == "3"
    assert load(environ=in_home).settings.site == "4"


@pytest.mark.parametrize("name", ["argument", "environment"])
def test_a_file_that_was_named_must_be_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "gone.toml"
    with pytest.raises(SettingsError, match=re.escape(str(path))):
        load(path if name == "argument" else None, {"BEAMKEEPER_CONFIG": str(path)})


def test_relative_paths_in_a_file_are_relative_to_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    text = """
        data_dir = "data"
        storage = { area_path = "../area", database = "sqlite:///db/storage.db" }
        acquisition.roots = ["~/scans", "/detectors", "here"]
        """
    settings = loaded(file, text).settings
    assert settings.data_dir == file.parent / "data"
    assert settings.storage.area_path == file.parent.parent / "area"
    assert settings.database_url("storage") == f"sqlite:///{file.parent}/db/storage.db"
    assert settings.acquisition.roots == (Path("/home/ada/scans"), Path("/detectors"), file.parent / "here")
    assert settings.service_key_file == file.parent / "data/service.key"


def test_relative_paths_of_a_flag_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={"HOME": "/nowhere"}, overrides={"data_dir": "d"}).settings.data_dir == tmp_path / "d"


@pytest.mark.parametrize(
    ("text", "line", "key", "part"),
    [
        ("\n[acquisition]\nquite_s = 3\n", 3, "acquisition.quite_s", 'did you mean "acquisition.quiet_s"?'),
        ("[log]\ndata_dir = '/x'\n", 2, "log.data_dir", 'did you mean "data_dir"?'),
        ("[staton]\nname = 'x'\n", 1, "staton", 'did you mean "station"?'),
        ("'station.name' = 'x'\n", 1, '"station.name"', "there is no setting"),
        ("transfer.copy = 1\n", 1, "transfer.copy", "it is a table"),
        ("\nstation = 'x'\n", 2, "station", "it is a table"),
        ("[acquisition]\nthreads = 'two'\n", 2, "acquisition.threads", "a whole number"),
        ("[acquisition]\nthreads = true\n", 2, "acquisition.threads", "a whole number"),
        ("[acquisition]\nthreads = 0\n", 2, "acquisition.threads", "greater than or equal to 1"),
        ("[acquisition]\nquiet_s = nan\n", 2, "acquisition.quiet_s", "finite"),
        ("[acquisition]\nquiet_s = '2'\n", 2, "acquisition.quiet_s", "a number"),
        ("[acquisition]\nroots = [\n  '/a',\n  3]\n", 4, "acquisition.roots", "a path"),
        ("[acquisition]\nprocessors = 'metadata'\n", 2, "acquisition.processors", "a list"),
        ("data_dir = ''\n", 1, "data_dir", "an absolute path"),
        ("data_dir = '/a?b'\n", 1, "data_dir", "neither ? nor %"),
        ("site = 2026-01-01\n", 1, "site", "text"),
        ("storage.listen = 'localhost'\n", 1, "storage.listen", "HOST:PORT"),
        ("storage.listen = 'localhost:65536'\n", 1, "storage.listen", "HOST:PORT"),
        ("storage.listen = '::1:22236'\n", 1, "storage.listen", "brackets"),
        ("storage.url = 'ftp://x'\n", 1, "storage.url", "http://"),
        ("\ncatalog.listen = '127.0.0.1:22236'\n", 2, "catalog.listen", "a port of its own"),
        ("station.timezone = 'Mars/Hellas'\n", 1, "station.timezone", "IANA"),
        ("station.timezone = '../../etc/passwd'\n", 1, "station.timezone", "IANA"),
        ("station.layout = '{cycle}'\n", 1, "station.layout", "{experiment}"),
        ("station.layout = '../{experiment}'\n", 1, "station.layout", "relative path"),
        ("[transfer.copy]\nsince = 2026-01-01\n", 2, "transfer.copy.since", "JSON"),
    ],
)
def test_a_wrong_setting_is_refused_with_file_line_and_key(
    file: Path, text: str, line: int, key: str, part: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(file, text)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert part in str(caught.value)
    assert caught.value.details["key"] == key


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"[station\n", 1),
        (b"site = 'x'\nsite = 'y'\n", 2),
        (b"site = 'x'\n\n[storage]\nlisten = \"127.0.0.1:2", 4),
        (b"\n[station]\ntitle = '''\nno end\n", 4),
        (b"\xef\xbb\xbfsite = 'x'\n", 1),
        ("site = 'x'\n".encode("utf-16"), 1),
        (b"# fine\nsite = '\xe9'\n", 2),
        (b"site = 'x'\n\0\n", 2),
        (b"x = " + b"[" * 100_000, 1),
    ],
)
def test_a_file_that_is_no_whole_utf8_toml_is_refused_with_its_line(file: Path, raw: bytes, line: int) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(file, raw)
    assert str(caught.value).startswith(f"{file}:{line}: ")


def test_every_cut_of_a_file_loads_or_is_refused(file: Path) -> None:
    text = example().replace("# ", "").encode()
    for end in range(0, len(text), 7):
        try:
            loaded(file, text[:end])
        except SettingsError as error:
            assert str(error).startswith(f"{file}:"), error  # noqa: PT017 - a cut between two lines is whole


def test_a_directory_and_a_huge_file_are_no_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="directory"):
        load(tmp_path)
    with pytest.raises(SettingsError, match="larger than"):
        load(Path("/dev/zero"))


def test_an_empty_file_sets_nothing(file: Path) -> None:
    found = loaded(file, "")
    assert (found.file, found.origin) == (file, {})


def test_all_problems_are_told_at_once(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"and 1 more: acquisition\.threads") as caught:
        loaded(file, "[acquisition]\nthreads = 'x'\nroots = 3\n")
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    assert [text.partition(": ")[0] for text in problems] == [f"{file}:3", f"{file}:2"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BEAMKEEPER_STATON__NAME", "x"),
        ("BEAMKEEPER_SITE__", "x"),
        ("BEAMKEEPER_", "x"),
        ("BEAMKEEPER_TRANSFER__COPY", "x"),
        ("BEAMKEEPER_ACQUISITION__THREADS", "many"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^environment {name}: "):
        load(environ={"HOME": "/home/ada", name: value})


def test_variables_are_toml_values_or_text() -> None:
    settings = load(
        environ={
            "HOME": "/home/ada",
            "BEAMKEEPER_STATION__NAME": "8",
            "BEAMKEEPER_STATION__TITLE": '"in quotes"',
            "BEAMKEEPER_STATION__CYCLE": "2026-1",
            "BEAMKEEPER_STATION__LAYOUT": "",
            "BEAMKEEPER_ACQUISITION__ROOTS": '["~/a", "/b"]',
            "BEAMKEEPER_TRANSFER__RSYNC__COMPRESS": "true",
            "BEAMKEEPER_TRANSFER__RSYNC__HOST": "dtn01",
            "BEAMKEEPER_TOKEN": "not a setting",
            "HOMEBREW": "not ours",
        }
    ).settings
    assert (settings.station.name, settings.station.title, settings.station.cycle) == ("8", "in quotes", "2026-1")
    assert settings.station.layout == "{cycle}/{experiment}"
    assert settings.acquisition.roots == (Path("/home/ada/a"), Path("/b"))
    assert settings.transfer == {"rsync": {"compress": True, "host": "dtn01"}}


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(SettingsError, match=r'^flag: there is no setting "storage\.port"'):
        load(environ={"HOME": "/"}, overrides={"storage.port": 1})


def test_settings_cannot_be_changed_once_they_are_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().site = "other"  # type: ignore[misc]


def test_urls_follow_the_address_that_is_listened_on(file: Path) -> None:
    text = "storage.listen = '[::1]:80'\ncatalog.listen = '0.0.0.0:81'\nacquisition.url = 'https://x.org/a/'\n"
    settings = loaded(file, text).settings
    assert settings.url("storage") == "http://[::1]:80"
    assert settings.listen("storage") == ("::1", 80)
    assert re.fullmatch(r"http://[^:/]+:81", settings.url("catalog"))
    assert not settings.url("catalog").startswith("http://0.")
    assert settings.url("acquisition") == "https://x.org/a"


def test_services_may_all_listen_on_free_ports(file: Path) -> None:
    text = "".join(f"{service}.listen = '127.0.0.1:0'\n" for service in Service)
    assert loaded(file, text).settings.listen("catalog") == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    "secret_line",
    [
        "storage.database = 'postgresql://dm:hunter2@db/dm'",
        "storage.database = 'postgresql://dm:p@ss/hunter2@db/dm'",
        "storage.database = 'postgresql:///dm?password=hunter2&user=dm'",
        "transfer.s3.secret_access_key = 'hunter2'",
        "transfer.s3 = { remotes = [{ password = 'hunter2' }] }",
        "transfer.s3.url = 'https://dm:hunter2@s3.org/'",
    ],
)
def test_no_secret_shows(file: Path, secret_line: str) -> None:
    found = loaded(file, secret_line)
    shown = json.dumps([row.value for row in rows(found)])
    assert "hunter2" not in shown
    assert "***" in shown
    if "database" in secret_line:
        assert "hunter2" in found.settings.database_url("storage")
        assert "hunter2" not in repr(found)


def test_a_refused_value_does_not_show(file: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(file, "storage.database = 'mysql://dm:hunter2@db/dm'")
    assert "hunter2" not in repr(caught.value) + repr(caught.value.details)
    assert caught.value.__cause__ is None


def test_a_url_without_password_shows_whole() -> None:
    for url in ("sqlite:////var/lib/a:b/x.db", "postgresql://dm@db:5432/dm", "http://[::1]:80"):
        assert mask_url(url) == url


def test_every_setting_has_a_description_and_a_default() -> None:
    for key, field in known_fields():
        assert field.description, dotted(key)
        assert field.description.endswith("."), dotted(key)
        assert not field.is_required(), dotted(key)


def test_the_example_file_has_every_setting_with_its_default(file: Path) -> None:
    text = example(file.parent)
    assert loaded(file, text).origin == {}
    uncommented = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)
    found = loaded(file, uncommented)
    # Of executors there are as many tables as one names, and none by default.
    assert set(found.origin) == {dotted(key) for key, _ in known_fields()} - {"executors"}
    defaults = Settings.model_validate({"data_dir": file.parent, "station": {"agent": "hutch-pc"}})
    assert found.settings == defaults


# The line finder, against texts that are written together with the true line of each key.

BARE = st.text("abcXYZ019_-", min_size=1, max_size=5)
NAME = BARE | st.text(max_size=6)
GAP = st.sampled_from(["", "\n", "  # [no] table = 1\n", "\n\n\t\n", '# """\n'])
VALUE = st.sampled_from(
    [
        "1",
        "-1e3",
        "1979-05-27 07:32:00",
        '"a # \\" ] b"',
        "'}, a = 1 \\'",
        '"""x\n[t]\na = 1\\""""""',
        "'''\nb = '' 2\n\n''''",
        "[ 1, # ]\n 'x' ,\n]",
        "[[], {}, [{}]]",
        "{}",
    ]
)


class _Writer:
    """Writes TOML with odd spacing, and keeps account of the lines."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def add(self, text: str) -> None:
        self.text += text

    def note(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def key(self, name: str) -> str:
        is_bare = re.fullmatch("[A-Za-z0-9_-]+", name) and self._draw(st.booleans())
        return name if is_bare else json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")

    def table(self, names: list[str], prefix: KeyPath) -> None:
        for name in names:
            self.add(self._draw(GAP))
            self.pair(name, prefix)
            self.add("\n")

    def pair(self, name: str, prefix: KeyPath) -> None:
        self.note((*prefix, name))
        self.add(self.key(name))
        path: KeyPath = (*prefix, name)
        if self._draw(st.booleans()):
            inner = self._draw(NAME)
            self.note((*path, inner))
            self.add(f" . {self.key(inner)}")
            path = (*path, inner)
        self.add(" = ")
        if self._draw(st.integers(0, 3)) == 0:
            self.add("{ ")
            for position, each in enumerate(self._draw(st.lists(NAME, max_size=3, unique=True))):
                self.add(", " if position else "")
                self.pair(each, path)
            self.add(" }")
        elif self._draw(st.integers(0, 3)) == 0:
            self.array(path)
        else:
            self.add(self._draw(VALUE))

    def array(self, path: KeyPath) -> None:
        self.add("[")
        for position in range(self._draw(st.integers(1, 3))):
            self.add(self._draw(st.sampled_from([" ", "\n", " # ]\n"])))
            self.note((*path, position))
            self.add("7,")
        self.add("]")


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[KeyPath, int]]:
    writer = _Writer(draw)
    names = draw(st.lists(NAME, min_size=1, max_size=6, unique=True))
    cut = draw(st.integers(0, len(names)))
    writer.table(names[:cut], ())
    for name in names[cut:]:
        writer.add(draw(GAP))
        if draw(st.booleans()):
            for position in range(draw(st.integers(1, 3))):
                writer.note((name,))
                writer.note((name, position))
                writer.add(f"[[ {writer.key(name)} ]]\n")
                writer.table(draw(st.lists(NAME, max_size=2, unique=True)), (name, position))
        else:
            inner = draw(NAME)
            writer.note((name,))
            writer.note((name, inner))
            writer.add(f"[{writer.key(name)}. {writer.key(inner)}] # x\n")
            writer.table(draw(st.lists(NAME, max_size=3, unique=True)), (name, inner))
    return writer.text, writer.lines


def paths(value: object, prefix: KeyPath = ()) -> set[KeyPath]:
    """Return the path of every key and element in a read document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: set[KeyPath] = set()
    for name, each in pairs:
        found |= {(*prefix, name)} | paths(each, (*prefix, name))
    return found


@given(documents())
def test_every_key_is_found_in_its_line(document: tuple[str, dict[KeyPath, int]]) -> None:
    text, expected = document
    found = key_lines(text)
    assert set(found) == paths(tomllib.loads(text))
    assert {path: found[path] for path in expected} == expected
