from rich.console import Console

from training.report.tables import agreement_table, class_table, comparison_table, ensemble_table, score_table, verdict


def printed(*renderables):
    console = Console(record=True, width=80)
    console.print(*renderables)
    return console.export_text()


def cells(text):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]


INTERVALS = {"top1": [0.96, 0.995], "top5": [1.0, 1.0], "loss": [0.04, 0.0625]}
SCORES = {"top1": 0.985, "top5": 1.0, "loss": 0.05, "ece": 0.0123, "intervals": INTERVALS}


def test_tables_show_the_numbers():
    text = printed(score_table({"images": 360, "split": "test", "heads": {"main": SCORES}}))
    assert text.splitlines()[0].strip() == "360 images of test"
    assert cells(text) == [
        ["main", "98.50%", "100.00%", "0.0500", "0.0123"],
        ["", "96.00-99.50", "100.00-100.00", "0.0400-0.0625", ""],
    ]
    several = {"images": 360, "split": "test", "runs": ["a", "b"], "crops": 10, "heads": {"main": SCORES}}
    assert "360 images of test, 2 models, 10 crops each" in printed(score_table(several))
    assert cells(printed(class_table("a.png", [("seven", 0.75)]))) == [["seven", "75.00%"]]


def test_the_ensemble_table_is_that_of_the_paper():
    """Table 3 of arXiv 1409.4842: models, crops, cost, top-5 error and the change from the first row."""
    paper = [(1, 1, 10.07, 0), (7, 1, 8.09, -1.98), (1, 10, 9.15, -0.92), (7, 10, 7.62, -2.45), (1, 144, 7.89, -2.18)]
    results = [
        {
            "images": 50_000,
            "split": "validation",
            "runs": ["run"] * models,
            "crops": crops,
            "heads": {"main": SCORES | {"top1": 0.7 + 0.01 * models, "top5": 1 - error / 100}},
        }
        for models, crops, error, _ in paper
    ]
    text = printed(ensemble_table(results))
    assert "50,000 images of validation" in text
    rows = cells(text)
    assert [row[:3] for row in rows] == [
        ["1", "1", "1"],
        ["1", "10", "10"],
        ["1", "144", "144"],
        ["7", "1", "7"],
        ["7", "10", "70"],
    ]
    assert [row[3:5] for row in rows] == [["29.00%", "base"], *[["29.00%", "+0.00"]] * 2, *[["23.00%", "-6.00"]] * 2]
    order = [paper[0], paper[2], paper[4], paper[1], paper[3]]
    expected = [[f"{error:.2f}%", f"{change:+.2f}"] for _, _, error, change in order]
    assert [row[5:] for row in rows] == [["10.07%", "base"], *expected[1:]]


def test_a_comparison_shows_what_differs():
    result = {
        "images": 20,
        "split": "test",
        "runs": [{"run": "runs/a", "heads": {"main": SCORES}}, {"run": "runs/b", "heads": {"main": SCORES}}],
        "right": {"both": 7, "first": 1, "second": 9, "neither": 3},
        "difference": {"top1": 0.4, "interval": [0.15, 0.65]},
        "p": 0.021484375,
        "significant": True,
    }
    rows = cells(printed(comparison_table(result)))
    assert [row[:2] for row in rows[::2]] == [["runs/a", "98.50%"], ["runs/b", "98.50%"]]
    assert cells(printed(agreement_table(result))) == [["first right", "7", "1"], ["first wrong", "9", "3"]]
    assert verdict(result) == (
        "The second's top-1 less the first's is +40.00 points (+15.00 to +65.00); the difference is significant at 5 % "
        "(McNemar's exact test, p = 0.02148)."
    )
    assert "difference is not significant at 5 %" in verdict(result | {"significant": False})
