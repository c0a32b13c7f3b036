"""A page of images and their likeliest classes, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from html import escape

THUMBNAIL = 224  # pixels of the longer side

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --card: #fff; --ground: #f4f5f7;
  --bar: #bcd4f5; --first: #3b82d6; --line: #e0e2e6 }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #eceef1; --soft: #a0a6ae; --card: #1d2126;
  --ground: #121518; --bar: #2c4668; --first: #4b93e8; --line: #30353c }} }}
body {{ margin: 0; padding: 2rem clamp(1rem, 4vw, 3rem); background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif }}
h1 {{ margin: 0; font-size: 1.35rem }}
header p {{ margin: .2rem 0 1.5rem; color: var(--soft) }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }}
figure {{ margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  overflow: hidden }}
figure > div {{ height: 14rem; display: grid; place-items: center; background: var(--ground) }}
img {{ max-width: 100%; max-height: 14rem; min-height: 6rem; display: block; image-rendering: auto }}
figcaption {{ padding: .6rem .9rem .9rem }}
.file {{ color: var(--soft); font-size: .85rem; overflow-wrap: anywhere }}
ol {{ list-style: none; margin: .4rem 0 0; padding: 0 }}
li {{ display: grid; grid-template-columns: 1fr auto; gap: 0 .8rem; padding-top: .3rem;
  font-variant-numeric: tabular-nums }}
li:first-child {{ font-weight: 600 }}
li i {{ grid-column: 1 / -1; height: 4px; border-radius: 2px; background: var(--bar) }}
li:first-child i {{ background: var(--first) }}
</style>
<header><h1>{title}</h1><p>{subtitle}</p></header>
<main>
{figures}
</main>
</html>
"""


def page(card, answers):
    """The page of `answers`, tuples (path, PIL image, guesses), by the model of a card."""
    side = card["preprocessing"]["img_size"]
    count = f"{len(answers)} image" + ("" if len(answers) == 1 else "s")
    return PAGE.format(
        title=escape(f"{card['model']}: {count}"),
        subtitle=escape(f"the likeliest of {card['num_classes']} classes at {side} x {side} pixels"),
        figures="\n".join(_figure(*answer) for answer in answers),
    )


def _figure(path, image, guesses):
    items = "".join(
        f"<li><span>{escape(guess.name)}</span><span>{guess.probability:.1%}</span>"
        f'<i style="width: {max(guess.probability, 0.005):.1%}"></i></li>'
        for guess in guesses
    )
    return (
        f'<figure><div><img src="{_data_url(image)}" alt="{escape(path.name, quote=True)}"></div>'
        f'<figcaption><div class="file">{escape(path.name)}</div><ol>{items}</ol></figcaption></figure>'
    )


def _data_url(image):
    image = image.copy()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "PNG" if max(image.size) <= 64 else "JPEG", quality=85)
    kind = "png" if max(image.size) <= 64 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
