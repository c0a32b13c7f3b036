"""The two sides of a run speak of the same classes: matched by name, or refused with both lists."""

import io
import tarfile
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_inline.data.classes import match_classes
from paddle_inline.data.sources import open_source
from paddle_inline.utils.errors import UserError
from tests.data.trees import picture, tree


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def both(root):
    """(training source, held-out source with labels of its classes, notes)."""
    train, val = (open_source("imagenet", str(root), train=part) for part in (True, False))
    return train, *match_classes(val, train.classes, named=train.named)


def named(source):
    """[(class's name by the label, class's name by the path), ...] of a folder's images."""
    return [(source.classes[source[i][1]], source.name(i).split("/")[-2]) for i in range(len(source))]


def test_a_class_that_val_lacks_shifts_nothing(tmp_path):
    train, val, notes = both(tree(tmp_path, "abcd", "bcd"))
    assert sorted(set(val.labels)) == [1, 2, 3] and val.classes == train.classes == tuple("abcd")
    assert all(by_label == by_path for by_label, by_path in named(val))
    assert notes == ["val has no image of a, which train has"]


def test_a_class_that_train_lacks_is_refused_with_both_lists(tmp_path):
    tree(tmp_path, ["cat", "dog", "fox"], ["aa", "cat", "dog"])
    expected = r"val has images of aa, .*train: 3, cat, dog, fox; val: 3, aa, cat, dog"
    with pytest.raises(UserError, match=expected):
        both(tmp_path)


def test_an_empty_folder_of_val_is_no_class(tmp_path):
    tree(tmp_path, "abc", "abc")
    (tmp_path / "val" / "aaa").mkdir()
    _, val, _ = both(tmp_path)
    assert sorted(set(val.labels)) == [0, 1, 2] and all(a == b for a, b in named(val))


def test_accents_are_written_in_two_ways(tmp_path):
    name = "caf\u00e9"
    tree(tmp_path, [name, "tea"], [unicodedata.normalize("NFD", name), "tea"])
    _, val, _ = both(tmp_path)
    assert sorted(set(val.labels)) == [0, 1] and val.classes == (name, "tea")


def test_one_class_in_all_and_classes_without_images_are_said(tmp_path):
    tree(tmp_path / "one", ["images"])
    (tmp_path / "one" / "train" / "images" / "cat").mkdir()
    (note,) = open_source("imagenet", str(tmp_path / "one"), train=True).notes
    assert "train holds one class folder, 'images'; it has folders itself (cat)" in note
    tree(tmp_path / "two", "ab")
    (tmp_path / "two" / "train" / "c").mkdir()
    source = open_source("imagenet", str(tmp_path / "two"), train=True)
    assert source.classes == tuple("abc") and "no image in the class folders c" in source.notes[0]


def write_list(root, part, labels):
    (root / part).mkdir(parents=True, exist_ok=True)
    for i in range(len(labels)):
        picture(i).save(root / part / f"{i}.png")
    (root / f"{part}_list.txt").write_text("".join(f"{part}/{i}.png {n}\n" for i, n in enumerate(labels)))


