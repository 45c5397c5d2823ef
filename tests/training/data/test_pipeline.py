import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from inception_v1.preprocessing import normalize
from tests.helpers.images import encode, make_folder
from training.data import augment, pipeline, sources
from training.data.pipeline import Batches, Position, Shard
from training.data.split import Split
from training.presets import PRESETS
from training.recipe import Recipe


@pytest.fixture
def digits(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, batch_size=100)
    return recipe, sources.load(recipe)


def load_train(recipe):
    """All images of the source's train split."""
    return Split(sources.load(recipe).train.builder, "train")


def collect(ds):
    images, labels = zip(*ds.as_numpy_iterator())
    return np.concatenate(images), np.concatenate(labels)


def test_evaluation_sees_every_image_once_in_order(digits):
    recipe, splits = digits
    batches = Batches(splits.test, recipe)
    ds = batches.evaluation()
    images, labels = collect(ds)
    assert images.shape == (360, 32, 32, 1)
    assert labels.shape == (360,)
    pixels = np.stack(list(batches.images().as_numpy_iterator()))
    np.testing.assert_allclose(images, normalize(pixels, "signed"), atol=1e-6)
    np.testing.assert_array_equal(collect(ds)[1], labels)


def epochs_of(ds, steps):
    """Images and labels of each epoch."""
    images, labels = zip(*ds.as_numpy_iterator())
    return [
        (np.concatenate(images[start : start + steps]), np.concatenate(labels[start : start + steps]))
        for start in range(0, len(images), steps)
    ]


def test_training_batches_are_full_and_every_image_comes_once_an_epoch(digits):
    recipe, splits = digits
    plain = dataclasses.replace(recipe, rotate=0, zoom=0, shift=0, epochs=2, batch_size=431)  # 3 x 431 = 1,293
    batches = Batches(splits.train, plain)
    ds = batches.training()
    assert ds.element_spec[0].shape == (431, 32, 32, 1)
    assert ds.cardinality() == 6
    first, second = epochs_of(ds, 3)
    expected, _ = collect(batches.evaluation())
    for images, _ in (first, second):
        sums = [np.sort(pixels.sum(axis=(1, 2, 3))) for pixels in (images, expected)]
        np.testing.assert_allclose(*sums, rtol=1e-6)
    assert not np.array_equal(first[1], second[1])


def test_an_image_is_augmented_in_another_way_in_every_epoch(digits):
    recipe, splits = digits
    recipe = dataclasses.replace(recipe, epochs=2, batch_size=20)
    split = Split(splits.train.builder, "train[:20]")
    first, second = epochs_of(Batches(split, recipe).training(), 1)
    sums = [np.sort(images.sum(axis=(1, 2, 3))) for images, _ in (first, second)]  # whatever the order
    assert not np.isclose(*sums, rtol=1e-6).any()


