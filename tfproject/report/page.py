"""One self-contained HTML page from texts, tables and figures."""

import base64
import dataclasses

from tfproject.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        heading: its title.
        text: paragraphs, plain text.
        table: rows of cells, the first one the head; none if empty.
        figures: (PNG bytes, caption) of each figure.
        listing: text shown as it is, in a fixed-width font.
        links: (address, text) of each link.
    """

    heading: str
    text: tuple[str, ...] = ()
    table: tuple[tuple, ...] = ()
    figures: tuple[tuple[bytes, str], ...] = ()
    listing: str = ""
    links: tuple[tuple[str, str], ...] = ()


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
.table, pre { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border-bottom: 1px solid #ccc; padding: .25rem .75rem .25rem 0; text-align: left; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; }
pre { font-size: .75rem; line-height: 1.3; background: #f6f6f6; padding: .75rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for section in sections %}
<section>
<h2>{{ section.heading }}</h2>
{% for paragraph in section.text %}<p>{{ paragraph }}</p>
{% endfor %}{% if section.table %}<div class="table"><table>
<tr>{% for cell in section.table[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in section.table[1:] %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}{% for png, caption in section.figures %}<figure>
<img src="data:image/png;base64,{{ png }}" alt="{{ caption }}">
<figcaption>{{ caption }}</figcaption>
</figure>
{% endfor %}{% if section.listing %}<pre>{{ section.listing }}</pre>
{% endif %}{% for address, text in section.links %}<p><a href="{{ address }}">{{ text }}</a></p>
{% endfor %}</section>
{% endfor %}
</body>
</html>
"""


def write(path, title, sections):
    """Write the page.

    Args:
        path: an .html file.
        title: its title.
        sections: Sections in order.
    """
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(TEMPLATE)
    embedded = [
        dataclasses.replace(
            section, figures=tuple((base64.b64encode(png).decode(), caption) for png, caption in section.figures)
        )
        for section in sections
    ]
    write_atomically(path, template.render(title=title, sections=embedded))
