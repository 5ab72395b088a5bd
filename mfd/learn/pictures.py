"""Read sets of pictures: folders, packed JPEG files, folders of Hugging Face datasets.

Rules of this file: what a file declares is checked before memory is taken; formats for which pillow
starts a program (PostScript) are no pictures here, whatever the file is called; pillow and datasets
are imported on use. Pictures come as (samples, channels, height, width) from 0 to 255.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mfd.learn.errors import HoldingError
from mfd.learn.readers import SET_BYTES_MAX, Table, read_npz

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COLOURS", "read_folder", "read_packed", "read_saved"]

Array = np.ndarray[Any, Any]
COLOURS = {"rgb": "RGB", "grey": "L"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others may start programs
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
PICTURES_MAX = 10_000_000
SIDE_MAX = 8_192  # pixels: a small file may declare a picture larger than memory
VALUE_BYTES = 8  # of a number in a table, before it is read


def read_folder(folder: Path, options: Mapping[str, str]) -> Table:
    """Pictures in FOLDER/LABEL/*, labels in the order of their names.

    `size` scales all of them to a square of so many pixels; without it they must be of one size.
    """
    labels = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [
        (path, number)
        for number, label in enumerate(labels)
        for path in sorted(label.iterdir())
        if path.suffix.lower() in ENDINGS
    ]
    if not found:
        raise HoldingError(f"no pictures in folders below it; a label is a folder ({ENDINGS[0]})")
    x = _stack(((path.name, path) for path, _ in found), len(found), options)
    return x, np.array([number for _, number in found], np.int64), len(labels)


def read_packed(path: Path, split: str) -> Table:
    """JPEG files one after another in an .npz: SPLIT_jpeg, SPLIT_offsets (n + 1), SPLIT_labels."""
    names = [f"{split}_{kind}" for kind in ("jpeg", "offsets", "labels")]
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    for name in names:
        if name not in sizes:
            raise HoldingError(f"no array {name!r} in it; there are {', '.join(sizes)}")
        if sizes[name] > SET_BYTES_MAX:
            raise HoldingError(f"array {name!r} of {sizes[name]} bytes is larger than one data set")
    packed, _, _ = read_npz(path, {"x": names[0], "y": names[2]})
    offsets, y, classes = read_npz(path, {"x": names[1], "y": names[2]})
    edges = offsets.astype(np.int64)
    sound = packed.ndim == 1 and packed.dtype == np.uint8 and edges.shape == (len(y) + 1,)
    if not sound or np.any(np.diff(edges) <= 0) or edges[0] < 0 or edges[-1] > len(packed):
        raise HoldingError(f"{names[1]} does not cut {names[0]} into {len(y)} files")
    files = (
        (f"picture {i}", io.BytesIO(packed[edges[i] : edges[i + 1]].tobytes()))
        for i in range(len(y))
    )
    return _stack(files, len(y), {}), y.astype(np.int64), classes


def _stack(
    files: Iterable[tuple[str, Path | IO[bytes]]], count: int, options: Mapping[str, str]
) -> Array:
    """Decode pictures of one size into one array of bytes."""
    from PIL import Image, UnidentifiedImageError

    Image.init()  # a pillow may be built without some of them
    formats = [name for name in FORMATS if name in Image.OPEN]
    out: Array | None = None
    for row, (name, file) in enumerate(files):
        try:
            with Image.open(file, formats=formats) as image:
                pixels = _pixels(name, image, options)
        except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as exc:
            raise HoldingError(f"{name} is not a picture that pillow reads: {exc}") from None
        if out is None:
            if count > PICTURES_MAX or count * pixels.nbytes > SET_BYTES_MAX:
                raise HoldingError(f"{count} pictures of {pixels.nbytes} bytes are too many")
            out = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape != out.shape[1:]:
            raise HoldingError(
                f"{name} has {list(pixels.shape)} values, the first one {list(out.shape[1:])}: "
                "say size=PIXELS"
            )
        out[row] = pixels
    if out is None:
        raise HoldingError("it has no samples")
    return out


def _pixels(name: str, image: Image, options: Mapping[str, str]) -> Array:
    """Channels first: (channels, height, width)."""
    if max(image.size) > SIDE_MAX:
        raise HoldingError(
            f"{name} is {image.size[0]} x {image.size[1]} pixels; {SIDE_MAX} at most"
        )
    image = image.convert(COLOURS[options.get("colour", "rgb")])
    side = int(options.get("size", "0"))
    if side:
        image = image.resize((side, side))
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_saved(folder: Path, options: Mapping[str, str]) -> Table:
    """A Dataset, or a DatasetDict, as `save_to_disk` wrote it.

    `set` names a part of a DatasetDict; without it all parts follow one another. `x` and `y` name
    columns (image and label); pictures become arrays, a number or a list of numbers is taken as it
    is. Several columns, x=a,b,c, become the values of a table.
    """
    from datasets import Dataset, concatenate_datasets, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except (FileNotFoundError, ValueError) as exc:
        raise HoldingError(f"not a folder of Hugging Face datasets: {exc}") from None
    except IndexError:  # so it fails on a set of no rows
        raise HoldingError("it has no samples") from None
    rows: Any = found
    if not isinstance(found, Dataset):
        part = options.get("set", "")
        if part and part not in found:
            raise HoldingError(f"no part {part!r}; there are {', '.join(found)}")
        rows = found[part] if part else concatenate_datasets(list(found.values()))
    label = options.get("y", "label")
    names = options.get("x", "image").split(",")
    for name in (*names, label):
        if name not in rows.column_names:
            raise HoldingError(f"no column {name!r}; there are {', '.join(rows.column_names)}")
    if not len(rows):
        raise HoldingError("it has no samples")
    kind = rows.features[label]
    y = np.asarray(rows.with_format("arrow")[label].to_numpy(zero_copy_only=False))
    if y.dtype.kind not in "iu":
        raise HoldingError(f"column {label!r} is {y.dtype}, not whole numbers")
    if y.min() < 0:
        raise HoldingError(f"column {label!r} has the label {int(y.min())}: leave such rows out")
    classes = max(getattr(kind, "num_classes", None) or 0, int(y.max()) + 1)
    x = _columns(rows, names, options)
    return x, y.astype(np.int64), max(classes, int(options.get("classes", "0")))


def _columns(rows: Any, names: Sequence[str], options: Mapping[str, str]) -> Array:
    from datasets import Image as ImageColumn

    if len(names) == 1 and isinstance(rows.features[names[0]], ImageColumn):
        plain = rows.cast_column(names[0], ImageColumn(decode=False))
        files = ((f"row {i}", _file(row[names[0]])) for i, row in enumerate(plain))
        return _stack(files, len(rows), options)
    if rows.data.nbytes * VALUE_BYTES > SET_BYTES_MAX:
        raise HoldingError(f"{rows.data.nbytes} bytes of columns are larger than one data set")
    columns = [np.asarray(rows.with_format("numpy")[name][:]) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column.dtype.kind not in "iufb":
            raise HoldingError(f"column {name!r} has no numbers of one shape in every row")
    if len(columns) == 1:
        return columns[0]
    return np.stack([column.astype(np.float32) for column in columns], axis=1)


def _file(cell: Mapping[str, Any]) -> Path | IO[bytes]:
    return io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"])