class Shards(tfds.core.GeneratorBasedBuilder):
    """Images in several TFRecord files."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        random = np.random.default_rng(0)
        for i in range(60):
            yield i, {"image": random.integers(0, 256, (30 + i, 40, 3), "uint8"), "label": i % 3}


@pytest.fixture(params=["memory", "encoded in memory", "files", "shards"])
def source(request, tmp_path, data_dir, monkeypatch):
    """A recipe with all its randomness and the split that trains, for each way to read a source."""
    changes = {"rotate": 10, "flip": True, "erase": 0.5, "mixup": 0.2, "cutmix": 1.0, "seed": 3, "epochs": 3}
    recipe = Recipe(image_size=32, batch_size=7, **changes)
    if request.param == "memory":
        recipe = dataclasses.replace(recipe, source=make_folder(tmp_path, count=20))
    elif request.param == "files":
        recipe = dataclasses.replace(recipe, source=make_folder(tmp_path, count=20), paper_augment=True)
    else:
        recipe = dataclasses.replace(recipe, source="shards", data_dir=data_dir, paper_augment=True)
    split = load_train(recipe)
    if request.param == "shards":
        monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    assert (Batches(split, recipe)._by_index() is None) == (request.param == "shards")
    return recipe, split


def test_nothing_but_seed_epoch_and_place_decides_the_pixels(source):
    recipe, split = source
    batches = Batches(split, recipe)
    steps = batches.steps_per_epoch()
    whole = list(batches.training().as_numpy_iterator())
    assert len(whole) == 3 * steps
    assert not np.array_equal(whole[0][0], whole[steps][0])
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    resumed = batches.training(Position(epoch=1, step=1)).with_options(options)
    assert resumed.cardinality() == 2 * steps - 1
    for batch, wanted in zip(resumed.as_numpy_iterator(), whole[steps + 1 :], strict=True):
        np.testing.assert_array_equal(batch[0], wanted[0])
        np.testing.assert_array_equal(batch[1], wanted[1])
    other = Batches(split, dataclasses.replace(recipe, seed=4)).training()
    assert not np.array_equal(next(other.as_numpy_iterator())[0], whole[0][0])


def test_shards_of_a_step_put_together_are_the_step(source):
    """Two processes, one with two of three per-replica batches, see bitwise the same images in the same order."""
    recipe, split = source
    recipe = dataclasses.replace(recipe, mixup=0, cutmix=0, epochs=2)  # mixing stays within a per-replica batch
    of = 3
    whole = Batches(split, dataclasses.replace(recipe, batch_size=6))  # of 7 images, 6 are the same number for each
    batches, steps = Batches(split, recipe), whole.steps_per_epoch()
    assert batches.steps_per_epoch(replicas=of) == steps
    parts = {}
    for first, count in ((0, 2), (2, 1)):
        ds = batches.training(shard=Shard(first, count, of))
        assert ds.cardinality() == 2 * steps * count
        for number, part in enumerate(ds.as_numpy_iterator()):
            step, place = divmod(number, count)
            parts[step, first + place] = part
    expected = list(whole.training().as_numpy_iterator())
    assert len(parts) == len(expected) * of == 2 * steps * of
    resumed = batches.training(Position(step=1), Shard(2, 1, of))
    for part, step in zip(resumed.as_numpy_iterator(), range(1, 2 * steps), strict=True):
        np.testing.assert_array_equal(part[0], parts[step, 2][0])
    for step, batch in enumerate(expected):
        for column in (0, 1):
            together = np.concatenate([parts[step, place][column] for place in range(of)])
            np.testing.assert_array_equal(together, batch[column])


def test_shards_of_evaluation_are_the_whole_split(source):
    """This also holds where there are fewer images than processes."""
    recipe, split = source
    skip = (Split(split.builder, "train[:3]").names()[0],)
    for name, workers in (("train[:30]", 2), ("train[:3]", 3)):
        batches = Batches(Split(split.builder, name, skip), recipe)
        parts = [list(batches.evaluation(Shard(i, 1, workers)).as_numpy_iterator()) for i in range(workers)]
        sizes = [sum(len(labels) for _, labels in part) for part in parts]
        assert max(sizes) - min(sizes) == 1
        images, labels = zip(*(batch for part in parts for batch in part))
        whole = collect(batches.evaluation())
        for together, expected in zip((np.concatenate(images), np.concatenate(labels)), whole):
            np.testing.assert_array_equal(together, expected)


def test_a_step_has_an_image_for_each_replica(tmp_path):
    recipe = Recipe(source=make_folder(tmp_path), image_size=32, batch_size=64, epochs=1)
    batches = Batches(load_train(recipe), recipe)
    images = batches.split.size
    with pytest.raises(ValueError, match=f"an image for each of {images + 1} replicas; Received: {images} in 'train'"):
        batches.steps_per_epoch(replicas=images + 1)
    ds = batches.training(shard=Shard(images - 1, 1, images))
    assert [len(labels) for _, labels in ds.as_numpy_iterator()] == [1]


def test_a_data_service_makes_every_batch_once(source):
    """Two workers make what one process makes, in any order."""
    recipe, split = source
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [service.WorkerServer(service.WorkerConfig(dispatcher_address=address)) for _ in range(2)]
    batches = Batches(split, recipe)
    served = [images for images, _ in batches.training(service=dispatcher.target).as_numpy_iterator()]
    alone = [images for images, _ in batches.training().as_numpy_iterator()]
    assert sorted(images.tobytes() for images in served) == sorted(images.tobytes() for images in alone)
    assert len(workers) == 2


def test_skipped_images_leave_sharded_files_too(data_dir, monkeypatch):
    recipe = Recipe(source="shards", data_dir=data_dir, image_size=32, batch_size=5, epochs=1)
    split = load_train(recipe)
    names = split.names()
    kept = names[7:]
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    images, _ = collect(Batches(split.without(names[:7]), recipe).training())
    assert len(images) == len(kept) // 5 * 5


@pytest.mark.parametrize("paper", [False, True])
def test_labels_stay_with_their_images(tmp_path, paper):
    """One class is black and the other white, through shuffling, augmentation and batching."""
    for name, shade in (("black", 0), ("white", 255)):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("RGB", (40, 40), (shade,) * 3).save(tmp_path / name / f"{i}.png")
    changes = {"paper_augment": True} if paper else {"rotate": 10, "zoom": 0.1, "shift": 0.1, "flip": True}
    recipe = Recipe(source=f"folder:{tmp_path}", image_size=32, batch_size=8, epochs=1, **changes)
    images, labels = collect(Batches(load_train(recipe), recipe).training())
    assert images.shape == (40, 32, 32, 3)
    # The paper's brightness, contrast and light move black and white, but not past each other.
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), labels * 2 - 1, atol=0.6 if paper else 1e-5)


def test_windows_are_those_that_training_crops():
    """The colors of an image encode where they are; it is cropped and compared with the window that is reported."""
    rows, columns = np.indices((200, 160))
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype("uint8")
    encoded = encode(Image.fromarray(image), "PNG")
    recipe = Recipe(image_size=32, paper_augment=True)
    for number in range(5):
        seed = tf.constant([3, number])
        top, left, height, width = pipeline.crop_window(tf.constant(image), seed).numpy()
        crop_seed = augment._paper_seeds(tf.random.split(seed, 4)[0])[0]
        cropped = augment.decode_window(encoded, crop_seed).numpy()
        np.testing.assert_array_equal(cropped, image[top : top + height, left : left + width])
        assert pipeline.augment_image(tf.constant(encoded), seed, recipe, 3).shape == (32, 32, 3)


def test_no_dataset_has_the_autotuning_thread_that_delays_its_end(digits):
    recipe, splits = digits
    for paper in (True, False):
        batches = Batches(splits.test, dataclasses.replace(recipe, paper_augment=paper))
        for ds in (batches.training(), batches.evaluation()):
            assert ds.options().autotune.enabled is False


def test_fewer_images_than_a_batch_still_train(tmp_path):
    recipe = Recipe(source=make_folder(tmp_path), image_size=32, batch_size=64, epochs=1)
    split = sources.load(recipe).train
    ds = Batches(split, recipe).training()
    assert ds.cardinality() == 1
    assert next(iter(ds))[0].shape[0] == split.size


def test_imagenet_streams_from_what_tfds_prepared(tmp_path, monkeypatch):
    """The real builder with 40 images in place of its download; then the stand-ins that TFDS makes from its
    features."""
    builder = tfds.builder("imagenet2012", data_dir=tmp_path)

    def generate(count):
        random = np.random.default_rng(0)
        for i in range(count):
            image = random.integers(0, 256, (100 + i, 120, 3), "uint8")
            yield f"{i}.JPEG", {"image": image, "label": i % 1000, "file_name": f"{i}.JPEG"}

    made = {"train": 40, "validation": 10}
    monkeypatch.setattr(
        type(builder), "_split_generators", lambda self, _: {split: generate(count) for split, count in made.items()}
    )
    recipe = dataclasses.replace(PRESETS["paper"], data_dir=str(tmp_path), image_size=64, batch_size=8, epochs=2)
    splits = sources.load(recipe)
    assert tuple(splits.names().values()) == ("train[:90%]", "train[90%:]", "validation")
    assert len(splits.train.classes) == 1000
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    images, labels = zip(*Batches(splits.train, recipe).training().as_numpy_iterator())
    assert [image.shape for image in images] == [(8, 64, 64, 3)] * 8
    assert np.concatenate(labels).max() < 1000
    with tfds.testing.mock_data(num_examples=36, data_dir=str(tmp_path)):
        mocked = Batches(sources.load(recipe).train, recipe).training()
        assert next(iter(mocked))[0].shape == (8, 64, 64, 3)
