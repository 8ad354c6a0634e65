"""The catalogue lists the traces of its files and folders, and a name leads nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specscope.viewer.runs import catalogue as module
from specscope.viewer.runs.catalogue import Catalogue, list_folder, named


def touch(*paths: Path, age: int = 0) -> None:
    """Makes empty files, written ``age`` seconds after a certain time."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1000 + age, 1000 + age))


def names_in(*places: Path) -> list[str]:
    """The names of all runs."""
    return [run.name for run in Catalogue(places).runs()]


def test_files_keep_their_order_and_folders_follow_the_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("older.jsonl", "old.jsonl", "new.jsonl")):
        touch(tmp_path / "runs" / name, age=age)
    touch(tmp_path / "runs" / "notes.txt", tmp_path / "z.jsonl", tmp_path / "y.jsonl")
    places = (tmp_path / "runs", tmp_path / "z.jsonl", tmp_path / "y.jsonl")
    assert names_in(*places) == ["z.jsonl", "y.jsonl", "new.jsonl", "old.jsonl", "older.jsonl"]


def test_what_is_given_twice_counts_once(tmp_path: Path) -> None:
    touch(tmp_path / "a.jsonl", tmp_path / "sub" / "b.jsonl")
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    first = tmp_path / "a.jsonl"
    twice = Catalogue([first, tmp_path / "sub" / ".." / "a.jsonl", tmp_path / "link.jsonl", tmp_path / "sub", tmp_path])
    assert twice.files == [first]
    assert sorted(run.name for run in twice.runs()) == ["a.jsonl", "b.jsonl", "link.jsonl"]
    assert names_in(first, tmp_path / "sub" / "b.jsonl", first) == ["a.jsonl", "b.jsonl"]
    assert names_in(tmp_path / "link.jsonl") == ["link.jsonl"], "a file keeps the name by which it was given"


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    touch(*(tmp_path / place for place in ("x/one/a.jsonl", "y/one/a.jsonl", "y/two/a.jsonl", "y/two/b.jsonl")))
    places = [tmp_path / place for place in ("x/one", "y/one", "y/two")]
    assert sorted(names_in(*places)) == ["b.jsonl", "two/a.jsonl", "x/one/a.jsonl", "y/one/a.jsonl"]
    assert sorted(names_in(tmp_path)) == ["x/one/a.jsonl", "y/one/a.jsonl", "y/two/a.jsonl", "y/two/b.jsonl"]
    assert sorted(names_in(tmp_path, tmp_path / "y"))[:2] == ["one/a.jsonl", "two/a.jsonl"], (
        "from the nearest folder on"
    )


def test_another_file_changes_no_name_and_breaks_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(module, "FRESH_TIMES", 0.0)
    touch(tmp_path / "1" / "t.jsonl")
    found = Catalogue([tmp_path])
    before = found.find("1/t.jsonl")
    assert before is not None
    assert found.find("t.jsonl") == before, "the only file of that name"
    assert found.find(f"{tmp_path.name}/1/t.jsonl") == before
    for nonsense in ("", "/", "/t.jsonl", ".jsonl", "/1/t.jsonl", "./1/t.jsonl", str(tmp_path / "1" / "t.jsonl")):
        assert found.find(nonsense) is None
    touch(tmp_path / "2" / "t.jsonl")
    assert found.find("1/t.jsonl") == before
    assert found.find("t.jsonl") is None, "either may be meant"
    touch(tmp_path / "t.jsonl")
    third = found.find("t.jsonl")
    assert third is not None
    assert third.path == tmp_path / "t.jsonl"


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c.jsonl"]), min_size=1, max_size=4), unique_by=tuple))
def test_every_run_has_a_name_of_its_own(tails: list[list[str]]) -> None:
    paths = tuple(Path("/", *tail) for tail in tails)
    runs = named(paths)
    assert [run.path for run in runs.values()] == list(paths)
    assert all(str(run.path).endswith(name) and run.name == name for name, run in runs.items())


