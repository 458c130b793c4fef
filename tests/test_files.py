import os
import subprocess
import sys

import fsspec
import pytest

from cngpt import files
from cngpt.errors import UserError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "folder" / "数据.json"
    files.write_json(path, {"题": [1, 2]})
    with pytest.raises(ZeroDivisionError), files.atomic_write(path, "w") as file:
        file.write("half")
        raise ZeroDivisionError
    assert files.read_json(path) == {"题": [1, 2]}
    assert os.listdir(path.parent) == ["数据.json"]


def test_remote_files_are_whole_or_absent_too():
    with pytest.raises(ZeroDivisionError), files.atomic_write("memory://whole/a.bin") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert not files.exists("memory://whole/a.bin")
    files.write_text("memory://whole/a.txt", "全文\n")
    assert files.open_read("memory://whole/a.txt").read().decode() == "全文\n"
    assert list(files.listing("memory://whole")) == [("memory://whole/a.txt", 7)]


def test_a_checksum_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_appears_at_the_end_or_not_at_all(tmp_path):
    with files.atomic_folder(tmp_path / "out") as new:
        (new / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "other") as new:
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["out"]


def test_an_existing_folder_gives_way_only_when_asked_and_only_to_a_whole_one(tmp_path):
    with files.atomic_folder(tmp_path / "out") as new:
        (new / "a").write_text("old")
    with pytest.raises(UserError, match="overwrite=true"), files.atomic_folder(tmp_path / "out"):
        pass
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "out", overwrite=True):
        raise ZeroDivisionError
    assert (tmp_path / "out" / "a").read_text() == "old"
    with files.atomic_folder(tmp_path / "out", overwrite=True) as new:
        (new / "b").write_text("new")
    assert os.listdir(tmp_path / "out") == ["b"]
    assert os.listdir(tmp_path) == ["out"]


def test_two_processes_that_make_the_same_folder_do_not_mix(tmp_path):
    first, second = files.NewFolder(tmp_path / "out"), files.NewFolder(tmp_path / "out")
    (first.temporary / "a").write_text("1")
    (second.temporary / "b").write_text("2")
    first.commit()
    with pytest.raises(UserError, match="another process"):
        second.commit()
    assert os.listdir(tmp_path / "out") == ["a"]


def test_what_a_dead_process_left_behind_is_removed(tmp_path):
    code = f"from cngpt import files, os; files.NewFolder({str(tmp_path / 'out')!r}); os._exit(9)"
    subprocess.run([sys.executable, "-c", code.replace(", os", "; import os")], cwd=os.getcwd())
    assert len(os.listdir(tmp_path)) == 1
    with files.atomic_folder(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == ["out"]


KILLED = """
import os, sys
from cngpt import files
real, count = os.replace, 0
def replace(*names):
    global count
    count += 1
    if count == 2:
        os._exit(9)
    real(*names)
os.replace = replace
with files.atomic_folder(sys.argv[1], overwrite=True) as new:
    (new / "b").write_text("new")
"""


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    out = tmp_path / "out"
    with files.atomic_folder(out) as new:
        (new / "a").write_text("old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(out)]).returncode == 9
    assert not out.exists() and len(os.listdir(tmp_path)) == 2
    with pytest.raises(ZeroDivisionError), files.atomic_folder(out, overwrite=True):
        raise ZeroDivisionError
    assert (out / "a").read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_what_was_put_back_is_no_free_place(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("old")
    subprocess.run([sys.executable, "-c", KILLED, str(out)])
    with pytest.raises(UserError, match="exists already"):
        files.check_out(out, False, lambda folder: True, "model")
    assert (out / "a").read_text() == "old"


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk/real").mkdir(parents=True)
    (tmp_path / "disk/real/a").write_text("old")
    (tmp_path / "out").symlink_to(tmp_path / "disk/real")
    with files.atomic_folder(tmp_path / "out", overwrite=True) as new:
        (new / "b").write_text("new")
    assert (tmp_path / "out").is_symlink() and os.listdir(tmp_path / "disk/real") == ["b"]
    assert os.listdir(tmp_path / "disk") == ["real"]


def test_what_is_read_and_what_is_not_ours_is_never_replaced(tmp_path):
    for name in "ours/mark", "theirs/novel", "ours/source/weights":
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "ours/source/weights")

    def check(out, overwrite=True, sources=(), size=0):
        files.check_out(tmp_path / out, overwrite, lambda folder: (folder / "mark").exists(), "model", sources, size)

    check("ours")
    check("new/deep")
    for out, how, said in (
        ("ours", {"sources": [tmp_path / "ours/source/weights"]}, "is or holds what is read"),
        ("ours", {"sources": [tmp_path / "ours/source/prefix"]}, "is or holds what is read"),
        ("ours", {"sources": [tmp_path / "link"]}, "is or holds what is read"),
        ("ours/source", {"sources": [tmp_path / "ours/source"]}, "is or holds what is read"),
        ("ours", {"overwrite": False}, "exists already; overwrite=true"),
        ("theirs", {}, "is no model, and overwrite=true replaces nothing else"),
        ("theirs/novel", {}, "is no model"),
        ("theirs/novel/new", {}, "cannot be written"),
        ("x" * 300, {}, "cannot be written: File name too long"),
        ("new", {"size": 1 << 62}, "no space left on the disk of .*MB are needed"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            check(out, **how)
        assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_nothing_stays(tmp_path):
    for how in ("write", "torch"):
        with pytest.raises(UserError, match=r"no space left on the disk of .*out"), files.atomic_folder(tmp_path / "out"):
            try:
                with open("/dev/full", "wb", buffering=0) as file:
                    file.write(b"x")
            except OSError:
                if how == "torch":  # as torch.save hides it
                    raise RuntimeError("unexpected pos 576 vs 534")  # noqa: B904
                raise
    with pytest.raises(UserError, match=r"x cannot be written: .*choose another folder"):
        files.NewFolder("/dev/null/x")
    with pytest.raises(FileNotFoundError), files.atomic_folder(tmp_path / "out"):
        os.stat(tmp_path / "source")  # a file that was to be read
    assert not os.listdir(tmp_path)


def test_a_json_object_or_one_line(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a.json is missing; fetch it"):
        files.read_object(path, "fetch it")
    for content in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a.json is damaged .*; fetch it"):
            files.read_object(path, "fetch it")
    path.write_text('{"a": 1}')
    assert files.read_object(path) == {"a": 1}


def test_a_listing_is_sorted_hides_dot_files_and_survives_links_in_circles(tmp_path):
    for name in "b/2.txt", "b/10.txt", "a.txt", ".hidden", ".git/x":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    (tmp_path / "z.txt").symlink_to(tmp_path / "nowhere")
    found = [(os.path.relpath(path, tmp_path), size) for path, size in files.listing(tmp_path)]
    assert found == [("a.txt", 1), ("b/10.txt", 1), ("b/2.txt", 1), ("z.txt", -1)]


def teardown_module():
    fsspec.filesystem("memory").store.clear()
