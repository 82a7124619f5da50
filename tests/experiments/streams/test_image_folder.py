"""Images of a user's own, and what is told of files that cannot be read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.config import images
from experiments.config.run_config import parse
from experiments.data.images import image_reader
from experiments.report.results import load_results
from experiments.run import main
from experiments.streams.image_folder import image_folder
from share_jax.errors import FormatError, InputError


def picture(path: Path, value: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 255 - value, 90)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tasks, one with a test of its own."""
    for number in range(5):
        picture(tmp_path / f"birds/heron/{number}.png", 40 * number)
        picture(tmp_path / f"birds/owl/{number}.jpg", 40 * number)
        picture(tmp_path / f"boats/train/ship/{number}.png", 40 * number, (8, 8))
        picture(tmp_path / f"boats/train/yacht/{number}.PNG", 40 * number)
    picture(tmp_path / "boats/test/ship/x.png", 3)
    (tmp_path / "birds/heron/.hidden").write_text("not read")
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_folder_is_a_task(folder: Path, in_memory: bool) -> None:
    birds, boats = image_folder("mine", folder, size=8, in_memory=in_memory).tasks
    assert (birds.name, birds.classes) == ("birds", ("heron", "owl"))
    assert (boats.name, boats.classes) == ("boats", ("ship", "yacht"))
    assert np.bincount(birds.train.labels).tolist() == [4, 4]
    assert np.bincount(birds.test.labels).tolist() == [1, 1]
    assert len(boats.train) == 10
    assert boats.test.labels.tolist() == [0]
    taken = birds.train.inputs["images"][:]
    assert (taken.shape, taken.dtype) == ((8, 8, 8, 3), np.float32)
    assert np.abs(taken).max() <= 1
    expected = np.array([3, 252, 90], np.float32) / 255 * 2 - 1
    np.testing.assert_allclose(boats.test.inputs["images"][:][0, 0, 0], expected, atol=1e-6)


def test_images_of_16_bits_and_of_turned_cameras_are_what_they_show(tmp_path: Path) -> None:
    read = image_reader(8)
    grey = np.linspace(0, 65_535, 64).reshape(8, 8)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "deep.png")
    deep = read({"image": (tmp_path / "deep.png").read_bytes()})
    np.testing.assert_allclose(deep[..., 0], grey / 65_535 * 2 - 1, atol=0.01)
    turned = Image.fromarray(np.repeat(grey[..., None] / 257, 3, axis=2).astype(np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera lay on its side
    turned.save(tmp_path / "turned.png", exif=exif)
    shown = read({"image": (tmp_path / "turned.png").read_bytes()})
    np.testing.assert_allclose(shown, np.rot90(deep, -1), atol=0.02)


def test_limits_are_shared_equally_and_the_order_may_be_written(folder: Path) -> None:
    (folder / "stream.json").write_text('{"tasks": ["boats", "birds"]}')
    stream = image_folder("mine", folder, size=8, in_memory=True, train_per_task=4)
    assert [task.name for task in stream.tasks] == ["boats", "birds"]
    assert [np.bincount(task.train.labels).tolist() for task in stream.tasks] == [[2, 2], [2, 2]]


def test_every_bad_file_is_told(folder: Path) -> None:
    (folder / "birds/heron/notes.txt").write_text("words")
    (folder / "birds/heron/broken.png").write_bytes(b"\x89PNG nothing")
    whole = (folder / "birds/owl/0.jpg").read_bytes()
    (folder / "birds/owl/short.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "birds/empty").mkdir()
    picture(folder / "boats/test/canoe/1.png", 3)
    with pytest.raises(FormatError) as caught:
        image_folder("mine", folder, size=8, in_memory=True)
    first, *listed = str(caught.value).split("\n  ")
    assert first == f"--data-folder {folder}: got 5 bad files, expected none; fix what is listed"
    starts = {line.split(": got")[0]: line for line in listed}
    assert starts.keys() == {
        "birds/empty", "birds/heron/notes.txt", "birds/heron/broken.png", "birds/owl/short.jpg", "boats/test/canoe",
    }  # fmt: skip
    assert starts["birds/heron/notes.txt"].endswith(
        "got .txt, expected a readable .png or .jpg; convert it, or move it away"
    )
    assert starts["birds/owl/short.jpg"].endswith("; save it again, or delete it")
    assert "got a class without training images" in starts["boats/test/canoe"]
    assert starts["birds/empty"].endswith("got no files, expected images; add images, or delete the folder")


def test_a_folder_without_a_stream(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data-folder: got none, expected a folder per task"):
        image_folder("mine", None, size=8, in_memory=True)
    with pytest.raises(InputError, match=r"got no folders, .*put FOLDER/TASK/CLASS/IMAGE.png there"):
        image_folder("mine", tmp_path, size=8, in_memory=True)
    (tmp_path / "birds").mkdir()
    with pytest.raises(InputError, match=r"classes of .*birds: got none, expected a folder per class"):
        image_folder("mine", tmp_path, size=8, in_memory=True)
    picture(tmp_path / "birds/owl/1.png", 1)
    with pytest.raises(InputError, match=r"test examples of .*birds: got none, .*; add birds/train and birds/test"):
        image_folder("mine", tmp_path, size=8, in_memory=True)


def test_weights_bring_their_size() -> None:
    words = ["--experiment", "images", "--data-folder", "x"]
    assert images.sized(parse(words)).image_size == 32
    assert images.sized(parse([*words, "--weights", "y"])).image_size == 224
    assert images.sized(parse([*words, "--weights", "y", "--image-size", "64"])).image_size == 64


@pytest.mark.slow
def test_images_run_from_the_command_line(folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: Any) -> None:
    workdir = tmp_path_factory.mktemp("run") / "run"
    words = ["--experiment", "images", "--data-folder", str(folder), "--preset", "quick", "--steps", "3", "--quiet"]
    words += ["--image-size", "16", "--train-per-task", "8", "--methods", "shared_a,majority"]
    words += ["--workdir", str(workdir)]
    assert main(words) == 0
    assert load_results(workdir / "results.json")["tasks"] == ["birds", "boats"]
    (folder / "birds/owl/5.gif").write_text("")
    assert main([*words, "--overwrite"]) == 2
    assert "birds/owl/5.gif: got .gif" in capsys.readouterr().err
