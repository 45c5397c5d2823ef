"""Image parameterizations and colors, against what Lucid computes from the same arrays."""

import numpy as np
import pytest

from inception_v1.errors import UserError
from interpretability import colors
from interpretability import parameterizations as p
from tests.oracles import lucid

pytestmark = pytest.mark.every_backend
CASES = {
    "fourier, even": p.Fourier((2, 16, 12, 3)),
    "fourier, odd": p.Fourier((1, 15, 17, 2)),
    "fourier, decay 1.5": p.Fourier((1, 10, 9, 1), decay_power=1.5),
    "pixels": p.Pixels((2, 4, 5, 3)),
    "laplacian pyramid": p.LaplacianPyramid((2, 18, 16, 3)),
    "low resolution": p.LowResolution((2, 12, 11, 3), (1, 4, 3, 3)),
    "low resolution, offset": p.LowResolution((3, 12, 10, 3), (3, 4, 5, 3), (False, True, 2, 0)),
    "cppn": p.Cppn(9, batch=2),
    "image": p.image(16, 11, batch=2),
    "image of pixels": p.image(6, fourier=False, decorrelate=False),
    "image with alpha": p.image(8, alpha=True),
    "gray image": p.image(8, channels=1),
}


@pytest.mark.parametrize("name", CASES)
def test_images_are_lucids(name):
    stored, parameterization = lucid.case(name), CASES[name]
    expected = stored.pop("images")
    arrays = [stored[key] for key in sorted(stored)]
    if name == "cppn":  # dense layers there are 1x1 convolutions
        arrays = [array.reshape(array.shape[-2:]) for array in arrays]
    assert [array.shape for array in parameterization.initial(np.random.default_rng(0))] == [a.shape for a in arrays]
    assert parameterization.shape == expected.shape
    np.testing.assert_allclose(np.asarray(parameterization(arrays)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("decorrelate", [False, True])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_colors_are_lucids(decorrelate, sigmoid):
    stored = lucid.case("colors")
    found = np.asarray(colors.to_rgb(stored["values"], decorrelate, sigmoid))
    np.testing.assert_allclose(found, stored[f"{decorrelate}-{sigmoid}"], rtol=0, atol=1e-5)


def test_the_first_arrays_follow_from_the_generator():
    one, same, other = (p.Cppn(4).initial(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert not (one[0] == other[0]).all()
    assert 0.6 < np.std(p.Cppn(4, hidden=1000).initial(np.random.default_rng(0))[0]) < 0.8  # 2 ** -0.5


@pytest.mark.parametrize("arguments", [{"width": 0}, {"width": 4, "sd": 0}, {"width": 4, "batch": -1}])
def test_images_without_pixels_are_refused(arguments):
    with pytest.raises(UserError, match="Expected positive sizes"):
        p.image(**arguments)
