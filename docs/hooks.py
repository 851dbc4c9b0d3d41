"""What the site needs that the Markdown files, which read well on their own, do not have."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    """Turn links to files outside docs/ into their text: the site has only docs/."""
    return re.sub(r"\[([^\]]*)\]\(\.\./(?!api/)[^)]+\)", r"\1", markdown)
