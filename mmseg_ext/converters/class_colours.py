"""Masks that show several classes in colours: which colour is which class, and the labels that follow."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, DataError
from ..imagery.reading import read_pixels
from ..imagery.voc import IGNORE
from .scenes import Scene

_Colour = tuple[int, int, int]
BACKGROUND, IGNORED = "background", "ignore"
_EXAMPLE = (
    "give NAME=RED,GREEN,BLUE, such as road=255,0,0 (several of one class: road=255,0,0+0,0,255), "
    "or a file with them (.json, .csv)"
)


def _colour(words: object, of: str) -> _Colour:
    """Return the colour that ``[255, 0, 0]``, ``"255,0,0"`` or ``"#ff0000"`` says; a ConfigError names ``of``."""
    try:
        if isinstance(words, str) and re.fullmatch("#[0-9a-fA-F]{6}", words):
            values = list(bytes.fromhex(words[1:]))
        else:
            values = [int(v) for v in (words.split(",") if isinstance(words, str) else words)]  # type: ignore[attr-defined]
        if len(values) != 3 or not all(0 <= v <= 255 for v in values):
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(f"--colours: {words!r} is no colour of {of}; {_EXAMPLE}") from None
    return values[0], values[1], values[2]


def _from_file(path: str) -> Sequence[tuple[str, object]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if not path.lower().endswith(".json"):
                rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
                named = [(row[0], row[1] if len(row) == 2 else ",".join(row[1:4])) for row in rows]
                return named[1:] if rows and not any(c.isdigit() for c in "".join(rows[0][1:])) else named
            content = json.load(file)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(f"--colours {path}: cannot be read ({error}); {_EXAMPLE}") from None
    if isinstance(content, Mapping):
        return list(content.items())
    try:
        return [(entry["name"], entry.get("color", entry.get("colour"))) for entry in content]
    except (TypeError, KeyError, AttributeError):
        raise ConfigError(f'--colours {path}: is not {{"road": [255, 0, 0], ...}}; {_EXAMPLE}') from None


@dataclass(frozen=True)
class ClassColours:
    """The classes of colour masks.

    Attributes:
        classes: names in the order of their labels, the background first.
        palette: the first colour of each.
        label_of: label of every colour; 255 for those that are ignored.
    """

    classes: tuple[str, ...]
    palette: tuple[_Colour, ...]
    label_of: Mapping[_Colour, int]

    @classmethod
    def of(cls, words: Sequence[str]) -> ClassColours:
        """Return what ``--colours`` says: ``NAME=R,G,B`` for each class, or one JSON or CSV file.

        A class may have several colours, ``NAME=R,G,B+R,G,B``. ``background`` is black unless it is named, and the
        colours of ``ignore`` are ignored.

        Raises:
            ConfigError: a word is not understood, a name or a colour is given twice, or there is no class.
        """
        named: Sequence[tuple[str, object]]
        if len(words) == 1 and "=" not in words[0]:
            named = _from_file(words[0])
        else:
            named = [(name, colour) for name, _, colour in (word.partition("=") for word in words)]
        colours = [
            (str(name), [_colour(one, str(name)) for one in (words.split("+") if isinstance(words, str) else [words])])
            for name, words in named
        ]
        if not any(name == BACKGROUND for name, _ in colours):
            colours.insert(0, (BACKGROUND, [(0, 0, 0)]))
        names = [name for name, _ in colours if name != IGNORED]
        shown = [*names, *(str(colour) for _, several in colours for colour in several)]
        twice = [word for word in shown if shown.count(word) > 1]
        if twice:
            raise ConfigError(f"--colours: {twice[0]} is given twice; name every class and every colour once")
        classes = (BACKGROUND, *(name for name in names if name != BACKGROUND))
        if not 2 <= len(classes) < IGNORE:
            raise ConfigError(f"--colours: {len(classes) - 1} classes besides the background; {_EXAMPLE}")
        palette = {name: several[0] for name, several in colours}
        label_of = {
            colour: IGNORE if name == IGNORED else classes.index(name)
            for name, several in colours
            for colour in several
        }
        return cls(classes, tuple(palette[name] for name in classes), label_of)

    def read(self, path: str) -> np.ndarray:
        """Return the labels (H, W) of the colour mask at ``path``, uint8; what is transparent is ignored.

        Raises:
            DataError: unreadable, or a pixel has a colour of no class; names colour and place.
        """
        try:
            values, valid = read_pixels(path)
        except DataError as error:
            raise DataError(str(error).replace("read as an image", "read as a mask")) from None
        if values.dtype != np.uint8 or values.shape[2] not in (1, 3):
            raise DataError(
                f"{path}: {values.shape[2]} band(s) of {values.dtype}, but --colours needs 8-bit red, green and blue"
            )
        bands = values.shape[2]
        red, green, blue = (values[:, :, band].astype(np.int32) for band in (0, bands // 2, -1))
        codes = red << 16 | green << 8 | blue
        labels = np.full(codes.shape, IGNORE, np.uint8)
        known = np.zeros(codes.shape, bool) if valid is None else ~valid
        for (r, g, b), label in self.label_of.items():
            here = codes == (r << 16 | g << 8 | b)
            labels[here], known[here] = label, True
        if not known.all():
            row, column = (int(v) for v in np.argwhere(~known)[0])
            colour = ",".join(map(str, (red[row, column], green[row, column], blue[row, column])))
            more = int((~known).sum()) - 1
            raise DataError(
                f"{path}: colour {colour} at row {row}, column {column} (and {more} more pixels) is of none of the "
                "classes; add it to --colours, as ignore=... if it is to be ignored"
            )
        if valid is not None:
            labels[~valid] = IGNORE
        return labels

    def labels(self, scene: Scene) -> np.ndarray:
        """Return the labels (H, W) of a scene's mask; see `read`."""
        assert scene.mask is not None
        return self.read(scene.mask)

    def words(self) -> str:
        """Return the settings of a config for these classes."""
        palette = [list(colour) for colour in self.palette]
        return f"classes={self.classes}, palette={palette}, num_classes={len(self.classes)}"
