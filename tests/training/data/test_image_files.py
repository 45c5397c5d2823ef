import pytest

from training.data.image_files import image_files


def test_folders_are_walked_without_hidden_files_and_leftovers_of_macos(tmp_path):
    wanted = ["b.JPG", "sub/a.png", "sub/deeper/c.webp"]
    for name in [*wanted, "._b.jpg", ".hidden/a.png", "__MACOSX/a.png", "notes.txt", "sub/.a.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".hidden" / "none").mkdir()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    named = [str(tmp_path / "notes.txt"), "absent.png"]
    expected = [*named, *(str(tmp_path / name) for name in wanted)]
    assert image_files([*named, str(tmp_path), str(tmp_path / "b.JPG")]) == expected
    with pytest.raises(ValueError, match=r"Expected images \(.*\) in '.*/.hidden/none'; Received: none"):
        image_files([str(tmp_path / ".hidden" / "none")])
