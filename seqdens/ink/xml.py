"""Reading XML that anybody may have written: nothing is fetched, no entity is replaced, and sizes are limited."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

from seqdens.errors import DataError

LARGEST = 16 << 20  # bytes of a file; a page of ink takes a hundredth of it


def read_root(path: Path, name: str) -> etree._Element:
    """The root element of the file at `path`, which must be a `name`, in any namespace or none.

    Raises `DataError` for a file that is missing, too large, no such XML, or that declares entities.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"cannot load {str(path)!r}: {error.strerror or error}.") from error
    if len(content) > LARGEST:
        raise DataError(f"cannot load {str(path)!r}: it is larger than {LARGEST >> 20} MiB.")
    try:
        root = etree.fromstring(content, _parser())
    except (etree.XMLSyntaxError, ValueError) as error:
        raise DataError(f"cannot load {str(path)!r}: it is no XML ({' '.join(str(error).split())}).") from None
    document = root.getroottree().docinfo.internalDTD
    if document is not None and next(document.iterentities(), None) is not None:
        raise DataError(f"cannot load {str(path)!r}: it declares entities, which are not read; save it without them.")
    if tag(root) != name:
        raise DataError(f"cannot load {str(path)!r}: its root is <{tag(root)}>, but must be <{name}>.")
    return root


def tag(element: etree._Element) -> str:
    """The name without its namespace."""
    return etree.QName(element).localname


def _parser() -> etree.XMLParser:
    # collect_ids=False is not among them: with it lxml 6 loads what a document type names
    return etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
