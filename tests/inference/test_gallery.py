"""The page of classified images: what it shows, and that a name with markup stays text."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from paddle_inline.inference.gallery import page
from paddle_inline.inference.predictor import Prediction

MARKUP = '"><script>&amp;'


class Page(HTMLParser):
    """A page's tags, text and images."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.images = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.text += data


def gallery(*images, name=MARKUP):
    card = {"model": f"model{name}", "num_classes": 10, "preprocessing": {"img_size": 32}}
    predictions = [Prediction(1, f"class{name}", 0.75), Prediction(2, "2", 0.0009)]
    return page(card, [(Path(f"{i}{name}.png"), image, predictions) for i, image in enumerate(images)])


def test_a_name_with_markup_stays_text():
    found = Page(gallery(Image.new("RGB", (8, 8))))
    assert "script" not in found.tags
    for text in (f"model{MARKUP}: 1 image", f"class{MARKUP}", f"0{MARKUP}.png"):
        assert text in found.text
    assert found.images[0]["alt"] == f"0{MARKUP}.png" and set(found.images[0]) == {"src", "alt"}


def test_images_are_in_the_page_itself_as_thumbnails():
    text = gallery(Image.new("RGB", (8, 4)), Image.new("RGB", (600, 300)), name="")
    found = Page(text)
    assert "model: 2 images" in found.text and "10 classes at 32 x 32 pixels" in found.text
    assert "75.0%" in found.text and "0.1%" in found.text
    assert "width: 75.0%" in text and "width: 0.5%" in text  # a bar never vanishes
    kinds = []
    for image in found.images:
        head, _, data = image["src"].partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
            kinds.append((head, thumbnail.size))
    assert kinds == [("data:image/png", (8, 4)), ("data:image/jpeg", (224, 112))]
    assert "http" not in text
