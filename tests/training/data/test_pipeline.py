import dataclasses
import functools
import io

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from inception_v1.preprocessing import normalize
from tests.training.data.test_sources import make_folder
from training.data import augment, pipeline, sources
from training.recipe import PRESETS, Recipe


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def digits(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, batch_size=100)
    return recipe, *sources.load(recipe)


def collect(ds):
    images, labels = zip(*ds.as_numpy_iterator())
    return np.concatenate(images), np.concatenate(labels)


def test_evaluation_sees_every_image_once_in_order(digits):
    recipe, builder, splits = digits
    ds = pipeline.batches(builder, splits.test, recipe, training=False)
    images, labels = collect(ds)
    assert images.shape == (360, 32, 32, 1)
    assert labels.shape == (360,)
    pictures = np.stack(list(pipeline.pictures(builder, splits.test, recipe).as_numpy_iterator()))
    np.testing.assert_allclose(images, normalize(pictures, "signed"), atol=1e-6)
    np.testing.assert_array_equal(collect(ds)[1], labels)


def epochs_of(ds, steps):
    """Images and labels of each epoch."""
    images, labels = zip(*ds.as_numpy_iterator())
    return [
        (np.concatenate(images[start : start + steps]), np.concatenate(labels[start : start + steps]))
        for start in range(0, len(images), steps)
    ]


def test_training_batches_are_full_and_every_image_comes_once_an_epoch(digits):
    recipe, builder, splits = digits
    plain = dataclasses.replace(recipe, rotate=0, zoom=0, shift=0, epochs=2, batch_size=431)  # 3 x 431 = 1,293
    ds = pipeline.batches(builder, splits.train, plain, training=True)
    assert ds.element_spec[0].shape == (431, 32, 32, 1)
    assert ds.cardinality() == 6
    first, second = epochs_of(ds, 3)
    expected, _ = collect(pipeline.batches(builder, splits.train, plain, training=False))
    for images, _ in (first, second):
        sums = [np.sort(pixels.sum(axis=(1, 2, 3))) for pixels in (images, expected)]
        np.testing.assert_allclose(*sums, rtol=1e-6)
    assert not np.array_equal(first[1], second[1])


def test_an_image_is_changed_in_another_way_in_every_epoch(digits):
    recipe, builder, _ = digits
    turned = dataclasses.replace(recipe, epochs=2, batch_size=20)
    first, second = epochs_of(pipeline.batches(builder, "train[:20]", turned, training=True), 1)
    sums = [np.sort(images.sum(axis=(1, 2, 3))) for images, _ in (first, second)]  # whatever the order
    assert not np.isclose(*sums, rtol=1e-6).any()


class Shards(tfds.core.GeneratorBasedBuilder):
    """Pictures in several TFRecord files."""

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
    """A recipe with all its randomness, a prepared source, and the split that trains, for each way to read one."""
    changes = {"rotate": 10, "flip": True, "erase": 0.5, "mixup": 0.2, "cutmix": 1.0, "seed": 3, "epochs": 3}
    recipe = Recipe(image_size=32, batch_size=7, **changes)
    if request.param == "memory":
        recipe = dataclasses.replace(recipe, source=make_folder(tmp_path, count=20))
    elif request.param == "files":
        recipe = dataclasses.replace(recipe, source=make_folder(tmp_path, count=20), paper_augment=True)
    else:
        recipe = dataclasses.replace(recipe, source="shards", data_dir=data_dir, paper_augment=True)
    builder, _ = sources.load(recipe)
    if request.param == "shards":
        monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    assert (pipeline._by_index(builder, "train", recipe, ()) is None) == (request.param == "shards")
    return recipe, builder


def test_nothing_but_seed_epoch_and_place_decides_the_pixels(source):
    recipe, builder = source
    steps = pipeline.steps_per_epoch(builder, "train", recipe)
    ds = pipeline.batches(builder, "train", recipe, training=True)
    whole = epochs_of(ds, steps)
    assert len(whole) == 3
    assert not np.array_equal(whole[0][0], whole[1][0])
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    later = pipeline.batches(builder, "train", recipe, training=True, first_epoch=1).with_options(options)
    assert later.cardinality() == 2 * steps
    for (images, labels), again in zip(whole[1:], epochs_of(later, steps), strict=True):
        np.testing.assert_array_equal(images, again[0])
        np.testing.assert_array_equal(labels, again[1])
    other = pipeline.batches(builder, "train", dataclasses.replace(recipe, seed=4), training=True)
    assert not np.array_equal(epochs_of(other, steps)[0][0], whole[0][0])


