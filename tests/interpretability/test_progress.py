from interpretability.progress import show_progress


def test_no_bar_is_written_where_standard_error_is_no_terminal(capsys):
    with show_progress("rendering", 2) as advance:
        advance()
        advance()
    assert capsys.readouterr() == ("", "")
