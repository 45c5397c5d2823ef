import pytest
from matplotlib.patches import Rectangle

from inception_v1 import Spec
from inception_v1.spec import VARIANTS
from inception_v1.summary import _drawing, draw


@pytest.mark.parametrize(
    "arguments",
    [
        *({"variant": v} for v in VARIANTS),
        {"reduction": False},
        {"stem": "small", "input_shape": (32, 32, 1), "width_multiplier": 0.5, "classes": 10},
        {"variant": "cifar", "stem": "cifar", "input_shape": (32, 32, 3)},
        {"aux": False},
        {"include_top": False},
    ],
)
def test_bars_are_as_tall_as_their_channels(arguments):
    spec = Spec(**arguments)
    axes = _drawing(spec).axes[0]
    heights = sorted(p.get_height() for p in axes.patches if isinstance(p, Rectangle))
    texts = " ".join(text.get_text() for text in axes.texts)
    convs = [w for row in spec.trunk() for w in ([row.filters] if hasattr(row, "filters") else [])]
    for branch in (b for row in spec.trunk() if hasattr(row, "branches") for b in row.branches):
        inner = (step for step in branch if hasattr(step, "filters"))
        convs += [step.filters for step in inner if not step.name.endswith("_first")]  # drawn as one with the second
    blocks = spec.block_widths()
    # Block 5b is the widest: its branches stack up to the full height.
    unit = 1000 / (sum(blocks["5b"][i] for i in (0, 2, 4, 5)) if spec.reduction else 4944)
    drawn = [round(h / unit) for h in heights]
    for width in convs:
        assert width in drawn
        drawn.remove(width)
    for head in ("main", "aux1", "aux2"):
        assert (head in texts) == (head in spec.heads)


def test_draw_refuses_before_writing(tmp_path):
    with pytest.raises(ValueError, match="fixed height and width"):
        draw(Spec(aux=False, input_shape=(None, None, 3)), tmp_path / "a.svg")
    with pytest.raises(ValueError, match="folder that exists"):
        draw(Spec(), tmp_path / "absent" / "a.svg")
    assert not list(tmp_path.iterdir())