def test_lists(tmp_path):
    write_list(tmp_path, "train", [0, 1, 2, 3])
    write_list(tmp_path, "val", [1, 3])
    train, val, notes = both(tmp_path)
    assert val.labels == [1, 3] and len(train.classes) == 4 and "has no image of 0, 2" in notes[0]
    write_list(tmp_path, "val", [1, 4])
    with pytest.raises(UserError, match="val has images of 4, which train does not know"):
        both(tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    assert open_source("imagenet", str(tmp_path), train=True).classes == tuple("abcd")
    with pytest.raises(UserError, match=r"classes\.txt names 4 classes; .*val_list.txt has class 4"):
        open_source("imagenet", str(tmp_path), train=False)
    write_list(tmp_path, "train", [0, 3])
    assert "no image of class b, c" in open_source("imagenet", str(tmp_path), train=True).notes[0]


def test_a_list_beside_class_folders(tmp_path):
    """Numbers of a list mean the folders in their order, or the folders of those names where they have such."""
    tree(tmp_path, ["cat", "dog", "fox"], [])
    write_list(tmp_path, "val", [2, 0])
    train, val, notes = both(tmp_path)
    assert val.labels == [2, 0] and val.classes == train.classes == ("cat", "dog", "fox")
    assert "matched by class number" in notes[0]
    write_list(tmp_path, "val", [3])
    with pytest.raises(UserError, match="val has images of 3"):
        both(tmp_path)
    tree(tmp_path / "digits", [str(i) for i in range(12)], [])
    write_list(tmp_path / "digits", "val", [2, 11])
    _, val, _ = both(tmp_path / "digits")
    assert [val.classes[label] for label in val.labels] == ["2", "11"]


def test_tar_files(tmp_path):
    for part, labels in (("train", [0, 1]), ("val", [0, 2])):
        with tarfile.open(tmp_path / f"{part}.tar", "w") as archive:
            for i, label in enumerate(labels):
                data = io.BytesIO()
                picture(i).save(data, "PNG")
                for name, content in ((f"{i}.png", data.getvalue()), (f"{i}.cls", str(label).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    with pytest.raises(UserError, match="val has images of 2, which train does not know"):
        both(tmp_path)


class Named:
    """A source of given class names, one image a label."""

    notes = ()

    def __init__(self, classes, labels, named=True):
        self.classes, self.labels, self.named = tuple(classes), labels, named


def test_names_without_numbers_and_the_other_way_round():
    source, notes = match_classes(Named("ab", [0, 1]), ("0", "1"), named=False)
    assert source.labels == [0, 1] and "matched by class number" in notes[0]
    with pytest.raises(UserError, match="does not know"):  # which number is whose is not known
        match_classes(Named("ab", [0, 1]), ("0", "1", "2"), named=False)
    with pytest.raises(UserError, match="does not know"):  # folders called 0 and 1
        match_classes(Named("ab", [0, 1]), ("0", "1"))
    with pytest.raises(UserError, match="have one name"):
        match_classes(Named("ab", [0]), ("a", "a"))


@settings(max_examples=200, deadline=None)
@given(st.sets(st.text(min_size=1, max_size=3), min_size=1, max_size=8), st.data())
def test_any_names_are_matched_or_refused(names, data):
    known = sorted(names)
    forms = {unicodedata.normalize("NFC", name) for name in known}
    own = data.draw(
        st.lists(st.sampled_from(known) | st.text(min_size=1, max_size=3), min_size=1, unique=True)
    )
    source = Named(own, list(range(len(own))))
    try:
        matched, _ = match_classes(source, known)
    except UserError:
        assert len(forms) < len(known) or not {unicodedata.normalize("NFC", name) for name in own} <= forms
    else:
        for name, label in zip(own, matched.labels):
            assert unicodedata.normalize("NFC", known[label]) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("known", "other", "hint"),
    [
        ("Cat", "cat", "'cat' is not 'Cat'"),
        ("cat", "cat ", "'cat ' is not 'cat'"),
        ("1", "01", "'01' is not '1'"),
        ("sea lion", "sea_lion", "'sea_lion' is not 'sea lion'"),
        ("ﬁsh", "fish", "'fish' is not 'ﬁsh'"),
        ("cat", "dog", None),
    ],
)
def test_names_that_are_nearly_equal(tmp_path, known, other, hint):
    tree(tmp_path, [known, "z"], [other, "z"])
    with pytest.raises(UserError, match="which train does not know") as caught:
        both(tmp_path)
    message = str(caught.value)
    assert "rename or remove them" in message
    assert (
        (f"({hint}: names are equal to the letter)" in message) if hint else ("to the letter" not in message)
    )


def test_names_whose_ends_would_not_be_seen_are_quoted(tmp_path):
    tree(tmp_path, ["a, b", "c"], ["a, b", "c "])
    with pytest.raises(UserError, match=r"images of 'c ', .*train: 2, 'a, b', c; val: 2, 'a, b', 'c '$"):
        both(tmp_path)


def test_one_class_of_several_is_not_every_answer(tmp_path):
    tree(tmp_path, "abc", "b")
    _, val, notes = both(tmp_path)
    assert val.labels == [1, 1] and notes == ["val has no image of a, c, which train has"]
    assert "one class folder, 'b': a model that always answers so is right" in val.notes[0]


def test_names_that_unicode_holds_for_one_are_named(tmp_path):
    name = "caf\u00e9"
    tree(tmp_path, [unicodedata.normalize("NFD", name), name, "a"], [name])
    with pytest.raises(UserError, match=rf"have one name \({unicodedata.normalize('NFD', name)}|{name}\)"):
        both(tmp_path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sets(st.text("abAB01_- é", min_size=1, max_size=4).filter(str.strip), min_size=2, max_size=6),
    st.data(),
)
def test_any_folders_are_matched_by_name_or_refused(tmp_path_factory, names, data):
    """Whatever classes val has, in whatever order: the label of every image is that of its folder's name."""
    root = tmp_path_factory.mktemp("classes")
    own = data.draw(st.sets(st.sampled_from(sorted(names)) | st.just("other"), min_size=1))
    tree(root, sorted(names), sorted(own), count=1)
    forms = {unicodedata.normalize("NFC", name) for name in names}
    if len(forms) < len(names) or not {unicodedata.normalize("NFC", name) for name in own} <= forms:
        with pytest.raises(UserError, match=r"does not know|have one name"):
            both(root)
        return
    train, val, _ = both(root)
    assert all(a == b for a, b in named(train)) and val.classes == train.classes
    assert all(a == b for a, b in named(val)) and len(val) == len(own)
