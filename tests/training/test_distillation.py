import dataclasses

import keras
import numpy as np
import pytest

from inception_v1.spec import read_spec
from tests.helpers.networks import trained_network
from tests.helpers.runs import NAIVE, save_run
from training.distillation import Distillations, SelfDistillation, Teacher, to_logits
from training.errors import UserError
from training.run_folder import RunFolder, read_history
from training.task import recipe_distillation
from training.train import train

HEADS = {"main": 1.0, "aux1": 0.3, "aux2": 0.3}


@pytest.fixture(scope="module")
def teacher():
    return Teacher(trained_network("plain", input_shape=(32, 32, 1), aux=True, classes=3), 0.5, 4.0)


def softened(probabilities, temperature):
    powers = np.asarray(probabilities, "float64") ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def divergence(p, q, temperature):
    p, q = softened(p, temperature), softened(q, temperature)
    return temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()


def random_probabilities(random):
    return {head: random.dirichlet(np.ones(3), 5).astype("float32") for head in HEADS}


def test_the_loss_is_the_divergence_of_softened_probabilities(teacher):
    random = np.random.default_rng(0)
    images = random.normal(size=(5, 32, 32, 1)).astype("float32")
    taught, own = teacher.model.predict(images, verbose=0), random_probabilities(random)
    spec = teacher.model.spec
    assert float(teacher.loss(images, to_logits(spec, taught), HEADS)) == pytest.approx(0, abs=1e-5)
    expected = 0.5 * sum(weight * divergence(taught[head], own[head], 4) for head, weight in HEADS.items())
    assert float(teacher.loss(images, to_logits(spec, own), HEADS)) == pytest.approx(expected, rel=1e-3)


def test_a_head_that_the_teacher_lacks_learns_from_its_main_head(teacher):
    random = np.random.default_rng(2)
    images, own = random.normal(size=(5, 32, 32, 1)).astype("float32"), random_probabilities(random)
    single = dataclasses.replace(teacher, model=trained_network("plain", input_shape=(32, 32, 1), classes=3))
    taught = single.model.predict(images, verbose=0)
    expected = 0.5 * sum(weight * divergence(taught["main"], own[head], 4) for head, weight in HEADS.items())
    assert float(single.loss(images, to_logits(teacher.model.spec, own), HEADS)) == pytest.approx(expected, rel=1e-3)


def test_auxiliary_heads_learn_from_the_main_head_which_does_not_learn_from_them():
    own = random_probabilities(np.random.default_rng(3))
    expected = 2 * sum(0.3 * divergence(own["main"], own[head], 3) for head in ("aux1", "aux2"))
    variables = {head: keras.Variable(np.log(p)) for head, p in own.items()}
    tf = pytest.importorskip("tensorflow")
    with tf.GradientTape() as tape:
        loss = SelfDistillation(2.0, 3.0).loss(None, {head: v + 0 for head, v in variables.items()}, HEADS)
    assert float(loss) == pytest.approx(expected, rel=1e-3)
    gradients = tape.gradient(loss, {head: v.value for head, v in variables.items()})
    assert gradients["main"] is None
    assert all(float(abs(gradients[head]).numpy().max()) > 0 for head in ("aux1", "aux2"))


def test_a_student_learns_from_both_and_owns_no_teacher(teacher):
    student = Distillations([teacher]).student(teacher.model.spec, HEADS)
    assert student.count_params() == teacher.model.count_params()
    assert {v.path for v in student.variables} == {v.path for v in teacher.model.variables}
    before = [np.array(v) for v in teacher.model.variables]
    student.compile(keras.optimizers.SGD(0.01))
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 1)).astype("float32")
    labels = np.array([0, 1, 2, 0])
    plain = type(teacher.model)(**teacher.model.spec.to_dict())
    plain.set_weights(student.get_weights())
    plain.compile()
    alone = plain.test_on_batch(images, labels, return_dict=True)["loss"]
    together = student.test_on_batch(images, labels, return_dict=True)["loss"]
    extra = float(teacher.loss(images, to_logits(student.spec, student.predict(images, verbose=0)), HEADS))
    assert together == pytest.approx(alone + extra, rel=1e-4)
    student.train_on_batch(images, labels)
    assert all(np.array_equal(v, old) for v, old in zip(teacher.model.variables, before))


def test_a_run_with_a_teacher_and_self_distillation_is_an_ordinary_run(recipe, tmp_path, undrawn):
    taught, run = save_run(tmp_path / "teacher", recipe.data_dir), RunFolder(tmp_path / "run")
    recipe = dataclasses.replace(recipe, aux=True, epochs=1, teacher=str(taught), distill_heads=0.5)
    assert train(recipe, run.path, spec=dataclasses.replace(read_spec(NAIVE), aux=True))["status"] == "finished"
    history = read_history(run / "history.csv")
    of_labels = sum(weight * history[f"{head}_loss"][0] for head, weight in HEADS.items())
    assert history["loss"][0] > of_labels + 0.01  # the divergences come on top
    assert set(run.model().spec.heads) == set(HEADS)
    assert run.recipe().teacher == str(taught)


def test_a_teacher_of_other_images_or_classes_is_refused(teacher, recipe, tmp_path):
    file = tmp_path / "teacher.keras"
    teacher.model.save(file)
    asked = dataclasses.replace(recipe, teacher=str(file))
    for changes, message in (({"classes": 4}, "classes=4"), ({"input_shape": (32, 32, 3)}, "input_shape")):
        spec = type(teacher.model.spec)(**{**teacher.model.spec.to_dict(), **changes})
        with pytest.raises(UserError, match=f"Expected a teacher with {message}"):
            recipe_distillation(asked, spec)
    with pytest.raises(UserError, match="Expected"):
        train(dataclasses.replace(recipe, teacher=str(tmp_path / "nothing")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