def test_hidden_folders_and_files_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / ".hidden" / "a.jsonl", tmp_path / ".b.jsonl", tmp_path / "sub" / ".git" / "c.jsonl")
    assert names_in(tmp_path) == []


def test_a_folder_that_is_hidden_itself_may_be_given(tmp_path: Path) -> None:
    touch(tmp_path / ".runs" / "a.jsonl")
    assert names_in(tmp_path / ".runs") == ["a.jsonl"]


def test_links_that_lead_out_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "secret" / "s.jsonl", tmp_path / "runs" / "a.jsonl")
    (tmp_path / "runs" / "file.jsonl").symlink_to(tmp_path / "secret" / "s.jsonl")
    (tmp_path / "runs" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "runs" / "circle.jsonl").symlink_to("circle.jsonl")
    (tmp_path / "runs" / "up").symlink_to("..")
    (tmp_path / "runs" / "folder.jsonl").mkdir()
    assert names_in(tmp_path / "runs") == ["a.jsonl"]
    assert names_in(tmp_path / "runs" / "circle.jsonl") == ["circle.jsonl"], "reading it says what is wrong"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jsonl",
        "runs/../secret.jsonl",
        "/etc/passwd",
        "{folder}/secret.jsonl",
        "{folder}/runs/a.jsonl",
        "",
        ".",
    ],
)
def test_only_a_name_of_the_list_leads_to_a_file(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "secret.jsonl", tmp_path / "runs" / "a.jsonl")
    found = Catalogue([tmp_path / "runs"])
    assert found.find(name.format(folder=tmp_path)) is None
    run = found.find("a.jsonl")
    assert run is not None
    assert run.path == tmp_path / "runs" / "a.jsonl"


@pytest.mark.skipif(os.name != "posix", reason="names that are no text")
def test_names_that_are_no_text_become_text(tmp_path: Path) -> None:
    for raw in (b"\xff.jsonl", b"\\udcff.jsonl"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)).touch()
    names = names_in(tmp_path)
    assert len(set(names)) == 2
    for name in names:
        assert name.encode("utf-8")
        assert Catalogue([tmp_path]).find(name) is not None


def test_only_so_many_are_kept_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age in range(5):
        touch(tmp_path / f"{age}.jsonl", age=age)
    assert list_folder(tmp_path).is_whole
    monkeypatch.setattr(module, "MOST_RUNS", 3)
    listing = list_folder(tmp_path)
    assert [path.stem for path in listing.paths] == ["4", "3", "2"]
    assert not listing.is_whole


def test_the_nearest_are_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(tmp_path / f"a{n}" / "deep" / f"{n}.jsonl" for n in range(9)), tmp_path / "z.jsonl")
    monkeypatch.setattr(module, "MOST_ENTRIES", 12)
    listing = list_folder(tmp_path)
    assert [path.name for path in listing.paths] == ["z.jsonl"]
    assert not listing.is_whole


def test_new_runs_show_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(module, "FRESH_TIMES", 0.0)
    assert names_in(tmp_path) == []
    touch(tmp_path / "a.jsonl")
    assert names_in(tmp_path) == ["a.jsonl"]


def test_a_key_press_does_not_wait_for_a_thousand_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []

    def listing(folder: Path) -> module.Listing:
        listed.append(folder)
        return list_folder(folder)

    monkeypatch.setattr(module, "FRESH_SECONDS", 3600.0)
    monkeypatch.setattr(module, "list_folder", listing)
    touch(*(tmp_path / f"{n % 20}" / f"{n // 20}.jsonl" for n in range(1000)))
    catalogue = Catalogue([tmp_path])
    last = catalogue.runs()[-1].name
    for _ in range(5):
        assert catalogue.find(last) is not None
    assert listed == [tmp_path]


def test_a_folder_that_vanished_is_empty(tmp_path: Path) -> None:
    assert list_folder(tmp_path / "gone").paths == ()
