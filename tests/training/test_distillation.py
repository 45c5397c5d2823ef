import keras
import numpy as np
import pytest

from tests.helpers.networks import trained_network
from training.distillation import Student, Teacher

HEADS = {"main": 1.0, "aux1": 0.3, "aux2": 0.3}


@pytest.fixture(scope="module")
def teacher():
    return Teacher(trained_network("plain", input_shape=(32, 32, 1), aux=True, classes=3), 0.5, 4.0)


def softened(probabilities, temperature):
    powers = np.asarray(probabilities, "float64") ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_loss_is_the_divergence_of_softened_probabilities(teacher):
    random = np.random.default_rng(0)
    images = random.normal(size=(5, 32, 32, 1)).astype("float32")
    taught = teacher.model.predict(images, verbose=0)
    assert float(teacher.loss(images, taught, HEADS)) == pytest.approx(0, abs=1e-5)
    own = {head: random.dirichlet(np.ones(3), 5).astype("float32") for head in HEADS}
    expected = 0.0
    for head, weight in HEADS.items():
        p, q = softened(taught[head], 4), softened(own[head], 4)
        expected += weight * 16 * (p * np.log(p / q)).sum(axis=1).mean()
    assert float(teacher.loss(images, own, HEADS)) == pytest.approx(0.5 * expected, rel=1e-3)


def test_a_student_learns_from_both_and_owns_no_teacher(teacher):
    student = Student(teacher.model.spec, teacher, HEADS)
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
    extra = float(teacher.loss(images, student.predict(images, verbose=0), HEADS))
    assert together == pytest.approx(alone + extra, rel=1e-4)
    student.train_on_batch(images, labels)
    assert all(np.array_equal(v, old) for v, old in zip(teacher.model.variables, before))
