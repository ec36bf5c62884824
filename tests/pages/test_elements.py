"""Elements: what is escaped, and how attributes are written."""

from dreamer.pages.elements import Html, document, facts, section, table, tag


def test_text_is_escaped_and_html_is_not():
    assert tag("p", "a < b & c") == "<p>a &lt; b &amp; c</p>"
    assert tag("p", tag("b", "<"), 3, None) == "<p><b>&lt;</b>3</p>"
    assert tag("p", Html("&amp;")) == "<p>&amp;</p>"


def test_attributes():
    made = tag("a", "x", href='"><b', aria_label="&", class_="c")
    assert made == (
        '<a href="&quot;&gt;&lt;b" aria-label="&amp;" class="c">x</a>'
    )
    made = tag("video", controls=True, loop=False, title=None, tabindex=0)
    assert made == '<video controls tabindex="0"></video>'
    assert tag("meta", charset="utf-8", name="x") == (
        '<meta charset="utf-8" name="x">'
    )


def test_what_is_built_of_them_escapes_as_well():
    made = [
        table("<1>", ("<2>", "<3>"), [("<4>", "<5>")]),
        section("<6>", "<7>"),
        facts([("<8>", "<9>")]),
        document("<0>", "<1>"),
    ]
    for number in range(10):
        assert f"&lt;{number}&gt;" in "".join(made)
        assert f"<{number}>" not in "".join(made)


def test_a_table_says_what_its_cells_belong_to():
    made = table("Scores", ("Game", "Score"), [("Pong", "1"), ("Krull", "2")])
    assert "<caption><span>Scores</span></caption>" in made
    assert '<th scope="col">Game</th><th scope="col">Score</th>' in made
    assert '<tr><th scope="row">Krull</th><td>2</td></tr>' in made
    assert 'role="region" aria-label="Scores" tabindex="0"' in made
