"""Pages as a browser gets them."""

import html.parser
import re

HOSTILE = "<script>alert('x')</script> & \"quoted\""


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the rows of the tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.texts.append(data)
        if self.rows and self.rows[-1] and self.tags[-1][0] in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def check_self_contained(text):
    """Checks that a page needs no other file and no network; returns the number of its figures."""
    page = Page(text)
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|@import|url\(", re.sub(r'src="data:[^"]*"', "", text))
    return len(sources)
