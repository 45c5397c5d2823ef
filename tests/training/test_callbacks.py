import math

import pytest

from training.callbacks import WatchHeads


def losses(main, aux1, aux2=1.0):
    return {"main_loss": main, "aux1_loss": aux1, "aux2_loss": aux2}


def test_a_head_that_only_guesses_is_noticed_after_two_epochs():
    guess = math.log(100)
    watch = WatchHeads(("main", "aux1", "aux2"), 100)
    watch.on_epoch_end(0, losses(guess * 1.01, 3.0))
    assert not watch.warnings
    watch.on_epoch_end(1, losses(guess * 0.99, 2.0))
    assert list(watch.warnings) == ["main"]
    for part in (
        "main does not learn",
        "4.559 after epoch 2",
        "ln(classes) = 4.605",
        "aux2 is at 1.000",
        "learning rate",
    ):
        assert part in watch.warnings["main"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (losses(4.6, 4.6, 4.6), losses(4.6, 4.6, 4.6)),  # no head learns yet
        (losses(4.6, 2.0), losses(4.2, 2.0)),  # it learns slowly
        (losses(4.6, 2.0), losses(30.0, 2.0)),  # worse than a guess is another problem
    ],
)
def test_other_slow_starts_give_no_warning(first, second):
    watch = WatchHeads(("main", "aux1", "aux2"), 100)
    watch.on_epoch_end(0, first)
    watch.on_epoch_end(1, second)
    assert not watch.warnings
