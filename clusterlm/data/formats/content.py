"""What a chunk holds, as a text that stands for it: the same records, the same text.

Of plain lines and small texts the bytes themselves count, so that a file that has grown keeps its
chunks; of a piece of a text its bytes and those around it, which settle where it is cut. Of
everything else the content of the file and the place in it. How a file is read always counts.
"""

from __future__ import annotations

from clusterlm.data.formats.chunks import Chunk
from clusterlm.data.formats.units import chunk_key
from clusterlm.data.hashes import HashMemo, hash_range

AROUND_BYTES = 1 << 17
"""A place to cut is looked for no further behind a piece; mostly far less."""


def content_key(chunk: Chunk, memo: HashMemo) -> str:
    """A text for the content of a chunk."""
    key = chunk_key(chunk)
    if key is not None:
        return key
    if chunk.is_piece:
        around = (max(0, chunk.start - AROUND_BYTES), chunk.end + AROUND_BYTES)
        content = hash_range(chunk.files[0].path, *around)
        return f"piece {chunk.start} {chunk.is_last} {content}"
    files = " ".join(f"{file.how_read} {memo.hash_of(file.path)}" for file in chunk.files)
    return f"{chunk.index} {chunk.start}-{chunk.end} {files}"
