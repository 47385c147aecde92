"""What others wrote, in what the UI shows as Markdown: it must fetch nothing, and no link may hide where it leads.

A browser that fetches an image for whoever looks at a page acts in that person's name: Dagster's webserver launches
runs for whoever asks, by GET too. Not here: what is shown.
"""

import re

_SIGNS = r"<>`*~\[\]"
_AT_AN_EDGE = r"(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])"
_MARKUP = re.compile(rf"[{_SIGNS}\r\n&|\\]|{_AT_AN_EDGE}")
"""What GitHub's Markdown, as the UI shows it, may take for markup within a table's cell."""
_LIVE = re.compile(rf"[{_SIGNS}]|\\(?!\|)|{_AT_AN_EDGE}")
"""What ``literal`` leaves in no cell."""
_ESCAPED = {"\r": " ", "\n": " ", "&": "&amp;", "<": "&lt;", "|": "\\|"}


def literal(value: str) -> str:
    """A value of a row in a table's cell, as Markdown shows it to the letter."""
    return _MARKUP.sub(lambda found: _ESCAPED.get(found[0], f"&#{ord(found[0])};"), value)


def is_literal(table: str) -> bool:
    """Whether a table may hold cells of ``literal`` alone: former versions wrote values as they are."""
    return not _LIVE.search(table)


def without_links(words: str) -> str:
    """A description, which may hold a file's words or a server's: images, HTML and links with words stay text."""
    return words.replace("<", "&lt;").replace("](", "]&#40;").replace("]:", "]&#58;")
