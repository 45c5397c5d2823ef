import pytest

from inception_v1.atomic_files import check_folder


def test_folders_that_cannot_be_made_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "report"):
        with pytest.raises(ValueError, match=r"Expected a folder; Received: .* is a file"):
            check_folder(path)
    check_folder(tmp_path / "new" / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