def test_shares_of_a_step_put_together_are_the_step(source):
    """Two processes, one with two of three pieces: the same images in the same order, to the bit."""
    recipe, builder = source
    recipe = dataclasses.replace(recipe, mixup=0, cutmix=0, epochs=2)  # mixing stays within a piece
    of = 3
    whole = dataclasses.replace(recipe, batch_size=6)  # what the pieces share evenly of 7
    steps = pipeline.steps_per_epoch(builder, "train", whole)
    assert pipeline.steps_per_epoch(builder, "train", recipe, pieces=of) == steps
    pieces = {}
    for first, count in ((0, 2), (2, 1)):
        ds = pipeline.batches(builder, "train", recipe, training=True, share=pipeline.Share(first, count, of))
        assert ds.cardinality() == 2 * steps * count
        for number, piece in enumerate(ds.as_numpy_iterator()):
            step, place = divmod(number, count)
            pieces[step, first + place] = piece
    expected = list(pipeline.batches(builder, "train", whole, training=True).as_numpy_iterator())
    assert len(pieces) == len(expected) * of == 2 * steps * of
    for step, batch in enumerate(expected):
        for column in (0, 1):
            together = np.concatenate([pieces[step, place][column] for place in range(of)])
            np.testing.assert_array_equal(together, batch[column])


def test_shares_of_evaluation_are_the_whole_split(source):
    """Also where there are fewer images than processes."""
    recipe, builder = source
    skip = [next(sources.names(builder, "train").as_numpy_iterator()).decode()]
    for split, workers in (("train[:30]", 2), ("train[:3]", 3)):
        make = functools.partial(pipeline.batches, builder, split, recipe, False, skip=skip)
        parts = [list(make(share=pipeline.Share(i, 1, workers)).as_numpy_iterator()) for i in range(workers)]
        sizes = [sum(len(labels) for _, labels in part) for part in parts]
        assert max(sizes) - min(sizes) == 1
        images, labels = zip(*(batch for part in parts for batch in part))
        for together, expected in zip((np.concatenate(images), np.concatenate(labels)), collect(make())):
            np.testing.assert_array_equal(together, expected)


def test_a_step_has_an_image_for_each_replica(tmp_path):
    recipe = Recipe(source=make_folder(tmp_path), image_size=32, batch_size=64, epochs=1)
    builder, _ = sources.load(recipe)
    images = sources.size(builder, "train")
    with pytest.raises(ValueError, match=f"an image for each of {images + 1} replicas; Received: {images} in 'train'"):
        pipeline.steps_per_epoch(builder, "train", recipe, pieces=images + 1)
    ds = pipeline.batches(builder, "train", recipe, training=True, share=pipeline.Share(images - 1, 1, images))
    assert [len(labels) for _, labels in ds.as_numpy_iterator()] == [1]


def test_a_data_service_makes_every_batch_once(source):
    """Two workers; what they make is what one process makes, in any order."""
    recipe, builder = source
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [service.WorkerServer(service.WorkerConfig(dispatcher_address=address)) for _ in range(2)]
    ds = pipeline.batches(builder, "train", recipe, training=True, service=dispatcher.target)
    served = [images for images, _ in ds.as_numpy_iterator()]
    alone = [images for images, _ in pipeline.batches(builder, "train", recipe, training=True).as_numpy_iterator()]
    assert sorted(images.tobytes() for images in served) == sorted(images.tobytes() for images in alone)
    assert len(workers) == 2


def test_unreadable_pictures_are_named_and_left_out(tmp_path):
    source = make_folder(tmp_path, count=20, suffixes=(".jpg", ".png"))
    bad = {}
    for name, data in {
        "empty.jpg": b"",
        "text.png": b"hello",
        "huge.png": encoded(Image.new("1", (20_000, 20_000)), "PNG"),
        "cut.jpg": (tmp_path / "cat" / "0.jpg").read_bytes()[:-600],
    }.items():
        bad[name] = tmp_path / "cat" / name
        bad[name].write_bytes(data)
    good = {
        "thin.png": encoded(Image.new("RGB", (1000, 1)), "PNG"),
        "png.jpg": encoded(Image.new("RGB", (50, 50)), "PNG"),
        "moving.gif": encoded(
            Image.new("RGB", (9, 9)), "GIF", save_all=True, append_images=[Image.new("1", (9, 9))] * 2
        ),
    }
    for name, data in good.items():
        (tmp_path / "dog" / name).write_bytes(data)
    recipe = Recipe(source=source, image_size=32, batch_size=8, epochs=1)
    builder, _ = sources.load(recipe)
    skip = pipeline.unreadable(builder, "train")
    assert sorted(skip) == sorted(map(str, bad.values()))
    images, _ = collect(pipeline.batches(builder, "train", recipe, training=False, skip=skip))
    assert len(images) == sources.size(builder, "train") - 4
    for paper in (False, True):
        changed = dataclasses.replace(recipe, paper_augment=paper)
        images, _ = collect(pipeline.batches(builder, "train", changed, training=True, skip=skip))
        assert len(images) == (sources.size(builder, "train") - 4) // 8 * 8


def test_skipped_pictures_leave_sharded_files_too(data_dir, monkeypatch):
    recipe = Recipe(source="shards", data_dir=data_dir, image_size=32, batch_size=5, epochs=1)
    builder, _ = sources.load(recipe)
    names = [name.decode() for name in sources.names(builder, "train").as_numpy_iterator()]
    kept = names[7:]
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    images, _ = collect(pipeline.batches(builder, "train", recipe, training=True, skip=names[:7]))
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
    builder, _ = sources.load(recipe)
    images, labels = collect(pipeline.batches(builder, "train", recipe, training=True))
    assert images.shape == (40, 32, 32, 3)
    # The paper's brightness, contrast and light move black and white, but not past each other.
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), labels * 2 - 1, atol=0.6 if paper else 1e-5)


def test_windows_are_those_that_training_crops():
    """A picture whose colours tell where they are, cropped and compared with the window said to be cropped."""
    rows, columns = np.indices((200, 160))
    picture = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype("uint8")
    recipe = Recipe(image_size=32, paper_augment=True)
    for number in range(5):
        seed = tf.constant([3, number])
        top, left, height, width = pipeline.window(tf.constant(picture), seed).numpy()
        crop_seed = augment._paper_seeds(tf.random.split(seed, 4)[0])[0]
        cropped = augment.decode_window(encoded(Image.fromarray(picture), "PNG"), crop_seed).numpy()
        np.testing.assert_array_equal(cropped, picture[top : top + height, left : left + width])
        seen = pipeline.augmented(tf.constant(encoded(Image.fromarray(picture), "PNG")), seed, recipe, 3)
        assert seen.shape == (32, 32, 3)


def test_no_chain_has_the_thread_that_holds_up_its_end(digits):
    recipe, builder, splits = digits
    for paper in (True, False):
        changed = dataclasses.replace(recipe, paper_augment=paper)
        for training in (True, False):
            ds = pipeline.batches(builder, splits.test, changed, training=training)
            assert ds.options().autotune.enabled is False


def test_fewer_images_than_a_batch_still_train(tmp_path):
    recipe = Recipe(source=make_folder(tmp_path), image_size=32, batch_size=64, epochs=1)
    builder, splits = sources.load(recipe)
    ds = pipeline.batches(builder, splits.train, recipe, training=True)
    assert ds.cardinality() == 1
    assert next(iter(ds))[0].shape[0] == sources.size(builder, splits.train)


def test_imagenet_streams_from_what_tfds_prepared(tmp_path, monkeypatch):
    """The real builder, its download replaced by 40 pictures; then the stand-ins that TFDS makes from its features."""
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
    builder, splits = sources.load(recipe)
    assert splits == sources.Splits("train[:90%]", "train[90%:]", "validation")
    assert len(sources.class_names(builder)) == 1000
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    images, labels = zip(*pipeline.batches(builder, splits.train, recipe, training=True).as_numpy_iterator())
    assert [image.shape for image in images] == [(8, 64, 64, 3)] * 8
    assert np.concatenate(labels).max() < 1000
    with tfds.testing.mock_data(num_examples=36, data_dir=str(tmp_path)):
        builder, _ = sources.load(recipe)
        mocked = pipeline.batches(builder, splits.train, recipe, training=True)
        assert next(iter(mocked))[0].shape == (8, 64, 64, 3)
